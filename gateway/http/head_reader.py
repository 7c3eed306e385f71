"""Finds the heads in what arrives on a connection, within their limits. No I/O."""

from __future__ import annotations

from gateway.config.server import HttpLimits
from gateway.errors import HeadersTooLarge
from gateway.http.framing import RequestHead, check_beginning, read_head
from gateway.http.repeated_heads import RepeatedHead

_REQUEST_LINE_BYTES = 8_192
"""What the request line may take beside the headers."""
_MOST_REPEATED = 4_096
"""Bytes of a head that is worth its memory while the connection is idle."""


class HeadReader:
    """Reads the heads of one connection, one after the other."""

    __slots__ = ("_limits", "_repeated", "_seen")

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._repeated = RepeatedHead()
        self._seen = 0
        """Bytes of an incomplete head that were searched for its end."""

    def read(self, data: bytes | bytearray) -> tuple[RequestHead, int] | None:
        """The head at the beginning of `data`, and its size in bytes; None if it is not complete.

        Raises: HeadersTooLarge, InvalidRequest.
        """
        if found := self._repeated.find(data):
            self._seen = 0
            return found
        size = self._size(data)
        if size is None:
            return None
        self._seen = 0
        raw = bytes(data[:size])
        head, most = read_head(raw), self._limits.header_bytes
        if len(head.headers) > self._limits.header_count or (size > most and head.header_bytes() > most):
            raise self._too_large()
        self._repeated.remember(raw, head, min(_MOST_REPEATED, most))
        return head, size

    def check(self, data: bytes | bytearray) -> None:
        """Check the head behind a running request, as far as that needs no waiting for its turn.

        Raises: HeadersTooLarge, InvalidRequest.
        """
        if self._size(data) is not None:
            check_beginning(data[:2])  # garbage ends the connection without waiting for the response

    def _size(self, data: bytes | bytearray) -> int | None:
        end = data.find(b"\r\n\r\n", max(0, self._seen - 3))
        if (end if end >= 0 else len(data)) > self._limits.header_bytes + _REQUEST_LINE_BYTES:
            raise self._too_large()
        if end >= 0:
            return end + 4
        check_beginning(data, self._seen)
        self._seen = len(data)
        return None

    def _too_large(self) -> HeadersTooLarge:
        limits = self._limits
        return HeadersTooLarge(
            f"The request has more than {limits.header_count} headers or {limits.header_bytes} bytes of them"
        )
