"""Which calls of Redis serve reservations and settlements."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.store.store import Store
from tests.budget.stores import COMMAND, WINDOW
from tests.redis import use


@pytest.fixture
def calls(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each call since the start of the test does."""
    made: list[list[str]] = []
    begin = store.connection.begin

    def noting(script: str, keys: Any, arguments: Any, operations: list[str], done: Any) -> None:
        made.append(operations)
        begin(script, keys, arguments, operations, done)

    monkeypatch.setattr(store.connection, "begin", noting)
    return made


def settle(store: Store, id_: str) -> None:
    store.journal.settle(id_, COMMAND.windows, [(70, 0)])


async def test_a_settlement_rides_with_the_next_reservation(store: Store, calls: list[list[str]]) -> None:
    """Requests one after the other need one call each."""
    id_, _ = await store.reserve(COMMAND)
    for _ in range(3):
        settle(store, id_)
        id_, _ = await store.reserve(COMMAND)
    assert calls == [["reserve"], *[["settle", "reserve"]] * 3]
    assert await use(store, WINDOW) == (210, 100)


async def test_a_settlement_alone_is_sent_soon(store: Store, calls: list[list[str]]) -> None:
    """Without another request it waits for some milliseconds only."""
    id_, _ = await store.reserve(COMMAND)
    settle(store, id_)
    async with asyncio.timeout(10):
        while store.journal:
            await asyncio.sleep(0.002)
    assert calls == [["reserve"], ["settle"]]


async def test_who_reads_sees_what_was_settled(store: Store, calls: list[list[str]]) -> None:
    """A reading has the settlement before it, and an end of the gateway does not wait for it."""
    id_, _ = await store.reserve(COMMAND)
    settle(store, id_)
    _, (state,) = await store.status([WINDOW])
    assert (state.settled, state.reserved) == (70, 0)
    settle(store, "unknown")
    await store.journal.empty()
    assert calls == [["reserve"], ["settle"], ["settle"]]


async def test_a_call_under_way_is_waited_for(store: Store, calls: list[list[str]]) -> None:
    """Settlements are sent one call at a time, however often somebody asks for haste."""
    asked = asyncio.create_task(store.reserve(COMMAND))
    await asyncio.sleep(0)
    settle(store, "unknown")
    for _ in range(3):
        store.journal.hurry()
        await asyncio.sleep(0)
    await asked
    await store.journal.empty()
    assert await use(store, WINDOW) == (70, 100)
    assert sum(operations.count("settle") for operations in calls) == 1


async def test_a_lone_reservation_is_sent_before_what_is_done_meanwhile(
    store: Store, calls: list[list[str]]
) -> None:
    seen: list[int] = []
    await store.reserve(COMMAND, lambda: seen.append(len(calls)))
    assert seen == [1]


async def test_what_fails_meanwhile_gives_the_tokens_back(store: Store) -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        await store.reserve(COMMAND, fail)
    async with asyncio.timeout(10):
        while await use(store, WINDOW) != (0, 0):
            await asyncio.sleep(0.005)
