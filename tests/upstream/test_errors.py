"""A backend's error becomes the error that the client gets."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidRequest
from gateway.upstream.errors import backend_error, stream_failure


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, b'{"error":{"message":"bad n","param":"n"}}', "invalid_value", "bad n"),
        (422, b"<html>", "invalid_value", "The backend refused the request"),
        (
            400,
            b'{"message":"maximum context length is 9"}',
            "context_length_exceeded",
            "maximum context length",
        ),
        (400, b'{"message":"x is larger than max_model_len"}', "context_length_exceeded", "max_model_len"),
        (
            400,
            b'{"error":{"message":"No room.","code":"context_length_exceeded"}}',
            "context_length_exceeded",
            "No room.",
        ),
        (400, b'{"message":"reasoning_config is not configured"}', "invalid_value", "reasoning_config"),
        (500, b'{"message":"reasoning_config is not configured"}', "invalid_value", "reasoning_config"),
        (401, b'{"message":"secret hint"}', "backend_error", "does not serve"),
        (404, b'{"message":"secret hint"}', "backend_error", "does not serve"),
        (404, b'{"detail":"Not Found"}', "route_not_found", "does not offer this endpoint"),
        (429, b'{"message":"secret hint"}', "rate_limit_exceeded", "overloaded"),
        (500, b'{"message":"secret hint"}', "backend_error", "failed"),
        (503, b'{"message":"secret hint"}', "no_backend", "not available"),
        (502, b'{"message":"secret hint"}', "backend_disconnected", "while it had the request"),
        (504, b"<html>secret hint</html>", "backend_timeout", "in time"),
        (
            500,
            b'{"message":"EngineCore encountered an issue. secret hint"}',
            "backend_disconnected",
            "while it had the request",
        ),
        (302, b"", "backend_error", "failed"),
    ],
)
def test_refusal(status: int, body: bytes, code: str, message: str) -> None:
    """What the backend says about the request is passed on; what it says about itself goes to the log."""
    error = backend_error(status, body, retry_after=7)

    assert error.code == code
    assert message in error.message
    assert "secret hint" not in error.message
    assert error.retry_after == (7 if status == 429 or code == "no_backend" else None)


@pytest.mark.parametrize("status", [400, 401, 404, 405, 418, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"hunter2","type":"hunter2","code":"hunter2","param":"hunter2"}}',
        b'{"error":"hunter2"}',
        b'{"detail":"hunter2"}',
        b"<html>hunter2</html>",
        b'{"error":{"message":"hunter2","type":["hunter2"],"code":{"hunter2":1}}}',
    ],
)
def test_what_the_backend_said_is_in_no_log(status: int, body: bytes) -> None:
    """Backends quote prompts, in any part of any error, so the detail has none of their words."""
    error = backend_error(status, body, retry_after=1)

    assert "hunter2" not in (error.detail or "")
    assert "hunter2" not in error.message or isinstance(error, InvalidRequest)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"error":{"message":"m","type":"InternalServerError","code":500}}', "InternalServerError"),
        (b'{"error":{"message":"m","type":"server_error","code":"timeout"}}', "server_error, timeout"),
    ],
)
def test_known_kinds_of_errors_are_in_the_log(body: bytes, detail: str) -> None:
    """Status, kind and length say what failed without a word of the text."""
    error = backend_error(500, body, retry_after=1)

    assert error.detail == f"status 500, {detail}, a text of {len(body)} bytes"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b'data: {"error":{"message":"bad n","code":400}}\n\ndata: [DONE]\n\n', "invalid_value"),
        (b'data:{"error":{"message":"slow down","code":429}}\r\n\r\n', "rate_limit_exceeded"),
        (b'data: {"error":{"message":"engine died"}}\n\n', "backend_error"),
        (b'data: {"error"\n\n', "backend_error"),
        (b'data: {"error":{"message":"Input validation error","http_status_code":422}}\n\n', "invalid_value"),
        (b'data: {"error":{"message":"EngineCore encountered an issue."}}\n\n', "backend_disconnected"),
    ],
)
def test_stream_that_begins_with_an_error(event: bytes, code: str) -> None:
    """vLLM refuses some requests inside a stream with status 200; the code in the event is the status."""
    assert stream_failure(event).error.code == code
