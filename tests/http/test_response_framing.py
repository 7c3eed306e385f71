"""The bytes of a response: its head, and the framing of its body."""

from __future__ import annotations

import pytest

from gateway.errors import InternalError
from gateway.http.response_framing import ResponseFraming, closing_response

LENGTH = [(b"content-length", b"5")]
CASES = [
    ({}, LENGTH, b"content-length: 5\r\n", b"hello"),
    ({}, [], b"transfer-encoding: chunked\r\n", b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
    ({"http10": True}, [], b"connection: close\r\n", b"hello"),
    ({"http10": True, "keep_alive": False}, LENGTH, b"content-length: 5\r\nconnection: close\r\n", b"hello"),
    ({"keep_alive": False}, LENGTH, b"content-length: 5\r\nconnection: close\r\n", b"hello"),
    ({}, [*LENGTH, (b"connection", b"close")], b"content-length: 5\r\nconnection: close\r\n", b"hello"),
]


@pytest.mark.parametrize(("options", "headers", "lines", "body"), CASES)
def test_framing(
    options: dict[str, bool], headers: list[tuple[bytes, bytes]], lines: bytes, body: bytes
) -> None:
    """The length is declared, or the body comes in chunks, or HTTP/1.0 ends it with the connection."""
    framing = ResponseFraming(200, headers, **options)

    assert framing.head == b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"
    assert framing.keep_alive == (b"connection: close" not in lines)
    assert framing.part(b"hel") + framing.part(b"") + framing.part(b"lo") + framing.end() == body


@pytest.mark.parametrize(("status", "method"), [(204, "OPTIONS"), (304, "GET"), (200, "HEAD")])
def test_no_body(status: int, method: str) -> None:
    """Responses without a body are not framed, and the connection stays open."""
    framing = ResponseFraming(status, [], method=method)

    assert (framing.chunked, framing.keep_alive, framing.end()) == (False, True, b"")
    assert b"transfer-encoding" not in framing.head


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0", b"a\x7f", b"\r\n\r\nx"])
def test_headers_cannot_be_split(value: bytes) -> None:
    """A header with a line end or another control byte is refused."""
    with pytest.raises(ValueError, match="not allowed"):
        ResponseFraming(200, [(b"x-a", value)])


def test_body_of_another_length() -> None:
    """A body that is longer or shorter than declared is not sent as if it were right."""
    framing = ResponseFraming(200, LENGTH)
    framing.part(b"abc")
    with pytest.raises(ValueError, match="shorter"):
        framing.end()
    with pytest.raises(ValueError, match="longer"):
        framing.part(b"abc")


def test_closing_response() -> None:
    """It has the error, its length, and says that the connection closes."""
    response = closing_response(InternalError("no"))
    head, _, body = response.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert head.endswith(b"\r\nconnection: close")
    assert b"content-length: %d\r\n" % len(body) in head
