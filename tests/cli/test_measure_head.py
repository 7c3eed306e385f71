"""`thinkmeter measure --calibrate`: from prompts to a head in place."""

from __future__ import annotations

import json
from pathlib import Path

from router_model.head import load_named
from tests.cli.measuring import Measuring, measuring
from tests.fakes.solver import Solver

_KINDS = (
    "Please solve {n} now",
    "Prove at length, by induction over all cases, and solve {n} with every step",
)


def needs(number: int) -> int:
    """Short prompts need a long thought, long ones none, which nobody would guess from their length."""
    return 0 if number % 2 else 256


def asked(folder: Path, url: str, count: int, **changes: object) -> Measuring:
    run = measuring(folder, url, **changes)
    lines = [
        json.dumps({"id": n, "prompt": _KINDS[n % 2].format(n=n), "answer": str(n)}) for n in range(count)
    ]
    run.prompts.write_text("\n".join(lines))
    return run


async def test_one_command_to_a_head(tmp_path: Path) -> None:
    """The new head is the better one on prompts left out, and is written."""
    async with Solver(needs=needs) as backend:
        run = asked(tmp_path, backend.url, 60)
        result = await run.measure("--calibrate", "--rungs", "direct,long")

    assert result.exit_code == 0, result.stderr
    assert "The new head is kept: its estimates of P(right) are the better ones" in result.stdout
    assert f"set `head: {tmp_path / 'table-head'}`" in result.stdout
    head = load_named(tmp_path / "table-head")
    assert "tiny" in head.sets
    page = (tmp_path / "table.html").read_text()
    assert "the calibrated head" in page
    assert "No gain of a router can be told from chance here: " in page  # long thoughts end when they can


async def test_head_in_a_directory_is_replaced(tmp_path: Path) -> None:
    """When the model has changed, the directory gets the new head, and the old one is kept beside it."""
    async with Solver(needs=needs) as backend:
        run = asked(tmp_path, backend.url, 60)
        await run.measure("--calibrate", "--rungs", "direct,long")
        place = tmp_path / "table-head"
        before = load_named(place).version
        backend.needs = lambda number: 0  # an update has made it right without a thought
        run = asked(tmp_path, backend.url, 90, head=str(place))
        run.journal.unlink()
        result = await run.measure(
            "--calibrate", "--rungs", "direct,long", "--out", str(tmp_path / "new.jsonl")
        )

    assert result.exit_code == 0, result.stderr
    assert "on 30 prompts that were left out" in result.stdout
    assert [load_named(each).version for each in tmp_path.glob("table-head.before-*")] == [before]
    assert load_named(place).version != before


async def test_worse_head_is_not_written(tmp_path: Path) -> None:
    """Where the heuristic happens to be right, a head from few prompts is worse, and is not written."""
    async with Solver(needs=lambda number: 256 - needs(number)) as backend:
        run = asked(tmp_path, backend.url, 60)
        result = await run.measure("--calibrate", "--rungs", "direct,long")

    assert result.exit_code == 0, result.stderr
    assert "The head in use is kept, and no other was written" in result.stdout
    assert not (tmp_path / "table-head").exists()


async def test_too_few_prompts(tmp_path: Path) -> None:
    """Too few prompts give a table and a page, but no head, and it says why."""
    async with Solver(needs=needs) as backend:
        run = asked(tmp_path, backend.url, 10)
        result = await run.measure("--calibrate", "--rungs", "direct,long")

    assert result.exit_code == 0, result.stderr
    assert "No head was calibrated: " in result.stdout
    assert not (tmp_path / "table-head").exists()
    assert len(run.rows()) == 10
