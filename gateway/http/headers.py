"""Which headers pass through the gateway, in either direction."""

from __future__ import annotations

from collections.abc import Container, Mapping

from gateway.config.forwarding import HOP_BY_HOP

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(name.encode() for name in HOP_BY_HOP)
_NOT_RETURNED = _HOP_BY_HOP | frozenset(b"server date x-request-id set-cookie".split())
FORWARDED = frozenset(
    b"accept accept-language user-agent openai-organization openai-project openai-beta "
    b"traceparent tracestate baggage b3 x-b3-traceid x-b3-spanid x-b3-parentspanid x-b3-sampled "
    b"x-b3-flags".split()
)
"""Headers that every client may send to a backend: what it accepts, who it is, and its trace context."""
SCHEDULING = frozenset(b"x-vllm-priority x-data-parallel-rank".split())
"""Headers with which a client orders or places its requests at a backend, as vLLM calls them."""

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


def passing(headers: Headers, allowed: Container[bytes]) -> Headers:
    """The headers of a client that pass to a backend."""
    kept, named = [], set()
    for header in headers:
        if header[0] in allowed:
            kept.append(header)
        elif header[0] == b"connection":
            named |= _named(header[1])
    return [header for header in kept if header[0] not in named] if named else kept


def forwarded(theirs: Headers, ours: Headers) -> Headers:
    """The headers for a backend: those of the client that are `passing`, and `ours`.

    A header in `ours` replaces the client's header of the same name.
    """
    if not theirs:
        return ours
    replaced = {name.lower() for name, _ in ours}
    return [header for header in theirs if header[0] not in replaced] + ours


def returned(headers: Headers) -> Headers:
    """The headers of a backend, with names in lower case, that go to the client."""
    kept, named = [], set()
    for header in headers:
        name = header[0]
        if name == b"connection":
            named |= _named(header[1])
        elif name not in _NOT_RETURNED and not name.startswith(_CORS):
            kept.append(header)
    return [header for header in kept if header[0] not in named] if named else kept


def bearer(headers: Mapping[bytes, bytes]) -> str | None:
    """TOKEN in `Authorization: Bearer TOKEN`, which may be empty; None without such a header."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip().decode(errors="replace") if scheme.lower() == b"bearer" else None


def _named(connection: bytes) -> set[bytes]:
    """The names that a `Connection` header declares to be hop-by-hop: `Connection: close, X-Trace`."""
    return {name.strip().lower() for name in connection.split(b",")}
