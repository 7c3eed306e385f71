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
    InvalidRequest,
    NoBackend,
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


def failure_of(status: int, body: bytes, *, retry_after: float) -> Failure:
    """What a backend's status and error body mean; `retry_after` is in seconds."""
    return Failure(backend_error(status, body, retry_after=retry_after), read_refusal(status, body))


def backend_error(status: int, body: bytes, *, retry_after: float) -> GatewayError:
    """The error for a backend's status and error body; `retry_after` is in seconds.

    What the backend says about the request is passed on to the client. Nothing of its text goes to a log,
    because backends quote prompts, so `detail` only has the status, the kind of error and the length.
    """
    error = read_error(body)
    message, detail = error.message, _detail(status, error, body)
    if status == 429:
        return BackendOverloaded(
            "The model is overloaded; try again later", retry_after=retry_after, detail=detail
        )
    # once vLLM's engine process has died, its HTTP server returns 500 to every request
    engine_died = "EngineCore encountered" in message or "EngineDead" in message
    if engine_died or status == 502:  # or a proxy had the request when its connection to the engine broke
        return BackendDisconnected("The backend failed while it had the request", detail=detail)
    if status == 504:
        return BackendTimeout("The backend did not respond in time", detail=detail)
    if status == 503:
        return NoBackend("The backend is not available right now", retry_after=retry_after, detail=detail)
    if "reasoning_config is not configured" in message:  # some versions say so with status 500
        return InvalidRequest(message, param=error.param or "thinking_token_budget")
    if status in (400, 413, 415, 422):
        too_long = error.code == "context_length_exceeded"
        if too_long or "maximum context length" in message or "max_model_len" in message:
            return ContextLengthExceeded(message, param=error.param)
        return InvalidRequest(message or "The backend refused the request", param=error.param)
    if status == 404 and message == "Not Found":  # {"detail":"Not Found"}: the server has no such route
        return RouteNotFound("The model does not offer this endpoint", detail=detail)
    if status in (401, 403, 404, 405):
        return BackendError("The backend does not serve this request for the gateway", detail=detail)
    failure = BackendError("The backend failed", detail=detail)
    failure.crashed = status == 500
    return failure


def _detail(status: int, error: ErrorObject, body: bytes) -> str:
    kinds = [word for word in (error.type, error.code) if isinstance(word, str) and word in _KINDS]
    return ", ".join([f"status {status}", *kinds, f"a text of {len(body)} bytes"])
