"""Writes the head of a response, and the framing of its body. No I/O."""

from __future__ import annotations

from http import HTTPStatus

from gateway.errors import GatewayError
from gateway.http.headers import PAGE_POLICY, Headers

_ALLOWED = bytes({*b"\t", *range(0x20, 0x7F), *range(0x80, 0x100)})
"""Bytes that a header may have."""
_WITHOUT_BODY = frozenset((204, 304))


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in _KNOWN else ""
    return f"HTTP/1.1 {status} {phrase}".encode()


_KNOWN = frozenset(HTTPStatus)
_STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class ResponseFraming:
    """How the bytes of one response are framed."""

    __slots__ = ("chunked", "head", "keep_alive", "left")

    def __init__(
        self,
        status: int,
        headers: Headers,
        *,
        method: str = "POST",
        http10: bool = False,
        keep_alive: bool = True,
        length: int | None = None,
    ) -> None:
        """`headers` have names in lower case. length: of a whole body, which they do not declare.

        Raises: ValueError, if a header has a byte that is not allowed.
        """
        if length is not None:
            headers = [*headers, (b"content-length", b"%d" % length)]
        lines = b"\r\n".join([_STATUS_LINES[status], *map(b": ".join, headers)])
        if lines.translate(None, _ALLOWED) != b"\r\n" * len(headers):
            raise ValueError("a response header has a byte that is not allowed")
        lines += b"\r\n"
        closes = b"\r\nconnection: close\r\n" in lines
        self.left: int | None = None
        """Bytes of the body that are still due; None where the head does not tell."""
        self.chunked = False
        if method == "HEAD":
            self.left = 0
        elif length is not None:
            self.left = 0  # it is sent with the head
        elif (at := lines.find(b"\r\ncontent-length: ")) >= 0:
            self.left = int(lines[at + 18 : lines.index(b"\r", at + 18)])
        elif status in _WITHOUT_BODY:
            self.left = 0
        elif http10:  # knows no chunks: there the response ends with the connection
            keep_alive = False
        else:
            self.chunked = True
            lines += b"transfer-encoding: chunked\r\n"
        self.keep_alive = keep_alive and not closes
        """Whether the connection stays open after the response."""
        self.head = lines + (b"\r\n" if self.keep_alive or closes else b"connection: close\r\n\r\n")
        """The status line and the headers, with the blank line."""

    def part(self, block: bytes) -> bytes:
        """A part of the body as it is sent. Raises: ValueError, if the body is longer than declared."""
        if self.chunked:
            return b"%x\r\n%b\r\n" % (len(block), block) if block else b""
        if self.left is not None:
            if len(block) > self.left:
                raise ValueError("the body of a response is longer than its Content-Length")
            self.left -= len(block)
        return block

    def end(self) -> bytes:
        """What follows the body. Raises: ValueError, if the body is shorter than declared."""
        if self.left:
            raise ValueError("the body of a response is shorter than its Content-Length")
        return b"0\r\n\r\n" if self.chunked else b""


def closing_response(error: GatewayError) -> bytes:
    """The bytes of a response that ends a connection."""
    body = error.body()
    headers = [*error.headers(), *PAGE_POLICY, (b"content-length", b"%d" % len(body))]
    return ResponseFraming(error.status, headers, keep_alive=False).head + body
