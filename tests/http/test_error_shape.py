"""Every error on every route has OpenAI's shape, tells nothing of the inside, and leaves nothing behind."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import openai
import pytest

from gateway.errors import all_errors
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import Answer, ask, assert_error, exchange, post
from tests.serving import Running, configuration, serving

CHAT, COMPLETIONS, EMBEDDINGS, ROUTE = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/route",
)
DECIDING = (CHAT, COMPLETIONS, ROUTE)
FORWARDING = (CHAT, COMPLETIONS, EMBEDDINGS)
POSTED = (CHAT, COMPLETIONS, EMBEDDINGS, ROUTE)
SECRET = "m4rker"
SETTINGS: dict[str, Any] = {
    "limits": {"body_bytes": 100_000, "body_seconds": 0.2, "header_count": 20},
    "timeouts": {"total": 0.2, "first_byte": 0.2},
    "retries": 0,
    "keys": [
        {"name": "all", "key": "sk-all"},
        {"name": "few", "key": "sk-few", "models": []},
    ],
}


@dataclass
class Stage:
    """What a case has to work with."""

    running: Running
    backend: Backend
    route: str

    def body(self, **fields: Any) -> dict[str, Any]:
        """A good request for the route."""
        asked: dict[str, Any] = {
            COMPLETIONS: {"prompt": SECRET},
            EMBEDDINGS: {"input": SECRET},
        }.get(self.route, {"messages": [{"role": "user", "content": SECRET}]})
        return {"model": "tiny"} | asked | fields

    async def send(self, body: Any, *, method: str = "POST", **headers: str) -> Answer:
        named = {"x_api_key": "sk-all"} | headers
        return await ask(self.running.http, self.running.url, self.route, body, method=method, **named)


Case = Callable[[Stage], Awaitable[Answer]]


async def truncated_json(stage: Stage) -> Answer:
    return await stage.send(json.dumps(stage.body()).encode()[:-3])


async def not_an_object(stage: Stage) -> Answer:
    return await stage.send([stage.body()])


async def wrong_type(stage: Stage) -> Answer:
    answer = await stage.send(stage.body(model=7))
    assert answer.json["error"]["param"] == "model"
    return answer


async def missing_field(stage: Stage) -> Answer:
    body = stage.body()
    del body["model"]
    answer = await stage.send(body)
    assert answer.json["error"]["param"] == "model"
    return answer


async def unknown_model(stage: Stage) -> Answer:
    answer = await stage.send(stage.body(model="nothing-of-the-kind"))
    assert answer.json["error"]["param"] == "model"
    return answer


async def unknown_tier(stage: Stage) -> Answer:
    answer = await stage.send(stage.body(model="tiny:huge"))
    assert answer.json["error"]["param"] == "model"
    return answer


async def wrong_key(stage: Stage) -> Answer:
    method = "POST" if stage.route in POSTED else "GET"
    return await stage.send(stage.body(), method=method, x_api_key="sk-wrong")


async def forbidden_model(stage: Stage) -> Answer:
    return await stage.send(stage.body(), x_api_key="sk-few")


async def wrong_method(stage: Stage) -> Answer:
    answer = await stage.send(None, method="DELETE")
    assert answer.headers["allow"] == ("POST" if stage.route in POSTED else "GET")
    return answer


async def unknown_path(stage: Stage) -> Answer:
    stage.route += "/nothing"
    return await stage.send(None)


async def large_body(stage: Stage) -> Answer:
    return await stage.send(stage.body(user="x" * 100_000))


async def large_chunked_body(stage: Stage) -> Answer:
    head = (
        f"POST {stage.route} HTTP/1.1\r\nhost: x\r\nx-api-key: sk-all\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return await exchange(stage.running.url, head.encode(), *[b"8000\r\n" + b" " * 32_768 + b"\r\n"] * 4)


async def slow_body(stage: Stage) -> Answer:
    return await exchange(stage.running.url, post(stage.route, b"{}", "x-api-key: sk-all")[:-1])


async def header_flood(stage: Stage) -> Answer:
    return await exchange(stage.running.url, post(stage.route, b"{}", *(f"x-{i}: 1" for i in range(30))))


async def no_http(stage: Stage) -> Answer:
    return await exchange(stage.running.url, f"POST {stage.route} HTTP/1.1\r\nno header\r\n\r\n".encode())


async def long_context(stage: Stage) -> Answer:
    stage.backend.script(Fault(context_too_long=True))
    return await stage.send(stage.body())


async def refused_by_backend(stage: Stage) -> Answer:
    stage.backend.script(Fault(status=400, message="temperature must be positive"))
    answer = await stage.send(stage.body())
    assert "temperature must be positive" in answer.json["error"]["message"]
    return answer


async def backend_down(stage: Stage) -> Answer:
    await stage.backend.down()
    answer = await stage.send(stage.body())
    assert int(answer.headers["retry-after"]) >= 1
    return answer


async def every_backend_known_to_be_down(stage: Stage) -> Answer:
    await stage.backend.down()
    for _ in range(2):
        await stage.running.gateway.health.check()
    answer = await stage.send(stage.body())
    assert int(answer.headers["retry-after"]) >= 1
    return answer


async def backend_unavailable(stage: Stage) -> Answer:
    stage.backend.script(Fault(status=503, message="at http://10.0.0.1", headers={"Retry-After": "7"}))
    answer = await stage.send(stage.body())
    assert answer.headers["retry-after"] == "7"
    return answer


async def backend_overloaded(stage: Stage) -> Answer:
    stage.backend.script(Fault(status=429, headers={"Retry-After": "7"}))
    answer = await stage.send(stage.body())
    assert answer.headers["retry-after"] == "7"
    return answer


async def backend_silent(stage: Stage) -> Answer:
    stage.backend.script(Fault(delay_ms=60_000))
    return await stage.send(stage.body())


async def backend_silent_in_a_stream(stage: Stage) -> Answer:
    stage.backend.script(Fault(first_byte_ms=60_000))
    return await stage.send(stage.body(stream=True))


async def backend_closes(stage: Stage) -> Answer:
    stage.backend.script(Fault(reset=True))
    return await stage.send(stage.body())


async def backend_cut(stage: Stage) -> Answer:
    stage.backend.script(Fault(end="cut"))
    return await stage.send(stage.body())


async def backend_talks_garbage(stage: Stage) -> Answer:
    stage.backend.script(Fault(garbage=100))
    return await stage.send(stage.body())


async def backend_fails(stage: Stage) -> Answer:
    stage.backend.script(Fault(status=500, message="Traceback: /srv/vllm/engine.py"))
    return await stage.send(stage.body())


async def backend_sends_html(stage: Stage) -> Answer:
    stage.backend.script(Fault(content_type="text/html", body="<html>http://10.0.0.1</html>"))
    return await stage.send(stage.body())


async def own_fault(stage: Stage) -> Answer:
    class Broken:
        version = "broken"

        def predict(self, *_: object) -> NoReturn:
            raise ZeroDivisionError(f"secret {SECRET} of the inside")

    stage.running.gateway.snapshot.router.predictor = Broken()
    return await stage.send(stage.body())


CASES: list[tuple[Case, tuple[str, ...], int, str]] = [
    (truncated_json, POSTED, 400, "invalid_json"),
    (not_an_object, POSTED, 400, "invalid_value"),
    (wrong_type, POSTED, 400, "invalid_value"),
    (missing_field, POSTED, 400, "invalid_value"),
    (unknown_model, POSTED, 404, "model_not_found"),
    (unknown_tier, POSTED, 404, "model_not_found"),
    (wrong_key, (*POSTED, "/v1/models", "/v1/models/tiny"), 401, "invalid_api_key"),
    (forbidden_model, POSTED, 403, "model_not_allowed"),
    (wrong_method, (*POSTED, "/v1/models", "/healthz", "/metrics"), 405, "method_not_allowed"),
    (unknown_path, (*POSTED, "", "/v2"), 404, "route_not_found"),
    (large_body, POSTED, 413, "request_too_large"),
    (large_chunked_body, POSTED, 413, "request_too_large"),
    (slow_body, POSTED, 408, "request_timeout"),
    (header_flood, (*POSTED, "/v1/models"), 431, "headers_too_large"),
    (no_http, (*POSTED, "/v1/models"), 400, "invalid_value"),
    (long_context, (CHAT, COMPLETIONS), 400, "context_length_exceeded"),
    (refused_by_backend, FORWARDING, 400, "invalid_value"),
    (backend_down, FORWARDING, 503, "no_backend"),
    (every_backend_known_to_be_down, FORWARDING, 503, "no_backend"),
    (backend_unavailable, FORWARDING, 503, "no_backend"),
    (backend_overloaded, FORWARDING, 429, "rate_limit_exceeded"),
    (backend_silent, FORWARDING, 504, "backend_timeout"),
    (backend_silent_in_a_stream, (CHAT, COMPLETIONS), 504, "backend_timeout"),
    (backend_closes, FORWARDING, 502, "backend_disconnected"),
    (backend_cut, FORWARDING, 502, "backend_disconnected"),
    (backend_talks_garbage, FORWARDING, 502, "backend_error"),
    (backend_fails, FORWARDING, 502, "backend_error"),
    (backend_sends_html, FORWARDING, 502, "backend_error"),
    (own_fault, DECIDING, 500, "internal_error"),
]
ELSEWHERE = {
    "invalid_request": "only the root of the request errors: never raised itself",
    "client_closed": "never sent",
    "insufficient_quota": "test_budget",
    "budget_unavailable": "tests/budget/test_when_redis_fails",
    "budget_not_found": "test_budget_admin",
    "shutting_down": "test_drain",
}


def test_every_code_is_provoked() -> None:
    """No error class escapes this table."""
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
    """Status, code and shape are as documented; the cause is in the log only; the slot is free afterwards."""
    async with serving(configuration(backend.url) | SETTINGS) as running:
        predictor = running.gateway.snapshot.router.predictor
        for route in routes:
            with subtests.test(route or "/"):
                running.records.clear()
                caplog.clear()
                with caplog.at_level(logging.INFO):
                    answer = await case(Stage(running, backend, route))
                assert_error(answer, status, code)
                if case in {header_flood, no_http}:  # refused before it was a request
                    assert not running.records
                else:
                    assert_recorded(running, answer, status, code)
                if case is own_fault:
                    assert "ZeroDivisionError" in caplog.text
                    assert answer.headers["x-request-id"] in caplog.text
                await assert_idle(running)
            running.gateway.snapshot.router.predictor = predictor
            backend.clear()
            await backend.down()
            await backend.up()
            await running.gateway.health.check()


def assert_recorded(running: Running, answer: Answer, status: int, code: str) -> None:
    """The client, the record and the log agree; what was asked is not repeated."""
    for secret in (SECRET, "10.0.0.1"):
        assert secret not in answer.body.decode()
    record = running.records[-1]
    assert record.status == status
    assert record.error
    assert record.error.code == code
    assert answer.headers["x-request-id"] == record.request_id


async def assert_idle(running: Running) -> None:
    """No slot is taken, and the next request is served."""
    assert (await running.metrics())["thinkmeter_requests_in_flight"] == 1  # the scrape itself
    assert [replica.in_flight for _, replica in running.gateway.snapshot.backends()] == [0]
    assert (await running.chat()).status == 401


async def test_own_fault_leaves_the_gateway_serving(running: Running) -> None:
    """After a fault of ours on one request the next one is served, on the same connection."""
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
    """The official client raises its own exception for the status, with our code and message inside."""
    call = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]} | fields
    async with running.client() as client:
        with pytest.raises(expected) as raised:
            await client.chat.completions.create(**call)

    record = running.records[-1]
    assert record.error is not None
    assert raised.value.code == record.error.code
    assert record.error.message in raised.value.message
    assert raised.value.request_id == record.request_id
