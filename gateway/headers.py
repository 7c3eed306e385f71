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
    """The client's headers that go to a backend: neither hop-by-hop nor credentials; repeated ones joined."""
    named = _named(headers)
    kept: dict[str, str] = {}
    for key, value in headers:
        if key not in _HOP_BY_HOP and key not in _KEPT_HERE and key not in named:
            name, text = key.decode("latin-1"), _text(value)
            kept[name] = f"{kept[name]}, {text}" if name in kept else text
    return kept | {"Content-Type": "application/json", "X-Request-Id": request_id}


def returned(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """A backend's headers that go to the client."""
    lower = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_RETURNED | _named(lower)
    return [(name, value) for name, value in lower if name not in dropped]


def _text(value: bytes) -> str:
    try:
        return value.decode()  # written as UTF-8 again, so the same bytes
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _named(headers: Headers) -> set[bytes]:
    """The headers that `Connection` declares to be hop-by-hop."""
    return {
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    }
