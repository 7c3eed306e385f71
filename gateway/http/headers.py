"""Which headers pass through the gateway, in either direction."""

from __future__ import annotations

from collections.abc import Mapping

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade host content-length expect".split()
)
_NOT_FORWARDED = _HOP_BY_HOP | frozenset(b"authorization x-api-key cookie accept-encoding".split())
_NOT_RETURNED = _HOP_BY_HOP | frozenset(b"server date x-request-id set-cookie".split())

_CORS = b"access-control-"
"""A backend's permission to web pages is not the gateway's: see `server.cors`."""
PAGE_POLICY: Headers = [
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
"""For what the gateway says itself: a browser that is led to it runs nothing, and shows it in no frame."""


def forwarded(headers: Headers, ours: Headers) -> Headers:
    """The headers for a backend: the client's without hop-by-hop headers and credentials, and `ours`.

    A header in `ours` replaces the client's header of the same name.
    """
    replaced = {name.lower() for name, _ in ours} | _named(headers)
    kept = [h for h in headers if h[0] not in _NOT_FORWARDED and h[0] not in replaced]
    return kept + ours


def returned(headers: Headers) -> Headers:
    """The headers of a backend, with names in lower case, that go to the client."""
    named = _named(headers)
    return [
        h for h in headers if h[0] not in _NOT_RETURNED and h[0] not in named and not h[0].startswith(_CORS)
    ]


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """TOKEN in `Authorization: Bearer TOKEN`, which may be empty; None without such a header."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip().decode(errors="replace") if scheme.lower() == b"bearer" else None


def _named(headers: Headers) -> set[bytes]:
    """The names that a `Connection` header declares to be hop-by-hop: `Connection: close, X-Trace`."""
    values = [value for key, value in headers if key == b"connection"]
    return {name.strip().lower() for value in values for name in value.split(b",")}
