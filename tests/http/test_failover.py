"""Before the first byte another replica is tried, unless it would respond with the same error."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import (
    asked,
    connection,
    distinct,
    post,
    post_recorded,
    replicated,
    slots,
    until,
    wired,
)
from tests.serving import configuration, serving

STREAMS = pytest.mark.parametrize("stream", [False, True])
REFUSED = {"429": Fault(status=429), "503": Fault(status=503)}
"""A replica that does this has not begun to work on the request."""
REFUSED_STREAM = {"error 503 as first event": Fault(after=-1, error="shutting down", error_code=503)}
LOST = {
    "reset before the headers": Fault(reset=True),
    "empty answer": Fault(empty=True),
    "502": Fault(status=502),
    "504": Fault(status=504),
    "html from a proxy's 502": Fault(status=502, body="<html>bad gateway</html>", content_type="text/html"),
    "dead engine": Fault(status=500, message="EngineCore encountered an issue."),
}
"""A replica that does this had the whole request, and may have died of it."""
LOST_WHOLE = {
    "half a body, cut": Fault(end="cut"),
    "half a body, reset": Fault(end="reset"),
}
LOST_STREAMS = {
    "cut before an event": Fault(after=-1, end="cut"),
    "ended before an event": Fault(after=-1, end="clean"),
    "reset before an event": Fault(after=-1, end="reset"),
    "dead engine as first event": Fault(after=-1, error="EngineCore encountered an issue."),
}
FREE = {"breaker": {"failures": 100}, "failover": {"retry_share": 1}}
RESENT = {"breaker": {"failures": 100}, "failover": {"retry_share": 1, "resend_lost": True}}
LASTING = {
    "500": (Fault(status=500), 502, "backend_error"),
    "400": (Fault(status=400, message="n is wrong"), 400, "invalid_value"),
    "422": (Fault(status=422, message="n is wrong"), 400, "invalid_value"),
    "context": (Fault(context_too_long=True), 400, "context_length_exceeded"),
    "401": (Fault(status=401), 502, "backend_error"),
    "403": (Fault(status=403), 502, "backend_error"),
    "404": (Fault(status=404), 502, "backend_error"),
    "no such route": (Fault(status=404, body={"detail": "Not Found"}), 404, "route_not_found"),
    "redirect": (Fault(status=307, headers={"Location": "http://elsewhere"}), 502, "backend_error"),
    "wrong kind": (Fault(body="hi", content_type="text/plain"), 502, "backend_error"),
}


@STREAMS
async def test_another_replica_is_tried(
    subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """If a replica refuses a request, the next one responds, and the client notices nothing.

    A request that was lost goes on only if the operator says so.
    """
    monkeypatch.setattr(
        "gateway.upstream.http1._CLOSING_SECONDS", 0
    )  # no connection is taken for an idle one
    refused = REFUSED | (REFUSED_STREAM if stream else {})
    lost = LOST | (LOST_STREAMS if stream else LOST_WHOLE)
    for faults, settings in ((refused, FREE), (refused | lost, RESENT)):
        await all_are_tried_again(subtests, faults, settings, stream=stream)


async def all_are_tried_again(
    subtests: pytest.Subtests, faults: dict[str, Fault], settings: dict[str, Any], *, stream: bool
) -> None:
    async with replicated(**settings) as (running, (a, b)):
        for number, (name, fault) in enumerate(faults.items(), 1):
            with subtests.test(name, **settings["failover"]):
                a.script(fault)
                answer, record = await post_recorded(running, distinct(stream=stream))

                assert answer.status == 200
                assert answer.body.count(b" t31") == 1
                assert answer.headers["x-thinkmeter-backend"] == "b"
                assert (record.backend, record.attempts, record.error) == ("b", 2, None)
                assert (len(asked(a)), len(asked(b))) == (number, number)
                assert slots(running) == [0, 0]
        assert (await running.metrics())['thinkmeter_upstream_retries_total{model="tiny"}'] == len(faults)


@STREAMS
async def test_a_refused_connection(stream: bool) -> None:
    """A replica that went down since its last health check costs one attempt."""
    async with replicated() as (running, (a, b)):
        await a.down()
        answer = await post(running, distinct(stream=stream))

        assert (answer.status, answer.headers["x-thinkmeter-backend"]) == (200, "b")
        assert (len(asked(a)), len(asked(b))) == (0, 1)


@STREAMS
async def test_lasting_faults_are_not_retried(subtests: pytest.Subtests, stream: bool) -> None:
    """If another replica would respond the same, the request ends after one attempt."""
    async with replicated(breaker={"failures": 100}) as (running, (a, b)):
        for number, (name, (fault, status, code)) in enumerate(LASTING.items(), 1):
            with subtests.test(name):
                a.script(fault)
                b.script(fault)
                answer, record = await post_recorded(running, distinct(stream=stream))

                assert (answer.status, answer.code) == (status, code)
                assert answer.headers["content-type"] == "application/json"
                assert {"message", "type", "param", "code"} == set(answer.json["error"])
                assert len(asked(a)) + len(asked(b)) == number
                assert record.error is not None
                assert (record.status, record.error.code) == (status, code)
                assert slots(running) == [0, 0]
                a.clear()
                b.clear()


@STREAMS
async def test_nothing_of_the_inside_leaves(
    backend: Backend, subtests: pytest.Subtests, stream: bool
) -> None:
    """No error contains the backend's address, port, key, or the message of its proxy."""
    secret = "sk-of-the-backend"
    replicas = [{"name": "a", "url": backend.url, "api_key": secret}]
    echo = f"cannot reach {backend.url} with Bearer {secret}"
    faults = {status: Fault(status=status, message=echo) for status in (401, 403, 404, 500, 502, 503, 504)}
    settings = configuration(backend.url, model={"replicas": replicas}, breaker={"failures": 100})
    async with serving(settings) as running:
        for status, fault in faults.items():
            with subtests.test(status=status):
                backend.script(fault, times=3)
                answer = await post(running, distinct(stream=stream))

                assert answer.status in (502, 503, 504)
                shown = answer.body.decode() + str(dict(answer.headers))
                assert not re.search(rf"{secret}|127\.0\.0\.1|{backend.port}|cannot reach", shown)
                backend.clear()
        await backend.down()
        gone = await post(running, distinct(stream=stream))
        assert (gone.status, gone.code) == (503, "no_backend")
        assert str(backend.port) not in gone.body.decode()


