"""A backend's error becomes the error that the client gets."""

from __future__ import annotations

import pytest

from gateway.upstream.errors import backend_error, stream_error


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
        (400, b'{"message":"reasoning_config is not configured"}', "backend_error", "--reasoning-parser"),
        (401, b'{"message":"secret hint"}', "backend_error", "does not serve"),
        (404, b'{"message":"secret hint"}', "backend_error", "does not serve"),
        (404, b'{"detail":"Not Found"}', "route_not_found", "does not offer this endpoint"),
        (429, b'{"message":"secret hint"}', "rate_limit_exceeded", "overloaded"),
        (500, b'{"message":"secret hint"}', "backend_error", "failed"),
        (503, b'{"message":"secret hint"}', "no_backend", "not available"),
        (500, b'{"message":"EngineCore encountered an issue. secret hint"}', "no_backend", "not available"),
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


def test_what_the_backend_said_is_in_the_log() -> None:
    """A body without a readable message is quoted in the detail, but only its beginning."""
    error = backend_error(500, b"x" * 9_999, retry_after=1)

    assert error.detail
    assert "status 500" in error.detail
    assert len(error.detail) < 300


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (b'data: {"error":{"message":"bad n","code":400}}\n\ndata: [DONE]\n\n', "invalid_value"),
        (b'data:{"error":{"message":"slow down","code":429}}\r\n\r\n', "rate_limit_exceeded"),
        (b'data: {"error":{"message":"engine died"}}\n\n', "backend_error"),
        (b'data: {"error"\n\n', "backend_error"),
    ],
)
def test_stream_that_begins_with_an_error(event: bytes, code: str) -> None:
    """vLLM refuses some requests inside a stream with status 200; the code in the event is the status."""
    assert stream_error(event).code == code
