"""Reads the head of a request, as strictly as RFC 9112 allows. No I/O.

Whatever two programs may read differently is refused, because a proxy in front of the gateway could read it
the other way and take a part of the body for another request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.http.headers import Headers

HEADER_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" % HEADER_TOKEN)
_HEAD = re.compile(rb"%b((?:%b:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n" % (_REQUEST_LINE.pattern, HEADER_TOKEN))
_EMPTY_LINES = re.compile(rb"(?:\r\n){0,16}+")
_HEADER = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_URL = re.compile(rb"https?://([^/?#@]++)(/[^?#]*+)?(?:\?([^#]*+))?", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9._~%!$&'()*+,;=-]*+)(?::[0-9]{0,5}+)?")
_SINGLE = frozenset(
    b"host content-length transfer-encoding content-encoding authorization x-api-key content-type expect "
    b"origin".split()
)
"""Headers that mean something to the gateway, and nothing certain when they are sent twice."""


class RequestHead(Struct, frozen=True, gc=False):
    """The request line and the headers of one request."""

    method: str
    path: bytes
    """As sent, still with percent signs."""
    query: bytes
    http10: bool
    headers: Headers
    """Names are in lower case."""
    named: Mapping[bytes, bytes]
    """The last value of each header. Not to be changed, as later requests may share it."""
    keep_alive: bool
    """Whether the client lets the connection stay open after the response."""
    length: int | None
    """Bytes of the body; None if it comes in chunks."""
    expects_continue: bool
    """Whether the client waits for a 100 before it sends the body."""
    shared: dict[str, Any]
    """What others worked out from the headers. Later requests that differ in the length alone share it."""

    def header_bytes(self) -> int:
        """The sum of header names and values, in bytes."""
        return sum(len(name) + len(value) for name, value in self.headers)


def read_head(head: bytes) -> RequestHead:
    """Read everything up to and with the blank line.

    Raises: InvalidRequest.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise InvalidRequest(_fault(head))
    method, target, minor, lines = match.groups()
    headers: Headers = [(name.lower(), value) for name, value in _HEADER.findall(lines)]
    if b" \r\n" in lines or b"\t\r\n" in lines:
        headers = [(name, value.rstrip(b" \t")) for name, value in headers]
    found = dict(headers)
    if len(found) < len(headers):
        _check_repeated(headers)
    http10 = minor == b"0"
    authority, path, query = _split(target)
    host = found.get(b"host", b"")
    if not host and not http10:  # also with a URL as the target
        raise InvalidRequest("The request has no Host header, which HTTP/1.1 requires")
    if not _HOST.fullmatch(host):
        raise InvalidRequest("The Host header is not a host and a port")
    if authority is not None:  # RFC 9112, 3.2.2: it takes precedence over the header
        if not _HOST.fullmatch(authority):
            raise InvalidRequest("The host in the request target is not a host and a port")
        headers = [(b"host", authority), *(h for h in headers if h[0] != b"host")]
        found[b"host"] = authority
    if b"x-api-key" in found:
        _check_credentials(found)
    keep_alive = not http10 and not _closes(found.get(b"connection", b"").lower())
    length = _length(found, http10=http10)
    expects = not http10 and found.get(b"expect", b"").lower() == b"100-continue"
    return RequestHead(method.decode(), path, query, http10, headers, found, keep_alive, length, expects, {})


def _check_repeated(headers: Headers) -> None:
    names = [name for name, _ in headers]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise InvalidRequest(f"The header {name.decode()} is given twice")


def empty_lines(data: bytes | bytearray) -> int:
    """Bytes of the empty lines at the beginning of `data`, as many as are ignored."""
    found = _EMPTY_LINES.match(data)
    return found.end() if found else 0


def check_beginning(data: bytes | bytearray, at: int = 0) -> None:
    """Check the beginning of a head, of which everything before `at` was checked already.

    Raises: InvalidRequest.
    """
    if data and not 65 <= data[0] <= 90 and data != b"\r":  # "A" to "Z", or half an empty line
        raise InvalidRequest(_not_http(data))
    if data.count(b"\n", at) != data.count(b"\r\n", max(0, at - 1)):
        raise InvalidRequest("A line of the request ends without CR LF")
    if (end := data.find(b"\n", at)) >= 0 and data.find(b"\n", 0, end) < 0:
        line = bytes(data[: end + 1])
        if not _REQUEST_LINE.fullmatch(line):
            raise InvalidRequest(_fault(line))


def _fault(head: bytes) -> str:
    """Why a head was refused, in words for the client."""
    line = head.partition(b"\n")[0] + b"\n"
    if not _REQUEST_LINE.fullmatch(line):
        version = line.rstrip().rpartition(b" ")[2]
        if re.fullmatch(rb"HTTP/[0-9.]+", version) and version not in (b"HTTP/1.1", b"HTTP/1.0"):
            return "Only HTTP/1.1 and HTTP/1.0 are spoken here"
        return _not_http(head)
    if re.search(rb"\r\n[ \t]", head):
        return "A header is folded over two lines, which HTTP/1.1 forbids"
    if re.search(rb"\n[^:\r\n]*[ \t]:", head):
        return "A header name is followed by a space before its colon"
    return "This is not a valid HTTP/1.1 request: a header has a byte that is not allowed, or no colon"


def _not_http(data: bytes | bytearray) -> str:
    if data[:2] == b"\x16\x03":
        return "This port speaks HTTP without TLS"
    return "This is not a valid HTTP/1.1 request"


def _split(target: bytes) -> tuple[bytes | None, bytes, bytes]:
    """Authority, path and query of a request target; the authority is None unless the target is a URL."""
    if target[0] == 47 and b"#" not in target:  # "/"
        path, _, query = target.partition(b"?")
        return None, path, query
    if target == b"*":
        return None, target, b""
    match = _URL.fullmatch(target)
    if match is None:
        raise InvalidRequest("The request target is neither a path nor an http URL")
    return match[1], match[2] or b"/", match[3] or b""


def _closes(connection: bytes) -> bool:
    """Whether the client asks to close the connection after the response."""
    return b"close" in connection and b"close" in [token.strip() for token in connection.split(b",")]


def _length(found: dict[bytes, bytes], *, http10: bool) -> int | None:
    coding, declared = found.get(b"transfer-encoding"), found.get(b"content-length")
    if coding is None:
        if declared is None:
            return 0
        if not declared.isdigit() or len(declared) > 18:
            raise InvalidRequest("Content-Length is not a number of bytes")
        return int(declared)
    if declared is not None or http10:
        raise InvalidRequest("Transfer-Encoding cannot be used with Content-Length, or in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise InvalidRequest("The only Transfer-Encoding served is `chunked`")
    return None


def _check_credentials(found: dict[bytes, bytes]) -> None:
    key, given = found.get(b"x-api-key"), found.get(b"authorization")
    if key and given:
        scheme, _, token = given.partition(b" ")
        if scheme.lower() == b"bearer" and token.strip() != key:
            raise InvalidRequest("Authorization and X-Api-Key carry different keys: send one of them")