@STREAMS
async def test_all_replicas_are_overloaded(stream: bool) -> None:
    """If two replicas respond 429, the client gets 429 with the backend's own Retry-After."""
    async with replicated(3) as (running, backends):
        for backend in backends:
            backend.script(Fault(status=429, headers={"Retry-After": "17"}))
        answer = await post(running, distinct(stream=stream))

        assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "17"
        assert [len(asked(backend)) for backend in backends] == [1, 1, 0]
        assert slots(running) == [0, 0, 0]


@STREAMS
async def test_all_replicas_are_unavailable(stream: bool) -> None:
    """If no replica can respond, the client gets 503 after one attempt at each."""
    async with replicated(3) as (running, backends):
        for backend in backends:
            backend.script(Fault(status=503, headers={"Retry-After": "9"}))
        answer = await post(running, distinct(stream=stream))

        assert (answer.status, answer.code) == (503, "no_backend")
        assert answer.headers["retry-after"] == "9"
        assert [len(asked(backend)) for backend in backends] == [1, 1, 1]


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (5, 3)])
async def test_attempts_are_bounded(retries: int, attempts: int) -> None:
    """There are at most 1 + `retries` attempts, and no second one at a replica that refused."""
    async with replicated(3, retries=retries) as (running, backends):
        for backend in backends:
            backend.default = Fault(status=503)
        answer = await post(running)

        assert answer.status == 503
        assert sum(len(asked(backend)) for backend in backends) == attempts


@STREAMS
async def test_nobody_is_there(stream: bool) -> None:
    """If every replica is down from the start, the response is an immediate 503 in OpenAI's shape."""
    async with Backend("tiny") as backend:
        url = backend.url
    async with serving(configuration(url)) as running:
        answer = await post(running, distinct(stream=stream))

    assert (answer.status, answer.code) == (503, "no_backend")
    assert int(answer.headers["retry-after"]) >= 1


@STREAMS
async def test_a_stale_connection(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    """If a server closes an idle connection just as it is used, the request is sent again on a new one."""
    monkeypatch.setattr("gateway.upstream.http1._CLOSING_SECONDS", 60)  # however busy this machine is
    reply = b'data: {"choices":[]}\n\ndata: [DONE]\n\n' if stream else b'{"choices":[]}'
    kind = b"text/event-stream" if stream else b"application/json"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one request, but close at the second, as if the keep-alive time had just expired."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            for number in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                if length := re.search(rb"(?i)content-length: (\d+)", head):
                    await reader.readexactly(int(length[1]))
                if number == 0:
                    lines = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
                    writer.write(lines % (kind, len(reply)) + reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, serving(configuration(url, health={"interval": 3_600})) as running:
        for attempts in (1, 2, 2):
            answer, record = await post_recorded(running, distinct(stream=stream))

            assert (answer.status, answer.body) == (200, reply)
            assert record.attempts == attempts


async def test_the_least_busy_replica_is_asked() -> None:
    """Requests go to the replica with the fewest in flight, so twelve long ones spread evenly over three."""
    async with replicated(3) as (running, backends), asyncio.TaskGroup() as group:
        for backend in backends:
            backend.default = Fault(after=1, end="stall")
        tasks = [group.create_task(post(running, distinct(stream=True))) for _ in range(12)]
        await until(lambda: sum(len(asked(backend)) for backend in backends) == 12)

        assert [len(asked(backend)) for backend in backends] == [4, 4, 4]
        assert slots(running) == [4, 4, 4]
        for task in tasks:
            task.cancel()


async def test_a_busy_replica_is_spared() -> None:
    """While one replica is busy with a long response, short requests go to the other."""
    async with replicated() as (running, (a, b)), connection(running) as (_, writer):
        a.script(Fault(after=1, end="stall"))
        writer.write(wired(distinct(stream=True)))
        await a.wait_until(lambda backend: asked(backend))
        for _ in range(5):
            assert (await post(running)).status == 200

        assert (len(asked(a)), len(asked(b))) == (1, 5)


async def test_equals_take_turns() -> None:
    """Equally idle replicas take turns."""
    async with replicated(3) as (running, backends):
        for _ in range(9):
            await post(running)

        assert [len(asked(backend)) for backend in backends] == [3, 3, 3]


async def test_the_second_attempt_is_the_same_request() -> None:
    """The next replica gets the same body and the same request id."""
    async with replicated() as (running, (a, b)):
        a.script(Fault(status=503))
        body: dict[str, Any] = distinct(model="tiny:short", stream=True, user="x")
        await post(running, body, headers={"x-request-id": "mine"})

        (first,), (second,) = asked(a), asked(b)
        assert first.body == second.body
        assert [r.headers["x-request-id"] for r in (first, second)] == ["mine", "mine"]
