"""`thinkmeter measure --budget`: its tokens count like those of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.budget.ledger import open_budget
from gateway.budget.limits import BudgetLimits
from gateway.budget.observer import NullObserver
from gateway.config.loader import load
from tests.cli.measuring import Measuring, measuring
from tests.fakes.solver import Solver


def budgeted(folder: Path, url: str, tokens: int, **budget: Any) -> Measuring:
    given = {"name": "tests", "window": "1h", "tokens": tokens} | budget
    return measuring(
        folder, url, budgets=[given], redis={"directory": str(folder / "redis"), "timeout": 0.25}
    )


async def spent(run: Measuring) -> tuple[int, int]:
    """Tokens settled and reserved."""
    settings = load(Path(run.config))[0]
    ledger = open_budget(settings, NullObserver())
    await ledger.start()
    try:
        limit = BudgetLimits(settings).limits["tests", "*"]
        _, (state,) = await ledger.store.status([limit.window])
        return state.settled, state.reserved
    finally:
        await ledger.stop()


async def test_tokens_count(tmp_path: Path) -> None:
    """What the answers used is settled under the budget, and nothing stays reserved."""
    async with Solver() as backend:
        run = budgeted(tmp_path, backend.url, 1_000_000)
        result = await run.measure("--budget", "tests")
        settled, reserved = await spent(run)

    assert result.exit_code == 0, result.stderr
    assert settled == sum(each["tokens"] for each in run.answers())
    assert reserved == 0


async def test_rung_is_never_shortened(tmp_path: Path) -> None:
    """A budget that can never hold a whole rung stops the run; no shorter answer is taken for it."""
    async with Solver() as backend:
        run = budgeted(tmp_path, backend.url, 100)
        result = await run.measure("--budget", "tests", "--rungs", "long")

    assert result.exit_code == 1
    assert "can never hold" in result.stderr
    assert backend.asked.total() == 0


async def test_full_window_is_waited_for(tmp_path: Path) -> None:
    """While the window is full, requests wait for it instead of failing."""
    async with Solver() as backend:
        run = budgeted(tmp_path, backend.url, 320, window=1)
        result = await run.measure("--budget", "tests", "--rungs", "long", "--limit", "3")

    assert result.exit_code == 0, result.stderr
    assert len(run.rows()) == 3


@pytest.mark.parametrize(("option", "said"), [("tests/nobody", "tests/web"), ("tests", "name whose budget")])
async def test_budget_of_a_key(tmp_path: Path, option: str, said: str) -> None:
    """A budget of keys needs the key whose tokens are to be counted."""
    keys = [{"name": "web", "key": "secret-of-web-0123456789"}]
    budgets = [{"name": "tests", "window": "1h", "tokens": 1000, "scope": "key"}]
    run = measuring(tmp_path, "http://127.0.0.1:1", keys=keys, budgets=budgets)
    result = await run.measure("--budget", option)

    assert result.exit_code == 2
    assert said in result.stderr
