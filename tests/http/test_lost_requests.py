"""A request that may have killed its replica reaches no other, neither at once nor when it is sent again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.test_failover import LOST, LOST_STREAMS, LOST_WHOLE
from tests.http.wire import NEVER_MS, asked, distinct, post, post_recorded, replicated
from tests.serving import Running, configuration, serving

STREAMS = pytest.mark.parametrize("stream", [False, True])
UNCHECKED = {"interval": 3_600, "timeout": 20}
SETTINGS: dict[str, Any] = {"health": UNCHECKED, "breaker": {"failures": 1_000}}
MIDWAY = {
    "cut after an event": Fault(after=1, end="cut"),
    "reset after an event": Fault(after=1, end="reset"),
}


def reached(backends: list[Backend]) -> list[int]:
    return [len(asked(backend)) for backend in backends]


@STREAMS
async def test_one_replica_is_lost_at_most(subtests: pytest.Subtests, stream: bool) -> None:
    """A lost request goes to one replica only, and a second one of the same body to none."""
    faults = LOST | (LOST_STREAMS | MIDWAY if stream else LOST_WHOLE)
    for name, fault in faults.items():
        with subtests.test(name):
            async with replicated(3, timeouts={"idle": 0.1}, **SETTINGS) as (running, backends):
                for backend in backends:
                    backend.default = fault
                body = distinct("poison", stream=stream)
                _, record = await post_recorded(running, body)
                again = [await post(running, body) for _ in range(3)]

                assert record.error is not None
                assert record.error.code in {"backend_disconnected", "backend_timeout"}
                assert (record.error.spent, record.attempts) == (True, 1)
                assert [(answer.status, answer.code) for answer in again] == [
                    (503, "request_quarantined")
                ] * 3
                assert all(int(answer.headers["retry-after"]) >= 1 for answer in again)
                assert sum(reached(backends)) == 1
                for backend in backends:
                    backend.clear()
                assert (await post(running, distinct("other", stream=stream))).status == 200


@pytest.mark.parametrize("fault", [Fault(delay_ms=NEVER_MS), Fault(after=-1, end="stall")])
async def test_a_request_that_hangs_its_replica_hangs_no_other(fault: Fault) -> None:
    """A stream that does not begin in time is a 504 without a second attempt."""
    async with replicated(3, timeouts={"first_byte": 0.1}, **SETTINGS) as (running, backends):
        for backend in backends:
            backend.default = fault
        body = distinct(stream=True)
        codes = [(await post(running, body)).code for _ in range(2)]

        assert codes == ["backend_timeout", "request_quarantined"]
        assert sum(reached(backends)) == 1


async def test_a_500_risks_one_replica() -> None:
    """A replica may die of what it returned a 500 to, so no other gets that until a check has passed."""
    async with replicated(3, **SETTINGS) as (running, backends):
        for backend in backends:
            backend.default = Fault(status=500)
        body = distinct()
        codes = {(await post(running, body)).code for _ in range(3)}
        before = sorted(reached(backends))
        for _ in range(3):
            await running.gateway.health.check()
            await post(running, body)

        assert codes == {"backend_error"}
        assert before == [0, 0, 3]
        assert sorted(reached(backends)) != [0, 0, 6]


async def test_the_official_clients_retries_reach_no_other_replica() -> None:
    """The official client sends a failed request again by itself, at once."""
    async with replicated(3, **SETTINGS) as (running, backends), running.client() as client:
        for backend in backends:
            backend.default = Fault(reset=True)
        with pytest.raises(openai.InternalServerError):
            await client.with_options(max_retries=1).chat.completions.create(**distinct())

        assert sum(reached(backends)) == 1


async def test_the_tier_makes_no_new_request() -> None:
    """A request is recognised by what the client sent, even if the gateway sends another length."""
    async with replicated(2, **SETTINGS) as (running, backends):
        backends[0].script(Fault(reset=True))
        body = distinct(model="tiny")
        await post(running, body)
        snapshot = running.gateway.snapshot
        running.gateway.pipeline.snapshot = snapshot.keeping(snapshot)
        object.__setattr__(snapshot.settings, "price", 1.0)
        answer = await post(running, body)

        assert answer.code == "request_quarantined"


async def test_a_replica_that_lives_gets_its_request_again() -> None:
    """After a passed health check the same replica may have it once more; after a second loss nobody may."""
    async with replicated(3, **SETTINGS) as (running, backends):
        for backend in backends:
            backend.default = Fault(reset=True)
        body = distinct()
        await post(running, body)
        await running.gateway.health.check()
        codes = [(await post(running, body)).code for _ in range(2)]
        await running.gateway.health.check()

        assert codes == ["backend_disconnected", "request_quarantined"]
        assert (await post(running, body)).code == "request_quarantined"
        assert sorted(reached(backends)) == [0, 0, 2]


async def test_what_was_served_is_forgotten() -> None:
    """If a replica serves the request after all, it may go anywhere again."""
    async with replicated(2, **SETTINGS) as (running, backends):
        backends[0].script(Fault(reset=True))
        body = distinct()
        await post(running, body)
        await running.gateway.health.check()
        statuses = [(await post(running, body)).status for _ in range(3)]

        assert statuses == [200, 200, 200]
        assert reached(backends)[1] > 0


async def test_a_lone_replica_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of a lone replica have no other, so a connection that broke once costs one request."""
    monkeypatch.setattr(
        "gateway.upstream.http1._CLOSING_SECONDS", 0
    )  # no connection is taken for an idle one
    async with replicated(1, **SETTINGS) as (running, (backend,)):
        body = distinct()
        backend.script(Fault(reset=True))
        codes = [(await post(running, body)).status for _ in range(2)]
        backend.script(Fault(reset=True), times=9)
        lost = [(await post(running, body)).status for _ in range(4)]

        assert codes == [502, 200]
        assert lost == [502, 502, 503, 503]
        assert len(asked(backend)) == 4


