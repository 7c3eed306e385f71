"""The demo, run as `make demo` runs it, for a few seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo.traffic import arrivals, fixed_fields, fresh_questions, known_prompts
from router_model.head import load_named

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("traffic", ["steady", "surge"])
def test_it_ends_by_itself_without_a_terminal(traffic: str) -> None:
    """Plain lines, a score with intervals, one paragraph, exit status 0."""
    command = (
        sys.executable,
        "-m",
        "examples.demo",
        "--seconds",
        "10",
        "--rate",
        "3",
        f"--traffic={traffic}",
    )
    ended = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, check=False
    )

    assert ended.returncode == 0, ended.stderr[-2000:] + ended.stdout[-2000:]
    assert "\x1b[" not in ended.stdout
    for way in ("adaptive", "direct", "short", "medium", "long", "best fixed mix"):
        assert re.search(rf"│ {way} +│ +\d+\.\d %", ended.stdout), way
    assert "held-out questions went through the gateway" in ended.stdout
    assert ("surge" in ended.stdout) == (traffic == "surge")


def test_questions_are_new_to_model_and_head() -> None:
    """None of them is in the outcome table that the head learned from, and none comes twice."""
    known = known_prompts()
    texts = [question.text for question in fresh_questions(300, seed=7)]

    assert len(known) >= 2_000
    assert len(set(texts)) == 300
    assert not known & set(texts)
    assert not any(load_named("tiny").trained_on(texts))


def test_a_surge_is_denser() -> None:
    """Within the surge questions come at the multiple of the rate."""
    times = list(arrivals(3_000, 10, 1, (100, 150, 3)))
    inside = sum(100 <= at < 150 for at in times)

    assert times == sorted(times)
    assert inside == pytest.approx(1_500, rel=0.1)


def test_fixed_tiers_are_asked_as_the_gateway_asks() -> None:
    """Thinking is switched off for direct, and limited for the others."""
    assert fixed_fields("direct")["extra_body"] == {"chat_template_kwargs": {"enable_thinking": False}}
    assert fixed_fields("short")["extra_body"]["thinking_token_budget"] == 24
