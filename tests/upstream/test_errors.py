"""A backend's error becomes the error that the client gets."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidRequest
from gateway.openai_api.event_stream import first_error
from gateway.upstream.errors import backend_error, stream_failure

REFUSALS = [
    (400, b'{"error":{"message":"bad n","param":"n"}}', "invalid_value", "bad n"),
    (400, b"<html>", "invalid_value", "with status 400 and no reason"),
    (422, b"<html>", "invalid_value", "with status 422 and no reason"),
    (400, b"prompt is empty", "invalid_value", "prompt is empty"),
    (
        422,
        b'{"detail":[{"loc":["body","n"],"msg":"must be 1","input":"x"}]}',
        "invalid_value",
        "n: must be 1",
    ),
    (422, b'{"detail":{"error":{"message":"bad n"}}}', "invalid_value", "bad n"),
    (400, b'{"error":{"message":"bad n","code":4.5,"param":7,"type":{}}}', "invalid_value", "bad n"),
    (415, b'{"message":"no audio here"}', "invalid_value", "no audio here"),
    (501, b'{"error":{"message":"no beam search","code":501}}', "invalid_value", "no beam search"),
    (413, b"<html>413</html>", "request_too_large", "a body of this size"),
    (413, b'{"message":"secret hint"}', "request_too_large", "a body of this size"),
    (
        413,
        b'{"message":"maximum context length is 9"}',
        "context_length_exceeded",
        "maximum context length",
    ),
    (431, b"", "headers_too_large", "headers of this size"),
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
    (302, b"", "backend_error", "redirect"),
    (401, b"<html>secret hint</html>", "backend_error", "not the client's key (status 401)"),
    (403, b"", "backend_error", "may not do this (status 403)"),
    (
        404,
        b"<html>secret hint</html>",
        "backend_error",
        "URL in the gateway's configuration may be wrong",
    ),
    (
        404,
        b'{"error":{"message":"secret hint","type":"NotFoundError","code":404}}',
        "backend_error",
        "served_name",
    ),
    (404, b"Not Found", "route_not_found", "does not offer this endpoint"),
    (405, b"<html>secret hint</html>", "backend_error", "no POST at this path"),
    (407, b"", "backend_error", "password"),
    (408, b"", "backend_timeout", "in time"),
    (414, b"secret hint", "backend_error", "(status 414)"),
    (415, b"<html>secret hint</html>", "backend_error", "takes no JSON"),
    (418, b"secret hint", "backend_error", "for the gateway (status 418)"),
    (501, b"<html>secret hint</html>", "backend_error", "does not offer this"),
    (505, b"", "backend_error", "HTTP/1.1"),
    (507, b"secret hint", "backend_error", "failed (status 507)"),
    (520, b"", "backend_disconnected", "while it had the request"),
    (522, b"", "no_backend", "not available"),
    (524, b"", "backend_timeout", "in time"),
    (529, b"", "no_backend", "not available"),
]
"""Status, body, the code that the client gets, and a part of its message."""


@pytest.mark.parametrize(("status", "body", "code", "message"), REFUSALS)
def test_refusal(status: int, body: bytes, code: str, message: str) -> None:
    """What the backend says about the request is passed on; what it says about itself goes to the log."""
    error = backend_error(status, body, retry_after=7)

    assert error.code == code
    assert message in error.message
    assert "secret hint" not in error.message
    assert error.retry_after == (7 if status == 429 or code == "no_backend" else None)


@pytest.mark.parametrize(
    "status", [400, 401, 404, 405, 406, 413, 414, 418, 422, 429, 431, 500, 501, 502, 503, 504, 520]
)
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"hunter2","type":"hunter2","code":"hunter2","param":"hunter2"}}',
        b'{"error":"hunter2"}',
        b'{"detail":"hunter2"}',
        b"<html>hunter2</html>",
        b"hunter2",
        b'{"detail":[{"loc":["body","hunter2"],"msg":"hunter2"},{"loc":7}]}',
        b'{"error":{"message":"hunter2","type":["hunter2"],"code":{"hunter2":1}}}',
    ],
)
def test_what_the_backend_said_is_in_no_log(status: int, body: bytes) -> None:
    """Backends quote prompts, in any part of any error, so the detail has none of their words."""
    error = backend_error(status, body, retry_after=1, server="hunter2/1 nginx hunter2")

    assert error.detail
    assert error.detail.startswith(f"status {status} from nginx, ")
    assert "hunter2" not in error.detail
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


@pytest.mark.parametrize(
    ("server", "body", "detail"),
    [
        ("nginx/1.25.3", b"<html></html>", "status 413 from nginx, an HTML page of 13 bytes"),
        ("istio-envoy", b"", "status 413 from istio, a text of 0 bytes"),
        ("awselb/2.0", b"x", "status 413 from awselb, a text of 1 bytes"),
        ("", b"x", "status 413, a text of 1 bytes"),
        ("my prompt", b"\n <!DOCTYPE html>", "status 413, an HTML page of 17 bytes"),
    ],
)
def test_the_log_says_who_refused(server: str, body: bytes, detail: str) -> None:
    """A proxy before the backend is recognised by its header, of which only known names are logged."""
    assert backend_error(413, body, retry_after=1, server=server).detail == detail


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"bad n","code":400}}\n\n',
        b'data: {"error":{"message":"bad n","code":"400"}}\n\n',
        b'data: {"object":"error","message":"bad n","type":"BadRequestError","code":400}\n\n',
        b'data: {"id":"c","choices":[],"error":{"message":"bad n","code":400}}\n\n',
        b'\xef\xbb\xbfdata: {"error":{"message":"bad n","code":400}}\n\n',
        b'data: {\ndata: "error":{"message":"bad n","code":400}}\n\n',
        b': hm\n\nevent: error\rdata: { "error" : {"message":"bad n","code":400.0}}\r\rdata: [DONE]\r\r',
    ],
)
def test_first_event_of_any_form(event: bytes) -> None:
    """A stream that begins with an error is a refusal, however the error is written."""
    error = first_error(event)
    assert error is not None
    assert (stream_failure(error).error.status, str(stream_failure(error).error)) == (400, "bad n")


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"id":"c","choices":[{"delta":{"content":"an \\"error\\""}}]}\n\n',
        b'data: {"error":null,"choices":[{"delta":{"content":"\\"error\\""}}]}\n\n',
        b'data: {"id":"c","choices":[]}\n\ndata: {"error":{"message":"late"}}\n\n',
        b': "error"\n\ndata: [DONE]\n\n',
    ],
)
def test_first_event_without_an_error(event: bytes) -> None:
    """What only speaks of errors, or has one later, is no refusal."""
    assert first_error(event) is None
