"""Runs the demo as `make demo` does, for a few seconds."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from examples.demo.__main__ import claimed
from examples.demo.drawing import interval, question_table, sparkline
from examples.demo.score import Score
from examples.demo.traffic import Answer, Asked, Plan, arrivals, fixed_fields, fresh_questions, known_prompts
from examples.demo.view import View
from examples.servers import TIERS
from examples.tiny_reasoner.task import held_out_set
from router_model.head import load_named

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demos() -> dict[str, subprocess.CompletedProcess[str]]:
    """A short run with each kind of traffic, side by side, because each of them mostly waits."""

    def run(traffic: str) -> subprocess.CompletedProcess[str]:
        command = (
            sys.executable,
            "-m",
            "examples.demo",
            "--seconds",
            "10",
            "--rate",
            "3",
            "--traffic",
            traffic,
        )
        return subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    kinds = ("steady", "surge")
    with ThreadPoolExecutor() as pool:
        return dict(zip(kinds, pool.map(run, kinds), strict=True))


@pytest.mark.parametrize("traffic", ["steady", "surge"])
def test_it_ends_by_itself_without_a_terminal(
    traffic: str, demos: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    """Without a terminal it prints plain lines, a score with intervals and one paragraph; status 0."""
    ended = demos[traffic]

    assert ended.returncode == 0, ended.stderr[-2000:] + ended.stdout[-2000:]
    assert "\x1b[" not in ended.stdout
    for way in ("adaptive", "direct", "short", "medium", "long", "best fixed mix"):
        assert re.search(rf"\n {way} +\d+\.\d +\d+\.\d % +\d+\.\d to \d+\.\d .*●", ended.stdout), way
    assert re.search(r"P\(right\): direct \d+ %, short \d+ %, medium \d+ %, long \d+ %; price", ended.stdout)
    assert "P(right): unknown" not in ended.stdout
    assert "held-out questions went to the gateway" in ended.stdout
    assert ("In the surge" in ended.stdout) == (traffic == "surge")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a short path, because the embedded Redis has its socket below it."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)


def started_below(folder: Path) -> list[str]:
    """The command lines of processes that work in a folder, such as an embedded Redis."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(entry.read_text())
    return [line for line in lines if str(folder) in line]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_leaves_nothing_behind(number: signal.Signals, status: int, folder: Path) -> None:
    """If it is interrupted or its terminal closes, it prints what it has measured and stops all servers."""
    command = (sys.executable, "-u", "-m", "examples.demo", "--seconds", "60")
    pipe, environ = subprocess.PIPE, os.environ | {"TMPDIR": str(folder)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=pipe, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout
        lines = iter(demo.stdout.readline, "")
        url = next(line.split()[-1] for line in lines if line.startswith("In the browser"))
        assert urllib.request.urlopen(url, timeout=10).status == 200
        next(line for line in lines if "tokens" in line)
        assert started_below(folder) or not Path("/proc").exists()
        demo.send_signal(number)
        next(line for line in lines if "questions were asked" in line)
        demo.send_signal(number)
        rest = "".join(lines)

        assert demo.wait(30) == status
    assert "Traceback" not in rest
    assert not started_below(folder)
    with contextlib.closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) != 0


