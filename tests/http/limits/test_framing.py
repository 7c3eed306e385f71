"""What a request's head and the framing of its body may look like, by RFC 9112."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.errors import InvalidRequest
from gateway.http.body_framing import ChunkedBody, LengthBody
from gateway.http.framing import empty_lines, read_head
from tests.http.raw_http import BODY, PATH, assert_error, closed, connect, exchange, read_response
from tests.serving import Running


def head(*headers: str, line: str = f"POST {PATH} HTTP/1.1") -> bytes:
    """A head with these header lines."""
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1")


REFUSED = {
    "no host": head("x: 1"),
    "empty host": head("host:"),
    "two hosts": head("host: a", "host: b"),
    "the same host twice": head("host: a", "Host: a"),
    "two body codings": head("host: a", "content-encoding: gzip", "content-encoding: gzip"),
    "host with a space": head("host: a b"),
    "host with half a bracket": head("host: [::1"),
    "gzip and chunked": head("host: x", "transfer-encoding: gzip, chunked"),
    "chunked twice": head("host: x", "transfer-encoding: chunked, chunked"),
    "two codings": head("host: x", "transfer-encoding: chunked", "transfer-encoding: identity"),
    "another coding": head("host: x", "transfer-encoding: xchunked"),
    "coding behind a control byte": head("host: x", "transfer-encoding: \x0bchunked"),
    "chunks and a length": head("host: x", "transfer-encoding: chunked", "content-length: 5"),
    "chunks in HTTP/1.0": head("transfer-encoding: chunked", line=f"POST {PATH} HTTP/1.0"),
    "two lengths": head("host: x", "content-length: 5", "content-length: 6"),
    "length with a sign": head("host: x", "content-length: +5"),
    "list of lengths": head("host: x", "content-length: 5, 5"),
    "length in hex": head("host: x", "content-length: 0x5"),
    "empty length": head("host: x", "content-length:"),
    "length in other digits": head("host: x", "content-length: \xb2"),
    "two authorizations": head("host: x", "authorization: Bearer a", "authorization: Bearer b"),
    "two keys": head("host: x", "x-api-key: a", "x-api-key: b"),
    "keys that contradict": head("host: x", "x-api-key: a", "authorization: Bearer b"),
    "two types": head("host: x", "content-type: text/plain", "content-type: application/json"),
    "folded header": head("host: x", "x: a\r\n b"),
    "space before the colon": head("host: x", "content-length : 5"),
    "bare line feed": head("host: x", "x: a\ny: b"),
    "bare carriage return": head("host: x", "x: a\rb"),
    "NUL": head("host: x", "x: \x00"),
    "no colon": head("host: x", "abc"),
    "no name": head("host: x", ": abc"),
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2.0": head("host: x", line="GET / HTTP/2.0"),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "two spaces": head("host: x", line="GET  / HTTP/1.1"),
    "authority": head("host: x", line="CONNECT example.com:443 HTTP/1.1"),
    "URL without Host": head(line="GET http://x/ HTTP/1.1"),
    "URL with a bad Host": head("host: a b", line="GET http://x/ HTTP/1.1"),
    "user in a URL": head("host: x", line="GET http://a@x/ HTTP/1.1"),
    "fragment": head("host: x", line="GET /#a HTTP/1.1"),
    "byte over 127 in the path": head("host: x", line="GET /\xff HTTP/1.1"),
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_head_is_refused(sent: bytes) -> None:
    """What a proxy in front of the gateway could read differently is refused."""
    with pytest.raises(InvalidRequest):
        read_head(sent)


@pytest.mark.parametrize(
    "case", ["no host", "two authorizations", "gzip and chunked", "HTTP/0.9", "HTTP/2.0"]
)
async def test_refusal_on_the_wire(tight: Running, case: str) -> None:
    """A refused head gets one 400 in OpenAI's shape, and its connection closes."""
    async with connect(tight.url) as (reader, writer):
        writer.write(REFUSED[case] + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")

        assert_error(await read_response(reader), 400, "invalid_value")
        assert await closed(reader) == b""


@pytest.mark.parametrize(
    ("sent", "word"),
    [(b"\x16\x03\x01\x02\x00", "TLS"), (b"GET /\r\n", "HTTP/1.1"), (b"GET / HTTP/1.1\nHost: x", "CR LF")],
    ids=["TLS", "HTTP/0.9", "line feed"],
)
async def test_hopeless_beginning_is_not_waited_for(tight: Running, sent: bytes, word: str) -> None:
    """A head that cannot become valid is refused before its end, and the message says why."""
    answer = await exchange(tight.url, sent)

    assert_error(answer, 400, "invalid_value")
    assert word in answer.json["error"]["message"]


def test_head_is_read() -> None:
    """Names are lowered, values trimmed, and the rest is as it was sent."""
    read = read_head(
        head("Host: x:80", "X-A: \t b ", "x-a:", "Expect: 100-Continue", line="BREW /%41?b=c HTTP/1.1")
    )

    assert (read.method, read.path, read.query, read.http10) == ("BREW", b"/%41", b"b=c", False)
    assert read.headers == [(b"host", b"x:80"), (b"x-a", b"b"), (b"x-a", b""), (b"expect", b"100-Continue")]
    assert (read.length, read.keep_alive, read.expects_continue) == (0, True, True)


def test_url_as_target() -> None:
    """A URL in the request line replaces the Host header, as RFC 9112 says."""
    read = read_head(head("host: y", line="GET HTTP://x:80/a?b HTTP/1.1"))

    assert (read.path, read.query, read.headers) == (b"/a", b"b", [(b"host", b"x:80")])
    assert read_head(head("host: y", line="GET http://x HTTP/1.1")).path == b"/"


@pytest.mark.parametrize("connection", ["close", "Keep-Alive, Close"])
def test_connection_closes(connection: str) -> None:
    """`Connection: close` and HTTP/1.0 end a connection."""
    assert not read_head(head("host: x", f"connection: {connection}")).keep_alive
    assert not read_head(head(line="GET / HTTP/1.0")).keep_alive


CHUNKS = b'3;a="b"\r\nabc\r\n0010\r\n0123456789abcdef\r\n0\r\nx: y\r\n\r\n'


def read_in_pieces(body: ChunkedBody | LengthBody, data: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Feed data cut at these places, as it would arrive. Returns the body, and what was left behind it."""
    unread, read = b"", b""
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        unread += data[start:stop]
        while unread and not body.done:
            part, used = body.take(unread)
            read, unread = read + part, unread[used:]
            if not used:
                break
    return read, unread


def test_bodies_in_any_pieces() -> None:
    """However a body is cut on its way, its bytes are the same, and what follows it is left."""
    draw = random.Random(1)
    for _ in range(300):
        data = CHUNKS + b"GET /"
        cuts = sorted(draw.randrange(len(data)) for _ in range(draw.randrange(12)))
        assert read_in_pieces(ChunkedBody(100), data, cuts) == (b"abc0123456789abcdef", b"GET /")
        assert read_in_pieces(LengthBody(7), b"1234567GET /", [draw.randrange(12)])[0] == b"1234567"


@pytest.mark.parametrize(
    "sent",
    [
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"1_0\r\n",
        b"\r\nabc",
        b"3\nabc\n",
        b"2\r\nabc\r\n",
        b"fffffffffffffffff\r\n",
        b"3;" + b"x" * 300,
        b"3;\x00\r\nabc\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n" + b"x: y\r\n" * 100,
        b"0\r\nx: " + b"y" * 200,
        b"1\r\na\r\n" * 20_000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
def test_chunks_are_refused(sent: bytes) -> None:
    """Sizes that are not plain hex, bare line feeds, endless lines and a flood of tiny chunks are refused."""
    with pytest.raises(InvalidRequest):
        taken(ChunkedBody(100), sent)


def taken(body: ChunkedBody, sent: bytes) -> bytes:
    """All that the body takes of what was sent."""
    parts, left = [], sent
    while left:
        part, used = body.take(left)
        parts.append(part)
        left = left[used:]
        if not body.interrupted:
            break
    return b"".join(parts)


@pytest.mark.parametrize(("extension", "served"), [(0, True), (16, True), (250, False)])
def test_long_extensions_count_as_small_chunks(extension: int, served: bool) -> None:
    """Chunks of 200 bytes may come with short extensions, but not forever with long ones."""
    sent = (b"c8;" + b"a" * extension + b"\r\n" + b"x" * 200 + b"\r\n") * 3_000
    body = ChunkedBody(100)
    if served:
        assert len(taken(body, sent)) == 600_000
    else:
        with pytest.raises(InvalidRequest):
            taken(body, sent)


async def test_trailers_and_extensions_are_dropped(tight: Running) -> None:
    """A chunked body with both is served, and the connection goes on."""
    request = head("host: x", "transfer-encoding: Chunked") + b"%x;a=b\r\n%b\r\n0\r\nx: y\r\n\r\n" % (
        len(BODY),
        BODY,
    )
    async with connect(tight.url) as (reader, writer):
        writer.write(request * 2)
        assert [(await read_response(reader)).status for _ in range(2)] == [200, 200]


async def test_http10_gets_no_chunks(tight: Running) -> None:
    """A client of HTTP/1.0 gets a stream without framing, which ends with the connection."""
    body = BODY[:-1] + b', "stream": true}'
    async with connect(tight.url) as (reader, writer):
        writer.write(head(f"content-length: {len(body)}", line=f"POST {PATH} HTTP/1.0") + body)
        answered, _, events = (await closed(reader)).partition(b"\r\n\r\n")

    assert b"transfer-encoding" not in answered.lower()
    assert events.startswith(b"data: ") and events.endswith(b"data: [DONE]\n\n")


def test_empty_lines() -> None:
    """A few whole empty lines in front of a request are skipped. A flood of them is no request."""
    for sent, skipped in (
        (b"", 0),
        (b"\r", 0),
        (b"\n", 0),
        (b"\r\n\r", 2),
        (b"\r\n" * 9 + b"GET /", 18),
        (b"\r\n" * 99, 32),
    ):
        assert empty_lines(sent) == empty_lines(bytearray(sent)) == skipped


async def test_empty_lines_in_pieces(tight: Running) -> None:
    """Empty lines in front of a request are ignored, wherever they are cut, unless there are many."""
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    async with connect(tight.url) as (reader, writer):
        for pieces in ((b"\r", b"\n" + request), (b"\r\n\r", b"\n\r\n" + request), (b"\r\n" * 99, request)):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)
            answer = await read_response(reader)
            assert answer.status == (400 if len(pieces[0]) > 32 else 200)