async def test_victims_of_a_crash_may_go_elsewhere() -> None:
    """If a replica dies under several requests, any may be the cause, so each is served elsewhere once."""
    async with replicated(2, affinity_header="x-session", **SETTINGS) as (running, backends):
        backends[0].default = Fault(first_byte_ms=NEVER_MS)
        backends[1].default = Fault(first_byte_ms=NEVER_MS)
        bodies = [distinct() for _ in range(3)]
        tasks = [asyncio.create_task(post(running, body, headers={"x-session": "s"})) for body in bodies]
        victim = await whichever(backends, lambda backend: len(asked(backend)) == 3)
        survivor = backends[1 - backends.index(victim)]
        survivor.clear()
        await victim.down()
        lost = [answer.status for answer in await asyncio.gather(*tasks)]
        again = [await post(running, body) for body in bodies]

        assert lost == [502] * 3
        assert [answer.status for answer in again] == [200] * 3
        assert len(asked(survivor)) == 3


async def whichever(backends: list[Backend], holds: Callable[[Backend], bool]) -> Backend:
    async with asyncio.timeout(10):
        while True:
            for backend in backends:
                if holds(backend):
                    return backend
            await asyncio.sleep(0.005)


async def test_requests_sent_after_the_engine_died_are_innocent() -> None:
    """vLLM's server outlives its engine and fails everything. What comes after the first failure moves on."""
    async with replicated(2, **SETTINGS) as (running, (a, b)):
        a.default = Fault(status=500, message="EngineCore encountered an issue.")
        statuses = [(await post(running)).status for _ in range(5)]

        assert statuses == [502, 200, 200, 200, 200]
        assert len(asked(b)) == 4


@contextlib.asynccontextmanager
async def closing(pause: float) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that responds to the first request of a connection, and closes it `pause` s after the second.

    Yields its URL, and for each connection the number of its POST requests.
    """
    posts: list[int] = []
    reply = b'{"choices":[]}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(posts)
        posts.append(0)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    posts[number] += 1
                if posts[number] > 1:
                    await asyncio.sleep(pause)
                    break
                lines = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(lines % len(reply) + reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", posts


async def test_a_kept_connection_that_breaks_later_was_not_idle() -> None:
    """A server that had the request for a while did not close the connection for being idle."""
    async with closing(0.15) as (url, posts), serving(configuration(url, **SETTINGS)) as running:
        first, second = await post(running), await post(running)

        assert (first.status, second.status, second.code) == (200, 502, "backend_disconnected")
        assert sum(posts) == 2


async def test_an_idle_connection_costs_no_other_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an idle connection's end looks like is sent once more, to the same replica only."""
    monkeypatch.setattr("gateway.upstream.http1._CLOSING_SECONDS", 60)  # however busy this machine is
    async with replicated(3, **SETTINGS) as (running, backends):
        for _ in backends:
            await post(running)  # leaves a connection to each of them
        for backend in backends:
            backend.default = Fault(reset=True)
        body = distinct("poison")
        codes = [(await post(running, body)).code for _ in range(2)]

        assert codes == ["backend_disconnected", "request_quarantined"]
        assert sorted(reached(backends)) == [1, 1, 3]


async def test_health_checks_leave_no_connection_to_requests() -> None:
    """The first request has a connection of its own, so its loss is not taken for an idle one's end."""
    async with replicated(1, **SETTINGS) as (running, (backend,)):
        backend.script(Fault(reset=True))
        answer, record = await post_recorded(running)

        assert (answer.status, record.attempts, len(asked(backend))) == (502, 1, 1)


async def test_unreadable_responses_are_said_to_have_spent_tokens(running: Running, backend: Backend) -> None:
    """A response of the wrong type or without HTTP's framing cost tokens all the same."""
    for fault in (
        Fault(body="hi", content_type="text/plain"),
        Fault(garbage=100),
        Fault(body="no JSON"),
        Fault(end="cut"),
        Fault(empty=True),
    ):
        backend.script(fault)
        _, record = await post_recorded(running)
        assert record.error is not None
        assert record.error.spent, fault
    backend.script(Fault(status=500))
    _, record = await post_recorded(running)
    assert record.error is not None
    assert not record.error.spent
