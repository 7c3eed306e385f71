"""The exceptions of the gateway, and their one encoding: OpenAI's error object.

docs/errors.md draws the tree of the classes.
"""

from __future__ import annotations

import copy
import logging
import math
from typing import ClassVar, Self

import orjson

_LONGEST = 800  # characters of a message, which may quote the client or a backend


class GatewayError(Exception):
    """A failure that is reported to the client."""

    status: ClassVar[int] = 500
    """The HTTP status."""
    type: ClassVar[str] = "server_error"
    """OpenAI's class of error, such as `invalid_request_error`."""
    code: ClassVar[str] = "internal_error"
    """What happened, for programs: see docs/errors.md."""
    level: ClassVar[int] = logging.ERROR
    """The severity; only errors of level ERROR are logged on a line of their own."""
    retryable: ClassVar[bool] = False
    """Another replica may succeed, so the request is retried if nothing was sent to the client yet."""
    spent: bool = False
    """A backend may have spent tokens, as it had the whole request and did not refuse it."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
        spent: bool | None = None,
    ) -> None:
        """`message` is shown to the client: no addresses, no tracebacks. `detail` goes to the log only.

        A `detail` has no text of a client or a backend, as backends quote prompts.
        `param` names the field at fault; `retry_after` is in seconds; `spent` replaces that of the class.
        """
        self.message = message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
        super().__init__(self.message)
        self.param = param
        self.retry_after = retry_after
        self.detail = detail
        if spent is not None:
            self.spent = spent

    def detached(self) -> Self:
        """A copy without traceback, to be kept: the frames of a traceback hold the body of the request."""
        return copy.copy(self)

    def body(self) -> bytes:
        """The error object in JSON: `{"error":{"message":…,"type":…,"param":…,"code":…}}`."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": error})

    def sse(self) -> bytes:
        """The error as one server-sent event, for a stream that has already begun."""
        return b"data: " + self.body() + b"\n\n"

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            headers.append((b"retry-after", str(max(1, math.ceil(self.retry_after))).encode()))
        return headers


class RequestError(GatewayError):
    """The fault is in the request, and the client can correct it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    level = logging.INFO


class InvalidRequest(RequestError):
    """A field has a wrong type or value."""

    code = "invalid_value"


class InvalidJson(InvalidRequest):
    """The body is not a JSON object."""

    code = "invalid_json"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and completion do not fit the model's context."""

    code = "context_length_exceeded"


class InvalidApiKey(RequestError):
    """No key, or an unknown one."""

    status = 401
    code = "invalid_api_key"

    def __init__(self, message: str, *, tried: str | None = None) -> None:
        """tried: the fingerprint of the key that was sent, for the log; None if there was no key."""
        super().__init__(message)
        self.tried = tried

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class ModelNotAllowed(RequestError):
    """The key exists but may not use this model."""

    status = 403
    code = "model_not_allowed"


class ModelNotFound(RequestError):
    """No such model, or no such tier of it."""

    status = 404
    code = "model_not_found"


class RouteNotFound(RequestError):
    """No such path."""

    status = 404
    code = "route_not_found"


class BudgetNotFound(RequestError):
    """No such budget, or no such holder of it."""

    status = 404
    code = "budget_not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str = "POST") -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self.allow.encode())]


class RequestTimeout(RequestError):
    """The headers or the body did not arrive in time."""

    status = 408
    code = "request_timeout"


class RequestTooLarge(RequestError):
    """The body is over `limits.body_bytes`."""

    status = 413
    code = "request_too_large"


class HeadersTooLarge(RequestError):
    """The headers are over `limits.header_bytes` or `limits.header_count`."""

    status = 431
    code = "headers_too_large"


class TokensExceeded(RequestError):
    """The window of a token budget is full."""

    status = 429
    type = "tokens"
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        limits: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """`limits` are the `x-ratelimit-…` headers."""
        super().__init__(message, retry_after=retry_after)
        self.limits = limits or []

    def headers(self) -> list[tuple[bytes, bytes]]:
        milliseconds = () if self.retry_after is None else (b"%d" % (self.retry_after * 1000),)
        return [*super().headers(), *((b"retry-after-ms", ms) for ms in milliseconds), *self.limits]


class InsufficientQuota(TokensExceeded):
    """A budget of an hour or longer is spent, or can never hold the request: clients must not retry."""

    type = "insufficient_quota"
    code = "insufficient_quota"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"x-should-retry", b"false")]


class BackendError(GatewayError):
    """A backend failed, or its response cannot be passed on."""

    status = 502
    code = "backend_error"
    level = logging.WARNING
    crashed: bool = False
    """It returned a status of 500, and may die of the request a moment later."""


class BackendDisconnected(BackendError):
    """A backend closed the connection before its response was complete."""

    code = "backend_disconnected"
    retryable = True
    spent = True
    stale: bool = False
    """The connection had been idle, and was probably closed for that before the request arrived."""


class BackendOverloaded(BackendError):
    """Every replica asked us to slow down."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    retryable = True


class NoBackend(BackendError):
    """No replica of the model can be reached."""

    status = 503
    code = "no_backend"
    retryable = True
    reached: bool = True
    """False if no connection could be opened, so that nothing was sent."""


class RequestQuarantined(BackendError):
    """The same request was lost at a replica, which it may have killed, so no other replica gets it."""

    status = 503
    code = "request_quarantined"


class BackendTimeout(BackendError):
    """A backend exceeded the first-byte, idle or total timeout."""

    status = 504
    code = "backend_timeout"
    retryable = True
    spent = True


class BudgetUnavailable(GatewayError):
    """Redis is unreachable, and a budget of the request has the policy to refuse in that case."""

    status = 503
    code = "budget_unavailable"
    level = logging.WARNING


class ShuttingDown(GatewayError):
    """The gateway is stopping, and the drain timeout has passed."""

    status = 503
    code = "shutting_down"
    level = logging.WARNING


class ClientClosed(GatewayError):
    """The client disconnected or stopped reading, so the error is only logged."""

    status = 499
    code = "client_closed"
    level = logging.INFO
    spent = True


class InternalError(GatewayError):
    """A fault of the gateway."""


def all_errors(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """Every error class, for tests that all are documented and counted."""
    return [root, *(found for child in root.__subclasses__() for found in all_errors(child))]
