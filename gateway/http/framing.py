"""Reads a request's head and the framing of its body, as strictly as RFC 9112 allows. No I/O.

Whatever two programs may read differently is refused, because a proxy in front of the gateway could read it
the other way and take a part of the body for another request.
"""

from __future__ import annotations

import re

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.http.headers import Headers

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" % _TOKEN)
_HEAD = re.compile(rb"%b((?:%b:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n" % (_REQUEST_LINE.pattern, _TOKEN))
_HEADER = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_URL = re.compile(rb"https?://([^/?#@]++)(/[^?#]*+)?(?:\?([^#]*+))?", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]++\]|[A-Za-z0-9._~%!$&'()*+,;=-]*+)(?::[0-9]{0,5}+)?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_SINGLE = frozenset(
    b"host content-length transfer-encoding content-encoding authorization x-api-key content-type expect "
    b"origin".split()
)
"""Headers that mean something to the gateway, and nothing certain when they are sent twice."""
_LONGEST_SIZE = 256
"""Bytes of the line before a chunk: its size and its extensions, which nobody uses."""
_AT_ONCE = 256
"""Chunks that are read before others are served."""
_FAIR_CHUNK = 64
"""Bytes that a chunk should have beyond its extension, as each costs time."""
_FREE_EXCESS = 262_144
"""Bytes that all chunks together may lack to `_FAIR_CHUNK`."""


class RequestHead(Struct, frozen=True, gc=False):
    """The request line and the headers of one request."""

    method: str
    path: bytes
    """As sent, still with percent signs."""
    query: bytes
    http10: bool
    headers: Headers
    """Names are in lower case."""
    keep_alive: bool
    """Whether the client lets the connection stay open after the response."""
    length: int | None
    """Bytes of the body; None if it comes in chunks."""
    expects_continue: bool
    """Whether the client waits for a 100 before it sends the body."""

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
    if b"x-api-key" in found:
        _check_credentials(found)
    keep_alive = not http10 and not _closes(found.get(b"connection", b"").lower())
    length = _length(found, http10=http10)
    expects = not http10 and found.get(b"expect", b"").lower() == b"100-continue"
    return RequestHead(method.decode(), path, query, http10, headers, keep_alive, length, expects)


def _check_repeated(headers: Headers) -> None:
    names = [name for name, _ in headers]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise InvalidRequest(f"The header {name.decode()} is given twice")


def check_beginning(data: bytes | bytearray, at: int = 0) -> None:
    """Check the beginning of a head, of which everything before `at` was checked already.

    Raises: InvalidRequest.
    """
    if data and not 65 <= data[0] <= 90:  # "A" to "Z"
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


class LengthBody:
    """A body whose length was declared."""

    interrupted = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """The bytes of the body in `data`, and how much of `data` was read."""
        part = bytes(data) if len(data) <= self._left else bytes(data[: self._left])
        self._left -= len(part)
        self.done = not self._left
        return part, len(part)


class ChunkedBody:
    """A body in chunks. Extensions and trailers are dropped."""

    def __init__(self, trailer_bytes: int) -> None:
        """`trailer_bytes` bounds what may follow the last chunk."""
        self._left = 0
        """Bytes of the current chunk that are still due."""
        self._in_chunk = False
        self._in_trailers = False
        self._trailers = trailer_bytes
        self._excess = 0
        self.done = False
        self.interrupted = False
        """There may be more to read at once, but others must be served in between."""

    def take(self, data: bytes | bytearray) -> tuple[bytes, int]:
        """The bytes of the body in `data`, and how much of `data` was read.

        Raises: InvalidRequest.
        """
        parts: list[bytes] = []
        at, end, lines = 0, len(data), 0
        self.interrupted = False
        while at < end and not self.done:
            if lines == _AT_ONCE:
                self.interrupted = True
                break
            lines += 1
            if self._left:
                parts.append(bytes(data[at : at + self._left]))
                self._left -= len(parts[-1])
                at += len(parts[-1])
                continue
            if (after := self._whole_chunk(data, at, parts)) > at:
                at = after
                continue
            after = data.find(b"\r\n", at, at + _LONGEST_SIZE + 2 if not self._in_trailers else end)
            if after < 0:
                self._check_line(bytes(data[at:end]))
                break
            self._line(bytes(data[at:after]))
            at = after + 2
        return b"".join(parts), at

    def _whole_chunk(self, data: bytes | bytearray, at: int, parts: list[bytes]) -> int:
        """Read a chunk that has arrived whole, which is the usual case. Returns where it ends, or `at`."""
        if self._in_chunk or self._in_trailers or not (found := _CHUNK_SIZE.match(data, at)):
            return at
        start, size = found.end(), int(found[1], 16)
        end = start + size
        if not size or data[end : end + 2] != b"\r\n":
            return at
        self._charge(size)
        parts.append(bytes(data[start:end]))
        return end + 2

    def _charge(self, size: int) -> None:
        self._excess = max(0, self._excess + _FAIR_CHUNK - size)
        if self._excess > _FREE_EXCESS:
            raise InvalidRequest("The body comes in chunks that are too small")

    def _check_line(self, beginning: bytes) -> None:
        bound = self._trailers if self._in_trailers else _LONGEST_SIZE
        if len(beginning) > bound + 1:
            raise InvalidRequest("A line between the chunks of the body is too long")
        if b"\n" in beginning:
            raise InvalidRequest("A line between the chunks of the body ends without CR LF")

    def _line(self, line: bytes) -> None:
        if self._in_trailers:
            self._trailers -= len(line) + 2
            if self._trailers < 0:
                raise InvalidRequest("The trailers of the request are too large")
            if line and not re.fullmatch(rb"%b:[\t\x20-\x7e\x80-\xff]*+" % _TOKEN, line):
                raise InvalidRequest("A trailer of the request is not a valid header")
            self.done = not line
        elif self._in_chunk:
            if line:
                raise InvalidRequest("A chunk of the body is longer than its size says")
            self._in_chunk = False
        else:
            self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        size = size.rstrip(b" \t")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size) or not re.fullmatch(rb"[\t\x20-\x7e]*", extension):
            raise InvalidRequest("The size of a chunk of the body is not a number")
        self._left = int(size, 16)
        self._in_chunk, self._in_trailers = self._left > 0, self._left == 0
        self._charge(self._left - len(extension))
