"""Reads the framing of a request's body, as strictly as RFC 9112 allows. No I/O."""

from __future__ import annotations

import re

from gateway.errors import InvalidRequest
from gateway.http.framing import HEADER_TOKEN

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_LONGEST_SIZE = 256
"""Bytes of the line before a chunk: its size and its extensions, which nobody uses."""
_AT_ONCE = 256
"""Chunks that are read before others are served."""
_FAIR_CHUNK = 64
"""Bytes that a chunk should have beyond its extension, as each costs time."""
_FREE_EXCESS = 262_144
"""Bytes that all chunks together may lack to `_FAIR_CHUNK`."""


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
            if line and not re.fullmatch(rb"%b:[\t\x20-\x7e\x80-\xff]*+" % HEADER_TOKEN, line):
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
