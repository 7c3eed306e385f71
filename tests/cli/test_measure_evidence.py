"""`thinkmeter measure` and the store of evidence: its rows, and prompts of the gateway's own traffic."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.features import encode_features
from gateway.evidence.rows import DecisionRow
from gateway.evidence.writer import EvidenceWriter
from router_model.encoders.ngrams import part_read
from tests.cli.measuring import Measuring, measuring
from tests.fakes.solver import Solver


def rows(folder: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(folder / "e.db") as store:
        store.row_factory = sqlite3.Row
        found = [dict(row) for row in store.execute("SELECT * FROM measurements")]
    store.close()
    return found


async def test_rows(tmp_path: Path) -> None:
    """Each answer is one row, however often the command runs; another grader's are those of another run."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url, evidence={"file": str(tmp_path / "e.db")})
        result = await run.measure("--rungs", "direct,long")
        await run.measure("--rungs", "direct,long")
        first = rows(tmp_path)
        await run.measure("--rungs", "direct,long", "--grade", "exact")

    assert "24 rows are in the store of evidence" in result.stderr
    assert len(first) == 24
    assert len({row["run"] for row in first}) == 1
    assert {(row["grader"], row["model"], row["prompt"]) for row in first} == {("auto", "tiny", None)}
    row = next(row for row in first if (row["prompt_id"], row["rung"]) == ("2", "long"))
    text = next(each["prompt"] for each in run.rows() if each["id"] == "2")
    assert row["features"] == encode_features(part_read(text), len(text))
    assert (row["thinking"], row["sample"], row["correct"], row["tokens"], row["reasoning_tokens"]) == (
        256, 0, 1.0, 261, 256,
    )  # fmt: skip
    assert len(rows(tmp_path)) == 48
    assert len({row["run"] for row in rows(tmp_path)}) == 2


async def test_prompts_are_kept_only_if_configured(tmp_path: Path) -> None:
    """With `prompts: true` the rows have the text, as the hook changes it."""
    hook = "tests.cli.test_measure_evidence:without_numbers"
    evidence = {"file": str(tmp_path / "e.db"), "prompts": True, "redact": hook}
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url, evidence=evidence)
        await run.measure("--rungs", "direct")

    assert {row["prompt"] for row in rows(tmp_path)} == {"solve #"}


async def test_a_hook_that_fails(tmp_path: Path) -> None:
    """Its prompts are not kept; it is asked once for each, and the rows are written."""
    evidence = {"file": str(tmp_path / "e.db"), "prompts": True, "redact": "tests.evidence.hooks:refuses"}
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url, evidence=evidence)
        result = await run.measure("--rungs", "direct,long")

    assert {row["prompt"] for row in rows(tmp_path)} == {None}
    assert len(rows(tmp_path)) == 24
    assert "evidence.redact failed at 12 prompts" in result.stderr


def without_numbers(prompt: str) -> str:
    """A hook that hides numbers."""
    return "".join("" if c.isdigit() else c for c in prompt) + "#"


async def test_store_away(tmp_path: Path) -> None:
    """A store that cannot be opened costs its rows, and nothing else."""
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url, evidence={"file": "/proc/none/e.db"})
        result = await run.measure("--rungs", "direct")

    assert result.exit_code == 0
    assert "the store of evidence did not take all rows" in result.stderr
    assert len(run.rows()) == 12


async def of_store(run: Measuring, *options: str) -> Any:
    arguments = run.arguments(*options)
    arguments[2] = "store"
    from tests.cli.command import run as command

    return await asyncio.to_thread(command, *arguments)


async def test_prompts_of_the_store(tmp_path: Path) -> None:
    """The prompts of the model's own traffic are drawn once, so that the run can go on later."""
    settings = EvidenceSettings(file=str(tmp_path / "e.db"), prompts=True)
    async with Solver() as backend:
        run = measuring(tmp_path, backend.url, evidence={"file": settings.file, "prompts": True})
        keep(settings, "solve 1", "solve 2", "solve 1", None, other="solve 3")
        result = await of_store(run, "--rungs", "direct,long")
        keep(settings, "solve 4")
        again = await of_store(run, "--rungs", "direct,long")

    assert result.exit_code == 0, result.stderr
    assert "graded by agreement" in result.stderr
    assert {row["prompt"] for row in run.rows()} == {"solve 1", "solve 2"}
    assert again.exit_code == 0, again.stderr
    assert backend.asked.total() == 4


async def test_store_without_prompts(tmp_path: Path) -> None:
    """Where there are no prompts, it is said what to configure."""
    for evidence, said in (
        (None, "no `evidence`"),
        ({"file": str(tmp_path / "e.db")}, "`evidence: {prompts: true}`"),
        ({"file": str(tmp_path / "none.db"), "prompts": True}, "there is no store"),
    ):
        run = measuring(tmp_path, "http://127.0.0.1:1", **({"evidence": evidence} if evidence else {}))
        result = await of_store(run)
        assert result.exit_code == 2
        assert said in result.stderr


def keep(settings: EvidenceSettings, *prompts: str | None, other: str | None = None) -> None:
    """Write decisions with these prompts of the model `tiny`, and one of another model."""
    writer = EvidenceWriter(settings)
    writer.start()
    for model, prompt in [*(("tiny", each) for each in prompts), ("other", other)]:
        number = len(writer.written) + writer.waiting
        writer.put(decision(f"{prompt}-{number}", model, prompt))
    writer.close(20)


def decision(name: str, model: str, prompt: str | None) -> DecisionRow:
    given: dict[str, Any] = dict.fromkeys(DecisionRow.__struct_fields__)
    numbers = dict.fromkeys(
        ("rung", "thinking", "price", "propensity", "correct", "tokens", "status", "duration"), 1
    )
    texts = dict.fromkeys(
        ("request_id", "route", "head", "config", "arm", "tier", "reason", "requested"), "x"
    )
    flags = dict.fromkeys(("stream", "cancelled", "truncated"), False)
    given |= (
        numbers | texts | flags | {"id": name, "at": 1.7e9, "model": model, "rungs": json.dumps({}).encode()}
    )
    return DecisionRow(**given | {"prompt": prompt})
