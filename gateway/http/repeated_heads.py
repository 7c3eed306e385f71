"""Knows the head of a request again: those of one client often differ in the length alone. No I/O."""

from __future__ import annotations

import re

from msgspec.structs import replace

from gateway.http.framing import RequestHead

_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]{1,18})\r\n", re.IGNORECASE)
_MOST_DIGITS = 18
_LENGTH_NAME = b"content-length"


class RepeatedHead:
    """The last head of a connection that declared a body, if it was small."""

    __slots__ = ("_after", "_before", "_digits", "_head")

    def __init__(self) -> None:
        self._head: RequestHead | None = None
        self._before = self._digits = self._after = b""
        """The bytes of the head: those before its Content-Length, the Content-Length, and the rest."""

    def remember(self, raw: bytes, head: RequestHead, most: int) -> None:
        """Note a valid head and its bytes. It is kept if it can have no other length that makes it `most`."""
        found = _LENGTH.search(raw)
        if found is None or head.length is None or len(raw) + _MOST_DIGITS > most:
            return
        start, end = found.span(1)
        self._before, self._digits, self._after = raw[:start], found[1], raw[end:]
        self._head = head

    def find(self, data: bytes | bytearray) -> tuple[RequestHead, int] | None:
        """The head at the beginning of `data`, and where it ends; None if it is another."""
        head = self._head
        if head is None or not data.startswith(self._before):
            return None
        start = len(self._before)
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        digits = data[start:end]
        if digits != self._digits:
            if not digits.isdigit():
                return None
            head = _with_length(head, bytes(digits))
        return head, end + len(self._after)


def _with_length(head: RequestHead, digits: bytes) -> RequestHead:
    headers = [(name, digits if name == _LENGTH_NAME else value) for name, value in head.headers]
    return replace(head, length=int(digits), headers=headers, named={**head.named, _LENGTH_NAME: digits})
