"""The address of a backend, parsed."""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.config.models import ReplicaTls


class Origin(NamedTuple):
    """A server, and what its address adds to every request."""

    host: str
    port: int
    tls: bool
    path: bytes
    """Prefix of every request path."""
    lines: bytes
    """Header lines: `Host`, and `Authorization` if the address has a user."""
    tls_settings: ReplicaTls | None = None
    """Whom to trust and how to identify the gateway; None for the system's CAs and no client certificate."""


@lru_cache(maxsize=1024)
def parse_origin(base: str, tls_settings: ReplicaTls | None = None) -> Origin:
    """Parse a base address such as http://10.0.0.1:8000 or https://user:password@host/prefix."""
    url = urlsplit(base)
    tls = url.scheme == "https"
    lines = b"Host: " + url.netloc.rpartition("@")[2].encode() + b"\r\n"
    if url.username is not None:
        login = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
        lines += b"Authorization: Basic " + b64encode(login) + b"\r\n"
    port = url.port or (443 if tls else 80)
    return Origin(url.hostname or "", port, tls, url.path.encode(), lines, tls_settings)
