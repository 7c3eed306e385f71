"""A head that is known again is read as if it were new."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.server import HttpLimits
from gateway.errors import GatewayError
from gateway.http.framing import read_head
from gateway.http.head_reader import HeadReader

LINES = [
    b"Host: x",
    b"Content-Length: 12",
    b"content-length: 9",
    b"Content-Length: 123456",
    b"Content-Length: +1",
    b"Content-Length:  7",
    b"Content-Length: 7 ",
    b"Content-Length: 1234567890123456789",
    b"X-Id: 1",
    b"X-Id: 2",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Authorization: Bearer a",
    b"Authorization: Bearer b",
]
heads = st.lists(st.sampled_from(LINES), max_size=5, unique=True).map(
    lambda lines: b"\r\n".join([b"POST /v1/x HTTP/1.1", b"Host: x", *lines, b"", b""])
)
usual = st.integers(0, 10**6).map(
    lambda length: b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
)


def alone(head: bytes) -> object:
    try:
        return read_head(head), len(head)
    except GatewayError as error:
        return error.message


@given(st.lists(heads | usual, max_size=6), st.binary(max_size=20))
def test_sequences_of_heads(sent: list[bytes], behind: bytes) -> None:
    """Whatever came before on the connection and follows it, a head means what it means alone."""
    reader = HeadReader(HttpLimits())
    for head in sent:
        for data in (head + behind, bytearray(head + behind)):
            try:
                found: object = reader.read(data)
            except GatewayError as error:
                found = error.message
            assert found == alone(head)


@given(st.integers(1, 70), usual)
def test_head_in_two_pieces(cut: int, head: bytes) -> None:
    """A head that is known, and arrives in two pieces, is not complete before the second."""
    reader = HeadReader(HttpLimits())
    assert reader.read(head) is not None
    cut = min(cut, len(head) - 1)

    assert reader.read(head[:cut]) is None
    assert reader.read(head) == alone(head)


def test_large_heads_are_not_kept() -> None:
    """What an idle connection keeps of its last head is bounded."""
    reader = HeadReader(HttpLimits())
    for size, kept in ((100, True), (5_000, False)):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nX-A: %b\r\nContent-Length: 1\r\n\r\n" % (b"a" * size)
        assert reader.read(head) is not None
        assert (reader._repeated.find(head) is not None) == kept
