"""Turns an error of a backend into the error that the client gets. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import (
    BackendDisconnected,
    BackendError,
    BackendOverloaded,
    BackendTimeout,
    ContextLengthExceeded,
    GatewayError,
    HeadersTooLarge,
    InvalidRequest,
    NoBackend,
    RequestTooLarge,
    RouteNotFound,
)
from gateway.openai_api.errors import ErrorObject, read_error
from gateway.openai_api.refusals import Refusal, read_refusal


class Failure(NamedTuple):
    """An error that a backend reported."""

    error: GatewayError
    """For the client."""
    refusal: Refusal | None
    """What the backend refuses of the request; None if it refuses nothing."""


_KINDS = frozenset(
    "BadRequestError InternalServerError NotFoundError NotImplementedError ServiceUnavailableError "
    "UnprocessableEntityError TooManyRequestsError RateLimitError AuthenticationError PermissionDeniedError "
    "invalid_request_error server_error internal_server_error overloaded_error rate_limit_error "
    "rate_limit_exceeded context_length_exceeded insufficient_quota model_not_found invalid_api_key "
    "not_found_error authentication_error permission_error timeout".split()
)
"""Types and codes of errors of vLLM and OpenAI. Any other word may be one of a prompt."""

_SERVERS = frozenset(
    "apache awselb caddy cloudflare cloudfront envoy gunicorn gws haproxy hypercorn istio kestrel kong "
    "lighttpd microsoft nginx openresty squid tengine traefik uvicorn varnish werkzeug".split()
)
"""Names in the header `Server`. Any other word may be one of a prompt."""
_LOST = frozenset((502, 520))
"""A proxy had the request when its connection to the engine broke. 520 to 530 are Cloudflare's."""
_LATE = frozenset((408, 504, 524))
_AWAY = frozenset((503, 521, 522, 523, 529, 530))
_ABOUT_THE_REQUEST = frozenset((400, 406, 409, 413, 415, 422, 501))
"""Their text, if there is one, is about what the client sent. vLLM uses 501 for what a model cannot do."""
_MISCONFIGURED = {
    401: "it does not accept the gateway's `api_key` for it, which is not the client's key",
    402: "it wants to be paid",
    403: "the gateway's `api_key` for it may not do this",
    404: "its URL in the gateway's configuration may be wrong",
    405: "it takes no POST at this path, so its URL in the gateway's configuration may be wrong",
    407: "the proxy before it wants a password",
    414: "the path of its URL in the gateway's configuration is too long for it",
    415: "it takes no JSON, so its URL in the gateway's configuration may be wrong",
    421: "it is not called by the name in its URL",
    426: "it wants another protocol",
    501: "it does not offer this",
    505: "it does not speak HTTP/1.1",
}
"""Refusals that the client cannot correct."""


def stream_failure(block: bytes) -> Failure:
    """The failure of a stream whose first event is an error, although its status is 200.

    vLLM refuses some requests this way. The code in the event takes the place of the status:
    `data: {"error":{"message":"n must be at least 1","code":400}}`.
    """
    event = block.partition(b"\n")[0].removeprefix(b"data:")
    return failure_of(_status(event), event, retry_after=1)


def _status(event: bytes) -> int:
    """The status in an error event: vLLM's `code`, or TGI's `http_status_code`."""
    error = read_error(event)
    return error.status or error.http_status_code or 500


def failure_of(status: int, body: bytes, *, retry_after: float, server: str = "") -> Failure:
    """What a backend's status and error body mean.

    retry_after: in seconds. server: the header of that name.
    """
    error = backend_error(status, body, retry_after=retry_after, server=server)
    return Failure(error, read_refusal(status, body))


def backend_error(status: int, body: bytes, *, retry_after: float, server: str = "") -> GatewayError:
    """The error for a backend's status and error body; `retry_after` is in seconds.

    What the backend says about the request is passed on to the client. Nothing of its text goes to a log,
    because backends quote prompts, so `detail` only has the status, the kind of error and the length.

    server: the response's header `Server`, which tells a proxy's refusal from that of the backend.
    """
    error = read_error(body)
    message, detail = error.message, _detail(status, error, body, server)
    if status == 429:
        return BackendOverloaded(
            "The model is overloaded; try again later", retry_after=retry_after, detail=detail
        )
    # once vLLM's engine process has died, its HTTP server returns 500 to every request
    engine_died = "EngineCore encountered" in message or "EngineDead" in message
    if engine_died or status in _LOST:
        return BackendDisconnected("The backend failed while it had the request", detail=detail)
    if status in _LATE:
        return BackendTimeout("The backend did not respond in time", detail=detail)
    if status in _AWAY:
        return NoBackend("The backend is not available right now", retry_after=retry_after, detail=detail)
    if "reasoning_config is not configured" in message:  # some versions say so with status 500
        return InvalidRequest(message, param=error.param or "thinking_token_budget", detail=detail)
    if status in _ABOUT_THE_REQUEST and message:
        too_long = error.code == "context_length_exceeded"
        if too_long or "maximum context length" in message or "max_model_len" in message:
            return ContextLengthExceeded(message, param=error.param, detail=detail)
        if status != 413:
            return InvalidRequest(message, param=error.param, detail=detail)
    if status == 404 and message == "Not Found":  # {"detail":"Not Found"}: the server has no such route
        return RouteNotFound("The model does not offer this endpoint", detail=detail)
    return _without_reason(status, error, detail)


def _without_reason(status: int, error: ErrorObject, detail: str) -> GatewayError:
    """The error for a status whose text, often a proxy's page, says nothing that the client could use."""
    if status == 413:
        return RequestTooLarge(
            "The backend, or a proxy before it, refuses a body of this size", detail=detail
        )
    if status in (431, 494):
        return HeadersTooLarge(
            "The backend, or a proxy before it, refuses headers of this size", detail=detail
        )
    if status in (400, 406, 422):
        text = f"The backend, or a proxy before it, refused the request with status {status} and no reason"
        return InvalidRequest(text, detail=detail)
    unknown_model = status == 404 and (
        "NotFoundError" in (error.type, error.code) or error.code == "model_not_found"
    )
    reason = (
        "the gateway's `served_name` is none of its models" if unknown_model else _MISCONFIGURED.get(status)
    )
    if reason is None and 300 <= status < 400:
        reason = "it answers with a redirect, so its URL in the gateway's configuration is wrong"
    if reason is not None:
        text = f"The backend does not serve this request for the gateway: {reason} (status {status})"
        return BackendError(text, detail=detail)
    if status < 500:
        text = f"The backend does not serve this request for the gateway (status {status})"
        return BackendError(text, detail=detail)
    failure = BackendError(f"The backend failed (status {status})", detail=detail)
    failure.crashed = status == 500
    return failure


def _detail(status: int, error: ErrorObject, body: bytes, server: str) -> str:
    words = server.lower().replace("/", " ").replace("-", " ").split()
    proxy = next((f" from {word}" for word in words if word in _SERVERS), "")
    kinds = [word for word in (error.type, error.code) if isinstance(word, str) and word in _KINDS]
    text = "an HTML page" if body.lstrip()[:1] == b"<" else "a text"
    return ", ".join([f"status {status}{proxy}", *kinds, f"{text} of {len(body)} bytes"])
