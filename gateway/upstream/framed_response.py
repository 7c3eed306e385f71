"""Reads the head of a response and the framing of its body, as RFC 9112 has them. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct

from gateway.http.headers import Headers
from gateway.upstream.compiled_chunks import whole_chunks

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n"
_FIRST_LINE = re.compile(_STATUS_LINE)
_HEAD = re.compile(rb"%b((?:%b:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n" % (_STATUS_LINE, _TOKEN))
_HEADER = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_TRAILER = re.compile(rb"%b:[\t\x20-\x7e\x80-\xff]*+" % _TOKEN)
_EXTENSION = rb"(?:;[\t\x20-\x7e\x80-\xff]*+|[\t ]*+)"
"""What may stand behind the size of a chunk. It is dropped, so nobody can read another framing from it.

Other clients take anything but the end of the line, which some servers fill with blanks.
"""
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})%b" % _EXTENSION)
_SIZE_BEGINNING = re.compile(rb"(?:[0-9A-Fa-f]{1,16}%b\r?)?" % _EXTENSION)
_SHORT = 16  # bytes of a line
_LARGE = 2_048  # bytes; in fewer there are few chunks
_HEADER_BYTES = 1 << 16
_OVERHEAD_BYTES = 1 << 17
"""Between two pieces of a body: sizes of chunks with their extensions, and trailers."""


class FramingError(ValueError):
    """The bytes are not a response as HTTP/1.1 frames it."""


class ResponseHead(Struct, frozen=True, gc=False):
    """The status line and the headers of a response."""

    status: int
    headers: Headers
    """Names in lower case."""
    keep_alive: bool
    """The connection may be used again, unless its end is the end of the body."""
    length: int | None
    """Bytes of the body; None if it comes in chunks, or ends with the connection."""
    chunked: bool
    declared: bool
    """A header says where the body ends."""

    def body(self) -> FramedBody:
        """Reads the body."""
        if self.length is not None:
            return DeclaredBody(self.length)
        return ChunkedResponse() if self.chunked else DeclaredBody(None)


def end_of_head(data: bytes, searched: int = 0) -> int:
    """Where a head ends that has arrived as far as `data`; 0 if it is not complete.

    searched: bytes at the beginning that an earlier call has seen.

    Raises: FramingError.
    """
    end = data.find(b"\r\n\r\n", max(0, searched - 3)) + 4
    if end < 4:
        line = data.find(b"\n") + 1
        if not (_FIRST_LINE.match(data) if line else b"HTTP/1."[: len(data)] == data[:7]):
            raise FramingError("no status line")
        if data.count(b"\n", searched) != data.count(b"\r\n", max(0, searched - 1)):
            raise FramingError("a line ends without CR LF")
        end = 0
    if (end or len(data)) > _HEADER_BYTES:
        raise FramingError("too many headers")
    return end


def read_response_head(head: bytes) -> ResponseHead:
    """Read everything up to and with the blank line.

    Raises: FramingError.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise FramingError("no status line" if not _FIRST_LINE.match(head) else "a header is not valid")
    minor, code, lines = match.groups()
    status = int(code)
    if status == 101:
        raise FramingError("another protocol, which nobody asked for")
    headers = [(name.lower(), value.rstrip(b" \t")) for name, value in _HEADER.findall(lines)]
    found = dict(headers)
    connection = found.get(b"connection", b"").lower()
    if len(found) < len(headers):  # there may be several
        connection = b",".join(value for name, value in headers if name == b"connection").lower()
    length, chunked = _framing(headers, found)
    declared = length is not None or b"transfer-encoding" in found
    if status < 200 or status in {204, 304}:
        length, chunked = 0, False
    keep = b"close" not in connection and (minor == b"1" or b"keep-alive" in connection)
    return ResponseHead(status, headers, keep, length, chunked, declared)


def _framing(headers: Headers, found: dict[bytes, bytes]) -> tuple[int | None, bool]:
    """The length that is declared, and whether the body comes in chunks."""
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    if length is None:
        return None, coding is not None and coding.lower().rpartition(b",")[2].strip() == b"chunked"
    if coding is not None or not length.isdigit() or len(length) > 18:
        raise FramingError("the length of the body is not certain")
    if len(found) < len(headers) and sum(name == b"content-length" for name, _ in headers) > 1:
        raise FramingError("the length of the body is declared twice")
    return int(length), False


