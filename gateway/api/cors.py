"""Which web pages of other origins may use the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.server import CorsSettings
from gateway.http.headers import Headers

_METHODS = (b"GET", b"POST", b"PUT", b"DELETE")
_ASKED = b"access-control-request-"
"""How the headers begin with which a browser asks whether a page may send a request."""
_VARY = b", ".join(
    [b"Origin", *(_ASKED.title() + name for name in (b"Method", b"Headers", b"Private-Network"))]
)


class CorsRule:
    """The permissions of web pages, in the form in which browsers ask for them."""

    def __init__(self, settings: CorsSettings) -> None:
        self._origins = frozenset(origin.encode() for origin in settings.origins)
        self._max_age = b"%d" % settings.max_age

    @classmethod
    def of(cls, settings: CorsSettings) -> CorsRule | None:
        """The rule; None if no origin is allowed."""
        return cls(settings) if settings.origins else None

    def grants(self, headers: Mapping[bytes, bytes]) -> Headers:
        """What the response to a page says, from the headers of its request."""
        origin = headers.get(b"origin")
        granted = self._allowing(origin)
        if origin is not None:
            granted.append((b"access-control-expose-headers", b"*"))
        return [*granted, (b"vary", b"Origin")]

    def preflight(self, method: str, headers: Mapping[bytes, bytes]) -> tuple[int, Headers, bytes] | None:
        """Status, headers and body for a browser that asks before it sends a page's request. It has no key.

        None if the request is another one.
        """
        origin, wanted = headers.get(b"origin"), headers.get(_ASKED + b"method")
        if method != "OPTIONS" or origin is None or wanted is None:
            return None
        granted = self._allowing(origin)
        faults = {
            b"origin": not granted,
            b"method": wanted not in _METHODS,
            b"private-network": _ASKED + b"private-network" in headers,
        }
        refused = [name for name, fault in faults.items() if fault]
        granted += [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"vary", _VARY),
            (b"access-control-allow-methods", b", ".join(_METHODS)),
            (b"access-control-max-age", self._max_age),
        ]
        if (names := headers.get(_ASKED + b"headers")) is not None:
            granted.append((b"access-control-allow-headers", names))
        return (400, granted, b"Disallowed CORS " + b", ".join(refused)) if refused else (200, granted, b"OK")

    def _allowing(self, origin: bytes | None) -> Headers:
        """The header that lets the pages of an origin read the response, if they may."""
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*")] if origin is not None else []
        return [(b"access-control-allow-origin", origin)] if origin and origin in self._origins else []
