"""The redaction hook: what it returns is kept, and when it fails in any way, nothing is."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.loader import ConfigError
from gateway.evidence.redacting import Redactor
from gateway.snapshot import Snapshot
from tests.fakes.backend import Backend
from tests.serving import configuration, serving

HOOKS = "tests.evidence.hooks"


@pytest.fixture
def moody() -> Iterator[Redactor]:
    redactor = Redactor(f"{HOOKS}:moody")
    yield redactor
    redactor.close()


def test_the_hook_returns_what_is_kept(moody: Redactor) -> None:
    assert [moody.redact(text) for text in ("a", "bé\nc", "\ud800")] == ["A", "BÉ\nC", "\ud800"]


@pytest.mark.parametrize("failure", ["raise", "none", "crash", "hang", "backtrack"])
def test_a_failure_keeps_nothing_and_the_next_prompt_works(
    moody: Redactor, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert [moody.redact(text) for text in (failure, "a", failure)] == [None, "A", None]
    assert len(caplog.records) == 1
    assert "raise" not in caplog.text


def test_a_hook_that_always_ends_its_process_is_given_a_rest(moody: Redactor) -> None:
    assert [moody.redact(text) for text in ("crash", "crash", "crash", "a")] == [None] * 4


@pytest.mark.parametrize("hook", ["no_such_module:f", f"{HOOKS}:missing", f"{HOOKS}:NOT_A_FUNCTION"])
def test_a_hook_that_cannot_be_loaded_is_an_error_of_the_configuration(hook: str) -> None:
    text = f"""
models: {{m: {{family: qwen3, replicas: [{{url: 'http://127.0.0.1:1'}}]}}}}
head: baseline
evidence: {{prompts: true, redact: '{hook}'}}
"""
    with pytest.raises(ConfigError, match="evidence"):
        Snapshot.read(text.encode())


async def test_only_redacted_prompts_reach_the_store(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "evidence.db"
    evidence = {"file": str(file), "prompts": True, "redact": f"{HOOKS}:without_digits"}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        await running.chat("My number is 555-1234.")
        assert running.gateway.evidence
        await running.gateway.evidence.stop()

    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT prompt FROM decisions").fetchall() == [("My number is ###-####.",)]


async def test_a_prompt_that_could_not_be_redacted_is_counted(backend: Backend, tmp_path: Path) -> None:
    file = tmp_path / "evidence.db"
    evidence = {"file": str(file), "prompts": True, "redact": f"{HOOKS}:moody"}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        for text in ("raise", "fine"):
            await running.chat(text)
        assert running.gateway.evidence
        await running.gateway.evidence.stop()
        assert running.gateway.evidence.writer.dropped["unredacted"] == 1

    with sqlite3.connect(file) as connection:
        kept = connection.execute("SELECT prompt, features IS NOT NULL FROM decisions ORDER BY at").fetchall()
    assert kept == [(None, 1), ("FINE", 1)]
