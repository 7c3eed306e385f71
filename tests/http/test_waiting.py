"""The queue of the budgets is shared fairly among keys."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budget.waiting import Turn, Waiter, WaitingLine
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import ask
from tests.redis import RealRedis
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"


def test_full_queue_makes_room_for_a_client_with_fewer() -> None:
    """The newest of the client with the most loses its place; a client with its share does not get one."""
    line = WaitingLine()
    greedy = [line.enter(Turn(1, 4, "greedy")) for _ in range(5)]
    good = [line.enter(Turn(1, 4, "good")) for _ in range(3)]

    assert greedy[4] is None
    assert [waiter.ousted for waiter in greedy[:4] if waiter] == [False, False, True, True]
    assert [waiter is not None for waiter in good] == [True, True, False]


def test_place_is_given_back_once() -> None:
    """Leaving twice, or after losing the place, frees one place only."""
    line, turn = WaitingLine(), Turn(1, 1, "a")
    first = line.enter(turn)
    assert first and line.enter(turn) is None
    line.leave(first)
    line.leave(first)

    assert line.enter(turn)
    assert line.enter(turn) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=80), st.integers(1, 12))
def test_no_client_is_kept_out(steps: list[tuple[str, bool]], most: int) -> None:
    """At most `most` wait, and a client is refused only if none has two more than it."""
    line, inside = WaitingLine(), list[Waiter]()
    for client, leaves in steps:
        if leaves and inside:
            line.leave(inside.pop(0))
            continue
        before = Counter(waiter.client for waiter in inside)
        entered = line.enter(Turn(1, most, client))
        if entered is None:
            assert sum(before.values()) == most
            assert max(before.values()) < before[client] + 2
        else:
            inside = [waiter for waiter in inside if not waiter.ousted] + [entered]
        assert len(inside) <= most


@pytest.mark.usefixtures("patient_redis")
async def test_one_key_cannot_fill_the_queue(backend: Backend, redis_server: RealRedis) -> None:
    """While a key fills the queue, another key still gets a place, and its request is served."""
    redis_server.ask("FLUSHALL")
    backend.default = Fault(delay_ms=60_000)
    settings = configuration(
        backend.url,
        price=0,
        redis={"url": redis_server.url},
        budgets=[{"name": "each", "scope": "key", "window": "1m", "tokens": 60}],
        keys=[{"name": "greedy", "key": "sk-greedy"}, {"name": "good", "key": "sk-good"}],
        queue={"seconds": 60, "requests": 2},
        reservations={"shortest_answer": 16},
    )
    async with serving(settings) as running:
        busy = [asyncio.create_task(chat(running, key)) for key in ("sk-greedy", "sk-good")]
        await backend.wait_until(lambda made: sum(r.path == CHAT for r in made.requests) == 2)
        waiting = [asyncio.create_task(chat(running, "sk-greedy")) for _ in range(2)]
        await queued(running, 2)
        assert await chat(running, "sk-greedy") == 429

        good = asyncio.create_task(chat(running, "sk-good"))
        await queued(running, 3)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=20)

        assert [task.result() for task in done] == [429]
        assert not good.done()
        for task in (*busy, *waiting, good):
            task.cancel()
        await asyncio.gather(*busy, *waiting, good, return_exceptions=True)


async def chat(running: Running, secret: str) -> int:
    message = {"role": "user", "content": "hello"}
    body = {"model": "tiny", "messages": [message], "max_tokens": 50}
    return (await ask(running.http, running.url, CHAT, body, x_api_key=secret)).status


async def queued(running: Running, count: int) -> None:
    sample = 'thinkmeter_budget_decisions_total{budget="each",outcome="queued"}'
    async with asyncio.timeout(20):
        while (await running.metrics()).get(sample, 0) < count:
            await asyncio.sleep(0.01)