def test_a_taken_port_is_told(free_port: int) -> None:
    """A port in use is reported in one line, before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port))
        taken.listen()
        ended = subprocess.run(
            (sys.executable, "-m", "examples.demo", f"--port={free_port}"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(f"port {free_port} is taken: give another --port, or none")


@pytest.mark.parametrize(("width", "columns"), [(60, 5), (80, 6), (120, 7)])
def test_narrow_terminals_get_fewer_columns(width: int, columns: int) -> None:
    """Every width shows tier, reason, mark and tokens. A refused question has a row too."""
    question = held_out_set(1)[0]
    answer = Answer("short", "7", right=True, tokens=30, reason="price", decision="d")
    decisions = {"d": {"tier": "short", "correct": {"direct": 0.1, "short": 0.97}}}
    table = question_table(
        [Asked(question, adaptive=answer), Asked(question, refused="rate_limit_exceeded")], decisions, width
    )
    cells = [[str(cell) for cell in column.cells] for column in table.columns]

    assert len(table.columns) == columns
    assert ["best value", "rate limit exceeded"] in cells
    assert (width < 80) or [" 10  97 ", ""] in cells


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("height", [24, 50])
def test_the_picture_fits_the_terminal(width: int, height: int) -> None:
    """The whole picture fits, even in a surge, down to the score at its foot."""
    out = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    view = View(out, Plan(3, 60, surge=True))
    budget = {"budget": "everyone", "cap": 4_050, "settled": 1_000, "reserved": 25, "window": "30"}
    for second in range(40):
        view.event("snapshot", {"seconds": [{"price": 6 + second}], "budgets": [budget]})
    asked = [Asked(question, at=1.0) for question in held_out_set(40)]
    for entry in asked:
        entry.adaptive = Answer("short", "7", right=True, tokens=30, reason="price", decision="d")
        entry.fixed = {tier: Answer(tier, "7", right=tier != "direct", tokens=9) for tier in TIERS}
        view.asked(entry)
    view.draw(asked, 30.0)
    assert view.live
    lines = ["".join(part.text for part in line) for line in out.render_lines(view.live.get_renderable())]

    assert len(lines) < height
    assert "SURGE" in lines[0]
    assert any("25 %" in line for line in lines[2:4])
    assert "adaptive over the best fixed mix" in lines[-1] + lines[-2]


def test_what_the_user_asks_is_told() -> None:
    """Each decision about a user's question is one line; a failure is shown, and colours end with it."""
    out = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=120)
    view = View(out, Plan(3, 60))
    decision = {"id": "d", "tier": "direct", "reason": "price", "correct": {"direct": 0.9, "long": 1.0}}
    view.follow()
    view.event("decisions", [{"decision": decision, "status": 200, "completion_tokens": 3}])
    view.event("decisions", [{"decision": decision, "status": 400, "completion_tokens": None}])
    first, second = out.file.getvalue().splitlines()

    assert "\x1b[2mdirect\x1b[0m  best value  P(right), %:" in first
    assert "3 tokens, price" in first
    assert "failed with status 400, price" in second


def test_two_demos_never_share_a_port(free_port: int) -> None:
    """A demo cannot claim a port until the demo that has it ends, even if both start at once."""
    first = claimed(free_port)
    assert first
    assert claimed(free_port) is None
    first.close()
    again = claimed(free_port)
    assert again
    again.close()


def test_small_charts() -> None:
    """A bar is as tall as its share of the highest value; an interval lies at its percentages."""
    assert sparkline([0, 1, 2, 4], 3, 4) == "▃▅█"
    assert sparkline([0, 0], 4) == "▁▁  "
    assert interval(Score("x", 0.5, 0.25, 0.99, 1.0), 8) == "  ├─●──┤"
    assert interval(Score("x", 1.0, 1.0, 1.0, 1.0), 4) == "   ●"


def test_questions_are_new_to_model_and_head() -> None:
    """No question is in the outcome table that the head was trained on, and none comes twice."""
    known = known_prompts()
    texts = [question.text for question in fresh_questions(300, seed=7)]

    assert len(known) >= 2_000
    assert len(set(texts)) == 300
    assert not known & set(texts)
    assert not any(load_named("tiny").trained_on(texts))


def test_a_surge_is_denser() -> None:
    """During the surge, questions come at a multiple of the normal rate."""
    times = list(arrivals(Plan(10, 100, surge=True), 1))
    inside = sum(35 <= at < 70 for at in times)

    assert times == sorted(times)
    assert len(times) == 1_700
    assert inside == pytest.approx(1_050, rel=0.1)


def test_fixed_tiers_are_asked_as_the_gateway_asks() -> None:
    """Thinking is switched off for `direct`, and limited for the others."""
    assert fixed_fields("direct")["extra_body"] == {"chat_template_kwargs": {"enable_thinking": False}}
    assert fixed_fields("short")["extra_body"]["thinking_token_budget"] == 24
