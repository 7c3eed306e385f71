"""The exception tree, and its one encoding: OpenAI's error object.

GatewayError
├── RequestError                 the client can mend it (4xx)
│   ├── InvalidRequest           400  a value is wrong
│   │   ├── InvalidJson          400  the body is not JSON
│   │   └── ContextLengthExceeded 400 prompt + completion do not fit the model
│   ├── InvalidApiKey            401
│   ├── ModelNotAllowed          403
│   ├── ModelNotFound            404
│   ├── RouteNotFound            404
│   ├── BudgetNotFound           404
│   ├── MethodNotAllowed         405
│   ├── RequestTimeout           408  the body did not arrive in time
│   ├── RequestTooLarge          413
│   ├── HeadersTooLarge          431
│   ├── TokensExceeded           429  a token budget's window is full
│   └── InsufficientQuota        429  a long budget is spent: trying again soon is no use
├── BackendError                 502  a backend answered something unusable
│   ├── BackendDisconnected      502  a backend closed before its answer was complete
│   ├── BackendOverloaded        429  every replica asks to slow down
│   ├── NoBackend                503  no replica can be reached
│   └── BackendTimeout           504
├── BudgetUnavailable            503  Redis is away, and the budget's policy is to refuse
├── ShuttingDown                 503  the gateway drains and its grace period is over
├── ClientClosed                 499  logged, never sent: nobody listens any more
└── InternalError                500  a fault of ours; the cause goes to the log only
"""

from __future__ import annotations

import logging
import math
from typing import ClassVar

import orjson

_LONGEST = 800  # characters of a message: it may quote the client or a backend


class GatewayError(Exception):
    """A failure with an answer. `message` is shown to the client: no addresses, no tracebacks."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    level: ClassVar[int] = logging.ERROR
    retryable: ClassVar[bool] = False
    """Whether another replica may do better, as long as nothing was sent to the client."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
    ) -> None:
        """`retry_after` is in seconds; `detail` goes to the log and never to the client."""
        self.message = message if len(message) <= _LONGEST else message[:_LONGEST] + "…"
        super().__init__(self.message)
        self.param = param
        self.retry_after = retry_after
        self.detail = detail

    def body(self) -> bytes:
        """The JSON error object, as OpenAI's clients expect it."""
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
    """The client can mend it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    level = logging.INFO


class InvalidRequest(RequestError):
    """A field holds a value we cannot use."""

    code = "invalid_value"


class InvalidJson(InvalidRequest):
    """The body is not a JSON object."""

    code = "invalid_json"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and completion do not fit the model's context."""

    code = "context_length_exceeded"


class InvalidApiKey(RequestError):
    """No key, or one we do not know."""

    status = 401
    code = "invalid_api_key"

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
    """The request body did not arrive in time."""

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
    """The window of a token budget is full for now; `limits` are the rate-limit headers."""

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
    """A backend answered something we cannot pass on."""

    status = 502
    code = "backend_error"
    level = logging.WARNING


class BackendDisconnected(BackendError):
    """A backend closed the connection before its answer was complete."""

    code = "backend_disconnected"
    retryable = True


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


class BackendTimeout(BackendError):
    """A backend exceeded the first-byte, idle or total timeout."""

    status = 504
    code = "backend_timeout"
    retryable = True


class BudgetUnavailable(GatewayError):
    """Redis is away, and a budget of the request says to refuse then."""

    status = 503
    code = "budget_unavailable"
    level = logging.WARNING


class ShuttingDown(GatewayError):
    """The gateway is stopping and the grace period of this request is over."""

    status = 503
    code = "shutting_down"
    level = logging.WARNING


class ClientClosed(GatewayError):
    """The client went away, or stopped reading; nobody is there to be told."""

    status = 499
    code = "client_closed"
    level = logging.INFO


class InternalError(GatewayError):
    """A fault of ours."""


def all_errors(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """Every error class, for the documentation test and the metrics' label set."""
    return [root, *(found for child in root.__subclasses__() for found in all_errors(child))]
