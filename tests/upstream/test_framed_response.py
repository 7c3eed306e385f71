"""The framing of responses, compared with a parser that others wrote, however the network cuts it."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.upstream import framed_response
from gateway.upstream.framed_response import (
    FramingError,
    end_of_head,
    read_response_head,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = st.binary(max_size=40) | st.sampled_from([b"0\r\n\r\n", b"\r\n", b"a" * 300])
EXTENSIONS = st.sampled_from([b"", b"", b"", b";a", b";a=b", b';a="b c"', b";a=b;c"])
TRAILERS = st.sampled_from([b"", b"", b"A: b\r\n", b"A: b\r\nC:\r\n"])


class Reference:
    """What httptools reads of a response."""

    def __init__(self) -> None:
        self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = self.failed = self.keep_alive = self._begun = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.failed = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._begun = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete, self.keep_alive = True, bool(self._parser.should_keep_alive())


class Lenient:
    """What h11 reads of a response in chunks. It ignores whatever stands behind the size of a chunk."""

    def __init__(self, data: bytes) -> None:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(CHUNKED + data)
        event: object = None
        try:
            while not (event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage)):
                event = connection.next_event()
        except h11.RemoteProtocolError:
            event = None
        self.complete, self.failed = isinstance(event, h11.EndOfMessage), event is None


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes cut at these positions."""
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    return [whole[a:b] for a, b in pairwise(places)]


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A body in chunks, with sizes written in any way."""
    parts = []
    for body in draw(st.lists(BODY.filter(bool), max_size=6)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(body)
        parts.append(size + draw(EXTENSIONS) + b"\r\n" + body + b"\r\n")
    return b"".join(parts) + draw(st.sampled_from([b"0", b"00"])) + b"\r\n" + draw(TRAILERS) + b"\r\n"


def read(head: bytes, stream: list[bytes]) -> tuple[bytes, bool, bool]:
    """The body, whether it is complete, and whether it cannot be read."""
    body, found = read_response_head(head).body(), b""
    for piece in stream:
        found += body.take(piece)
        if not body.open:
            break
    return found, not body.open and body.error is None, body.error is not None


@given(chunked(), st.lists(st.integers(0, 400), max_size=12))
def test_chunks_at_any_cut(body: bytes, cuts: list[int]) -> None:
    """Wherever the network cuts a body in chunks, the same bytes are read, and its end is found."""
    reference = Reference()
    reference.feed(CHUNKED + body)

    assert read(CHUNKED, pieces(body, cuts)) == (reference.body, True, False)
    assert reference.complete


@st.composite
def damaged_chunks(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """A body in chunks in which a byte is wrong, and where the network cuts it."""
    body = draw(chunked())
    at = draw(st.integers(0, len(body) - 1))
    byte = draw(st.sampled_from(b'\r\n \t;0gG-+x_\x00\xff"='))
    cuts = draw(st.lists(st.integers(0, 400), max_size=4))
    return body[:at] + bytes([byte]) + body[at + 1 :], [*cuts, at, at + 1]


@given(damaged_chunks())
@example((b"1;=b\r\na\r\n0\r\n\r\n", []))
@example((b"1;\r\na\r\n0 \r\n\r\n", []))
@example((b'1; a = "\r\na\r\n0\r\n\r\n', [2]))
def test_damaged_chunks(given: tuple[bytes, list[int]]) -> None:
    """Where a byte is wrong, what a strict parser reads is read, and fails where a lenient one fails too."""
    damaged, cuts = given
    reference, lenient = Reference(), Lenient(damaged)
    for piece in pieces(damaged, cuts):
        reference.feed(CHUNKED * (not reference.headers) + piece)
        if reference.failed or reference.complete:
            break
    found, complete, failed = read(CHUNKED, pieces(damaged, cuts))
    if not failed:
        assert read(CHUNKED, [damaged])[1] == complete

    assert complete in {reference.complete, lenient.complete}
    assert complete or not reference.complete
    assert failed or not (reference.failed and lenient.failed)
    assert reference.body.startswith(found) or found.startswith(reference.body)


@given(chunked(), st.data(), st.lists(st.integers(0, 400), max_size=4))
def test_chunks_read_by_the_kernel(body: bytes, data: st.DataObject, cuts: list[int]) -> None:
    """The kernel reads whole chunks as Python does, in damaged bodies too."""
    at = data.draw(st.integers(0, len(body) - 1))
    byte = data.draw(st.sampled_from(body[at : at + 1] + b'\r\n \t;0gG-+x_\x00\xff"='))
    stream = pieces(body[:at] + bytes([byte]) + body[at + 1 :], cuts)
    with mock.patch.object(framed_response, "_LARGE", 0):
        by_kernel = read(CHUNKED, stream)

    assert by_kernel == read(CHUNKED, stream)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4), st.binary(max_size=3))
def test_declared_length(body: bytes, cuts: list[int], behind: bytes) -> None:
    """A body of a declared length ends there, and what follows is not a part of it."""
    reader = read_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)).body()
    *before, last = pieces(body, cuts) or [b""]

    assert b"".join(map(reader.take, [*before, last + behind])) == body
    assert not reader.open
    assert reader.rest == behind


LINES = st.lists(
    st.sampled_from(
        [
            *(b"Content-Length: 3", b"content-length: 03", b"Content-Length: +3", b"Content-Length : 3"),
            *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, Chunked", b"A: b", b"a:", b": x"),
            *(b"Connection: close", b"Connection: Keep-Alive", b"X: \xc3\xa9\t", b"X: a\x01"),
            *(b"X: a\nb", b"A b: c"),
        ]
    ),
    max_size=4,
)
FIRST = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 204 No Content"),
        *(b"HTTP/1.1 304 Same", b"HTTP/1.1  200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK"),
        *(b"HTTP/1.1 abc", b"ICY 200 OK", b"HTTP/1.1"),
    ]
)


@given(FIRST, LINES)
@example(b"HTTP/1.1 200 OK", [b"Content-Length: 3", b"Content-Length: 3"])
@example(b"HTTP/1.1 200 OK", [b"Content-Length: 3", b"Transfer-Encoding: chunked"])
@example(b"HTTP/1.1 204 No Content", [b"Connection: close", b"Connection: Keep-Alive"])
def test_heads(first: bytes, lines: list[bytes]) -> None:
    """A head is read as the reference reads it. What that refuses is refused."""
    head = b"".join(line + b"\r\n" for line in [first, *lines, b""])
    reference = Reference()
    reference.feed(head)
    try:
        assert end_of_head(head) == len(head)
        found = read_response_head(head)
    except FramingError:
        assert reference.failed
        return
    assert not reference.failed
    assert found.headers == [(name, value.rstrip(b" \t")) for name, value in reference.headers]
    body = found.body()
    assert body.open != reference.complete
    if not body.open:
        assert found.keep_alive == reference.keep_alive


@pytest.mark.parametrize(
    "head", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\nA: b\n", b"\x15\x03\x01", b"{}"]
)
def test_no_head(head: bytes) -> None:
    """What cannot become a head is refused before its end."""
    with pytest.raises(FramingError):
        end_of_head(head)


@given(st.lists(st.integers(0, 60), max_size=5))
def test_heads_at_any_cut(cuts: list[int]) -> None:
    """The end of a head is found wherever the network cuts it."""
    head, arrived, end = b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\n", b"", 0
    for piece in pieces(head + b"abc", cuts):
        searched, arrived = len(arrived), arrived + piece
        if end := end_of_head(arrived, searched):
            break
    assert end == len(head)


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n", b"zz\r\nab\r\n", b"-1\r\na\r\n", b"0x1\r\na\r\n", b" 1\r\na\r\n"]
)
def test_sizes_that_are_no_numbers(chunk: bytes) -> None:
    """What Python takes for a number need not be one."""
    assert read(CHUNKED, [chunk]) == (b"", False, True)


def test_endless_lines() -> None:
    """Extensions and trailers without end are refused."""
    for endless in (b"1;a=" + b"b" * 200_000, b"0\r\n" + b"A: b\r\n" * 30_000, b"0\r\nA: " + b"b" * 200_000):
        assert read(CHUNKED, pieces(endless, list(range(0, len(endless), 10_000))))[2]
