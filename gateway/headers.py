"""Which headers pass, in either direction. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade host content-length expect".split()
)
_NOT_FORWARDED = _HOP_BY_HOP | frozenset(b"authorization x-api-key cookie accept-encoding".split())
_NOT_RETURNED = _HOP_BY_HOP | frozenset(b"server date x-request-id set-cookie".split())


def forwarded(headers: Headers, ours: Headers) -> Headers:
    """The client's headers that go to a backend: no hop-by-hop, no credentials; `ours` replace theirs."""
    dropped = _NOT_FORWARDED | _named(headers) | {name.lower() for name, _ in ours}
    return [*(header for header in headers if header[0] not in dropped), *ours]


def returned(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """A backend's headers that go to the client."""
    lower = [(name.lower(), value) for name, value in headers]
    dropped = _NOT_RETURNED | _named(lower)
    return [(name, value) for name, value in lower if name not in dropped]


def _named(headers: Headers) -> set[bytes]:
    """The headers that `Connection` declares to be hop-by-hop."""
    return {
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    }
