"""A case for every error: the request that provokes it, the routes, and the expected status and code."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import Answer, ask, exchange, post
from tests.serving import Running

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
"""Part of every prompt; it must not appear in an error."""
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
    """What a case works with: a gateway, its backend and the route under test."""

    running: Running
    backend: Backend
    route: str

    def body(self, **fields: Any) -> dict[str, Any]:
        """A valid request body for the route."""
        prompt: dict[str, Any] = {
            COMPLETIONS: {"prompt": SECRET},
            EMBEDDINGS: {"input": SECRET},
        }.get(self.route, {"messages": [{"role": "user", "content": SECRET}]})
        return {"model": "tiny"} | prompt | fields

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
    answer = await stage.send(body, x_api_key="sk-few")  # with one model to use, it would be that
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
    assert answer.headers["allow"] == ("OPTIONS, POST" if stage.route in POSTED else "GET, HEAD, OPTIONS")
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


async def lost_again(stage: Stage) -> Answer:
    stage.backend.script(Fault(reset=True), times=2)
    for _ in range(2):
        await stage.send(stage.body(user="lost again"))
    return await stage.send(stage.body(user="lost again"))


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
    (lost_again, FORWARDING, 503, "request_quarantined"),
    (backend_cut, FORWARDING, 502, "backend_disconnected"),
    (backend_talks_garbage, FORWARDING, 502, "backend_error"),
    (backend_fails, FORWARDING, 502, "backend_error"),
    (backend_sends_html, FORWARDING, 502, "backend_error"),
    (own_fault, DECIDING, 500, "internal_error"),
]
"""Case, routes, expected status and code."""
ELSEWHERE = {
    "invalid_request": "the base class of the request errors, never raised itself",
    "client_closed": "logged but never sent",
    "insufficient_quota": "test_budget",
    "budget_unavailable": "tests/budget/test_when_redis_fails",
    "budget_not_found": "test_budget_admin",
    "shutting_down": "test_drain",
    "unsupported_media_type": "test_browsers",
    "unsupported_encoding": "test_encoded_bodies",
    "invalid_encoding": "test_encoded_bodies",
    "host_not_allowed": "test_browsers",
    **dict.fromkeys(
        (
            "evidence_off",
            "evidence_unavailable",
            "decision_not_found",
            "feedback_contradicts",
            "head_refused",
        ),
        "test_feedback",
    ),
    "too_many_connections": "limits/test_connections",
}
"""Codes that no case provokes, and why not or in which test."""