class DeclaredBody:
    """A body whose length was declared; None if it ends with the connection."""

    __slots__ = ("_left", "error", "open", "rest")

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.open = length != 0
        """More of the body is to come."""
        self.rest = b""
        """What has arrived behind it."""
        self.error: FramingError | None = None

    @property
    def due(self) -> int:
        """See `ChunkedResponse.due`. There are no chunks."""
        return -1

    def take(self, data: bytes) -> bytes:
        """The bytes of the body in `data`."""
        left = self._left
        if left is None:
            return data
        if len(data) > left:
            data, self.rest = data[:left], data[left:]
        self._left = left - len(data)
        self.open = self._left > 0
        return data


class ChunkedResponse:
    """A body in chunks. Extensions and trailers are dropped."""

    __slots__ = ("_left", "_overhead", "_trailers", "_unread", "error", "open", "rest")

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the current chunk that are still due, and its line end."""
        self._trailers = False
        self._unread = b""
        """The beginning of a line."""
        self._overhead = 0
        self.open = True
        """More of the body is to come."""
        self.rest = b""
        """What has arrived behind it."""
        self.error: FramingError | None = None
        """Why the rest cannot be read."""

    @property
    def due(self) -> int:
        """Bytes up to the beginning of the next chunk; -1 if they are not known, or none is to come."""
        return -1 if self._unread or self._trailers or not self.open else self._left

    def take(self, data: bytes) -> bytes:
        """The bytes of the body in `data`."""
        if self._unread:
            data, self._unread = self._unread + data, b""
        parts: list[bytes] = []
        try:
            if not self._left and not self._trailers and (chunk := _only_chunk(data)):
                self._overhead = 0
                return chunk
            at = 0
            if len(data) > _LARGE and not self._left and not self._trailers:
                body, at = whole_chunks(data)
                if body:
                    parts.append(body)
            at = self._read_chunks(data, at, parts)
            if self._trailers:
                self._read_trailers(data, at)
            if parts:
                self._overhead = 0
            elif self._overhead + len(self._unread) > _OVERHEAD_BYTES:
                raise FramingError("too many bytes that belong to no body")
        except FramingError as error:
            self.error, self.open = error, False
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_chunks(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Read chunks from `at` up to the last one, which is empty. Returns where the trailers begin."""
        size = len(data)
        if self._left:
            at = self._rest_of_chunk(data, parts)
        while at < size and not self._trailers:
            line = data.find(b"\r\n", at)
            if line < 0:
                self._keep(data[at:])
                return size
            length = _size(data[at:line]) if line - at <= _SHORT else _read_size(data[at:line])
            start = line + 2
            self._overhead += start - at
            if length == 0:
                self._trailers = True
                return start
            at = start + length + 2
            if at <= size and data.startswith(b"\r\n", at - 2):
                parts.append(data[start : at - 2])
            else:
                self._left = length + 2
                at = start + self._rest_of_chunk(data[start:], parts)
        return at

    def _rest_of_chunk(self, data: bytes, parts: list[bytes]) -> int:
        """Read the rest of the current chunk and its line end. Returns how many bytes were read."""
        due = max(self._left - 2, 0)
        if due and data:
            parts.append(data[:due])
        end = data[due : self._left]
        if end and end != b"\r\n"[2 - (self._left - due) :][: len(end)]:
            raise FramingError("a chunk is longer than its size says")
        used = min(len(data), self._left)
        self._left -= used
        return used

    def _read_trailers(self, data: bytes, at: int) -> None:
        """Read trailers up to the blank line that ends the body."""
        while (line := data.find(b"\r\n", at)) >= 0:
            if line == at:
                self.open, self.rest = False, data[at + 2 :]
                return
            if not _TRAILER.fullmatch(data, at, line):
                raise FramingError("a trailer is not valid")
            self._overhead += line + 2 - at
            at = line + 2
        self._unread = data[at:]
        if b"\n" in self._unread or b"\r" in self._unread[:-1]:
            raise FramingError("a line ends without CR LF")

    def _keep(self, beginning: bytes) -> None:
        """Keep the beginning of the line with the size of a chunk."""
        if not _SIZE_BEGINNING.fullmatch(beginning):
            raise FramingError("the size of a chunk is not valid")
        self._unread = beginning


def _only_chunk(data: bytes) -> bytes:
    """The chunk that these bytes are, as a paced stream brings them one by one; empty if they are not one."""
    line = data.find(b"\r\n", 0, _SHORT)
    if line > 0 and data.endswith(b"\r\n") and line + 4 + _size(data[:line]) == len(data):
        return data[line + 2 : -2]
    return b""


def _read_size(line: bytes) -> int:
    """The size in the line before a chunk."""
    match = _SIZE.fullmatch(line)
    if match is None:
        raise FramingError("the size of a chunk is not valid")
    return int(match[1], 16)


_size = lru_cache(1024)(_read_size)  # the chunks of a stream have a few sizes

FramedBody: TypeAlias = DeclaredBody | ChunkedResponse
