"""Which headers pass, in either direction. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade host content-length expect".split()
)
_KEPT_HERE = frozenset(b"authorization x-api-key cookie accept-encoding content-type x-request-id".split())
_NOT_RETURNED = _HOP_BY_HOP | frozenset(b"server date x-request-id set-cookie".split())


def forwarded(headers: Headers, request_id: str) -> dict[str, str]:
    """The client's headers that go to a backend: neither hop-by-hop nor credentials."""
    named = {
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    }
    kept = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if name not in _HOP_BY_HOP and name not in _KEPT_HERE and name not in named
    }
    return kept | {"Content-Type": "application/json", "X-Request-Id": request_id}


def returned(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """A backend's headers that go to the client."""
    return [(name.lower(), value) for name, value in headers if name.lower() not in _NOT_RETURNED]
