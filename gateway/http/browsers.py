"""Keeps web pages of other sites from using the gateway through a visitor's browser. No I/O.

A page may send a request to any address that its visitor can reach, without asking, as long as the request
looks like a form. And a page may have the name of its own site point to 127.0.0.1, after which the browser
takes the gateway for a part of that site (DNS rebinding).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.config.server import is_loopback
from gateway.config.settings import Settings
from gateway.http.errors import HostNotAllowed, UnsupportedMediaType
from gateway.http.headers import bearer

_JSON = re.compile(rb"(?:application/(?:[!#$&^_.+a-z0-9-]+\+)?|text/)json[ \t]*(?:;.*)?", re.IGNORECASE)
_SAME_SITE = frozenset((b"same-origin", b"none"))


def check_media_type(headers: Mapping[bytes, bytes]) -> None:
    """Check that a request with a body is none that a page of another site may send without asking first.

    A page may not say that its body is JSON, or send a key: for both, the browser asks first. A program may
    leave the type out. A page may send a body without a type too, and is recognised by other headers.

    Raises: UnsupportedMediaType.
    """
    given = headers.get(b"content-type")
    if given == b"application/json":
        return
    if given is None:
        site = headers.get(b"sec-fetch-site")
        if (site is None and b"origin" not in headers) or site in _SAME_SITE:
            return
    elif _JSON.fullmatch(given):
        return
    if bearer(headers) or headers.get(b"x-api-key"):
        return  # curl -d, which says that it sends a form
    raise UnsupportedMediaType(
        "The body must be JSON and say so: send the header `Content-Type: application/json` "
        "(curl: -H 'Content-Type: application/json')"
    )


@dataclass(frozen=True)
class HostRule:
    """Which names a client may use for the gateway."""

    names: frozenset[str]
    """Names and addresses that are allowed by configuration."""
    loopback: bool
    """Whether local names alone are allowed beside them."""

    @classmethod
    def of(cls, settings: Settings, listener: str) -> HostRule | None:
        """The rule for a gateway that listens on this address; None if every name is allowed.

        With API keys, a page has none of them, and a proxy on the same machine may pass on any name.
        """
        loopback = is_loopback(listener)
        names = frozenset(name.lower().rstrip(".") for name in settings.server.hosts)
        return cls(names, loopback) if names or (loopback and not settings.keys) else None

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises: HostNotAllowed."""
        host = headers.get(b"host")
        if host is not None and not self._allows(_without_port(host.decode("ascii", "replace").lower())):
            raise HostNotAllowed(
                "The gateway is not called by this name (header `Host`). If it should be, add the name to "
                "`server.hosts` in the configuration"
            )

    def _allows(self, name: str) -> bool:
        """A name without a dot is nobody's domain, and an address cannot be made to point elsewhere."""
        if name in self.names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return "." not in name and ":" not in name
        return address.is_loopback or not self.loopback


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
