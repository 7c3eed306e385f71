"""Every error on every route has OpenAI's shape, hides internals, and leaves no request in flight."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gateway.errors import all_errors
from gateway.http.exchange import Exchange
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.error_cases import (
    CASES,
    ELSEWHERE,
    SECRET,
    SETTINGS,
    Case,
    Stage,
    header_flood,
    no_http,
    own_fault,
)
from tests.http.raw_http import Answer, assert_error
from tests.http.wire import NEVER_MS, ask, asked, connection, post, until, wired
from tests.serving import Running, configuration, serving


def test_every_code_is_provoked() -> None:
    """The table has a case for every error class."""
    assert {error.code for error in all_errors()} - set(ELSEWHERE) == {code for *_, code in CASES}


@pytest.mark.parametrize(
    ("case", "routes", "status", "code"), [pytest.param(*entry, id=entry[0].__name__) for entry in CASES]
)
async def test_error(
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
    subtests: pytest.Subtests,
    case: Case,
    routes: tuple[str, ...],
    status: int,
    code: str,
) -> None:
    """Status, code and shape are right, only the log has the cause, and the request leaves nothing behind."""
    async with serving(configuration(backend.url) | SETTINGS) as running:
        predictor = running.gateway.snapshot.router.predictor
        for route in routes:
            with subtests.test(route or "/"), without_collector():
                running.records.clear()
                caplog.clear()
                with caplog.at_level(logging.INFO):
                    answer = await case(Stage(running, backend, route))
                assert_error(answer, status, code)
                if case in {header_flood, no_http}:  # refused before there is a request to record
                    assert not running.records
                else:
                    assert_recorded(running, answer, status, code)
                if case is own_fault:
                    assert "ZeroDivisionError" in caplog.text
                    assert answer.headers["x-request-id"] in caplog.text
                await assert_idle(running)
                if case is not own_fault:  # pytest keeps the traceback in the log
                    await until(lambda: not exchanges_in_memory())
            running.gateway.snapshot.router.predictor = predictor
            backend.clear()
            await backend.down()
            await backend.up()
            await running.gateway.health.check()


def assert_recorded(running: Running, answer: Answer, status: int, code: str) -> None:
    """The response and the record agree, and the response does not repeat the prompt."""
    for secret in (SECRET, "10.0.0.1"):
        assert secret not in answer.body.decode()
    record = running.records[-1]
    assert record.status == status
    assert record.error
    assert record.error.code == code
    assert answer.headers["x-request-id"] == record.request_id


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Without Python's cyclic collector: what a cycle holds stays in memory."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def exchanges_in_memory() -> list[Exchange]:
    """What is left of requests that came without the collector; an exchange reaches the whole request."""
    return [found for found in gc.get_objects() if isinstance(found, Exchange)]


async def assert_idle(running: Running) -> None:
    """No request is in flight, and the gateway still responds."""
    assert (await running.metrics())["thinkmeter_requests_in_flight"] == 1  # the scrape itself
    assert [replica.in_flight for _, replica in running.gateway.snapshot.backends()] == [0]
    assert (await running.chat()).status == 401


async def test_own_fault_leaves_no_request_in_memory(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An internal error, whose traceback is logged, is freed as well."""
    monkeypatch.setattr(logging.getLogger("thinkmeter"), "disabled", True)
    running.gateway.snapshot.router.predictor = None  # type: ignore[assignment]
    with without_collector():
        assert (await running.chat()).status == 500
        await until(lambda: not exchanges_in_memory())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route"])
async def test_large_request_that_fails_in_its_thread_is_not_kept(running: Running, path: str) -> None:
    """A large body is parsed in a thread, and its error holds no request in memory either."""
    with without_collector():
        answer = await post(running, b'{"model":"tiny","messages":[' + b" " * 1_000_000, path=path)
        assert_error(answer, 400, "invalid_json")
        await until(lambda: not exchanges_in_memory())


async def test_client_that_leaves_is_not_kept_in_memory(running: Running, backend: Backend) -> None:
    """A request is freed when its client disconnects, and when its stream breaks off."""
    with without_collector():
        backend.script(Fault(delay_ms=NEVER_MS))
        async with connection(running) as (_, writer):
            writer.write(wired(ask()))
            await until(lambda: asked(backend))
        backend.script(Fault(after=1, end="cut"))
        await post(running, ask(stream=True))

        assert [r.error and r.error.code for r in await running.recorded(2)] == [
            "client_closed",
            "backend_disconnected",
        ]
        await until(lambda: not exchanges_in_memory())


async def test_own_fault_leaves_the_gateway_serving(running: Running) -> None:
    """After an internal error the next request is served, on the same connection."""
    predictor = running.gateway.snapshot.router.predictor
    running.gateway.snapshot.router.predictor = None  # type: ignore[assignment]
    assert (await running.chat()).status == 500
    assert (await running.chat(stream=True)).status == 500

    running.gateway.snapshot.router.predictor = predictor

    assert (await running.chat()).status == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "none"}, openai.NotFoundError),
        ({"max_tokens": -1}, openai.BadRequestError),
        ({"extra_body": {"metadata": {"fault": {"status": 500}}}}, openai.InternalServerError),
        ({"extra_body": {"metadata": {"fault": {"status": 429}}}}, openai.RateLimitError),
        ({"extra_body": {"metadata": {"fault": {"context_too_long": True}}}}, openai.BadRequestError),
    ],
    ids=["model", "value", "backend", "overload", "context"],
)
async def test_official_client_understands(
    running: Running, fields: dict[str, Any], expected: type[openai.APIStatusError]
) -> None:
    """The official client raises its exception for the status, with the gateway's code and message."""
    call = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]} | fields
    async with running.client() as client:
        with pytest.raises(expected) as raised:
            await client.chat.completions.create(**call)

    record = running.records[-1]
    assert record.error is not None
    assert raised.value.code == record.error.code
    assert record.error.message in raised.value.message
    assert raised.value.request_id == record.request_id
