"""Renewals of many reservations are made a few at a time, and of running requests only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.budget import ledger as module
from gateway.budget.ledger import Ledger, open_budget
from gateway.store.commands import JournalEntry
from gateway.telemetry.metrics import Metrics
from tests.making import settings


class Running:
    """The reservation of a running request."""

    windows = ()

    def __init__(self, id_: str, renewed: Callable[[], object] = lambda: None) -> None:
        self.id, self._renewed = id_, renewed

    def renewal(self) -> list[tuple[int, int]]:
        self._renewed()
        return [(100, 20)]


@pytest.fixture
def ledger() -> Ledger:
    return open_budget(settings(reservations={"lease": 1}), Metrics(list).budget)


async def renewed_by(
    ledger: Ledger, reservations: list[Running], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The ids of the reservations that are renewed first."""
    seen: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def renew(entries: list[JournalEntry]) -> None:
        if not seen.done():
            seen.set_result([entry.id for entry in entries])

    active: dict[str, Any] = {one.id: one for one in reservations}
    monkeypatch.setattr(ledger, "_active", active)
    monkeypatch.setattr(ledger.store.journal, "renew", renew)
    task = asyncio.create_task(ledger._renew())
    try:
        return await seen
    finally:
        task.cancel()


async def test_others_are_served_meanwhile(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop turns between two groups of reservations, and all are renewed."""
    many = [Running(f"{number}") for number in range(4 * module._RENEWED_AT_ONCE)]
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    many[0]._renewed = turn

    assert await renewed_by(ledger, many, monkeypatch) == [one.id for one in many]
    assert turns >= 3


async def test_what_was_settled_meanwhile_is_not_reserved_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [Running(f"{number}") for number in range(2 * module._RENEWED_AT_ONCE)]
    many[-1]._renewed = lambda: ledger._active.pop("0")

    assert await renewed_by(ledger, many, monkeypatch) == [one.id for one in many[1:]]
