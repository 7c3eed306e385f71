"""The address of a backend, parsed."""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.config.models import Replica, ReplicaTls
from gateway.http.headers import Headers


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


def authorization(replica: Replica) -> Headers:
    """The header with the key that the replica wants; none if it wants none."""
    if not replica.api_key:
        return []
    return [(b"Authorization", f"Bearer {replica.api_key.get_secret_value()}".encode())]


def header_lines(headers: Headers) -> bytes:
    """Headers as they are sent."""
    return b"".join([b": ".join(header) + b"\r\n" for header in headers])


def head_start(method: bytes, origin: Origin, path: str) -> bytes:
    """The request line of a request, and the headers of all requests to a server."""
    return b"%b %b%b HTTP/1.1\r\n%b" % (method, origin.path, path.encode(), origin.lines)


def request_head(start: bytes, headers: Headers, size: int) -> bytes:
    """The request line and the headers of a request. headers: its own. size: bytes of its body."""
    return b"%b%bContent-Length: %d\r\n\r\n" % (start, header_lines(headers), size)
