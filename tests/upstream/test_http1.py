"""The HTTP client, against a server that sends exactly the bytes a test gives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import BackendDisconnected, BackendError, NoBackend
from gateway.upstream.client import HttpClient

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nLate: x\r\n\r\n"
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\nall of it"


class Server:
    """Responds to the n-th request with the n-th of `says`; closes the connection after each if `closes`."""

    def __init__(self, *says: bytes, closes: bool = False) -> None:
        self.says = list(says)
        self.closes = closes
        self.connections = 0
        self.ended = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(1 << 20):
                self.requests.append(data)
                writer.write(self.says.pop(0))
                if self.closes:
                    break
        except ConnectionError:
            pass  # the client closed the connection first
        writer.close()
        self.ended += 1


@asynccontextmanager
async def asking(server: Server, *, keep_alive: float = 4) -> AsyncIterator[tuple[HttpClient, str]]:
    """Start the server; yields a client and the server's address. At the end every connection is closed."""
    client = HttpClient(keep_alive=keep_alive)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        yield client, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client.close()
        async with asyncio.timeout(10):
            while server.ended < server.connections:
                await asyncio.sleep(0.01)


async def ask(client: HttpClient, url: str) -> tuple[int, bytes]:
    answer = await client.request(b"POST", url, "/v1/x", [(b"A", b"1")], b"body", connect=1)
    try:
        return answer.status, await answer.read(1 << 30)
    finally:
        answer.close()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (OK, (200, b"ok")),
        (b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK, (200, b"ok")),
        (CHUNKED, (200, b"ok!")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    ],
    ids=["length", "continue", "chunked", "no-content"],
)
async def test_framing(said: bytes, answer: tuple[int, bytes]) -> None:
    """A body ends where its framing says, and the connection serves the next request."""
    server = Server(said, said)
    async with asking(server) as (client, url):
        assert [await ask(client, url), await ask(client, url)] == [answer, answer]
        assert server.connections == 1


async def test_a_body_without_framing() -> None:
    """It ends where its connection ends, and the next request uses a new connection."""
    server = Server(UNFRAMED, UNFRAMED, closes=True)
    async with asking(server) as (client, url):
        assert [await ask(client, url), await ask(client, url)] == [(200, b"all of it")] * 2
        assert server.connections == 2


async def test_the_request_as_sent() -> None:
    """A request has method, path under the base address, host, our headers, length and body: no more."""
    server = Server(OK)
    async with asking(server) as (client, url):
        await ask(client, url + "/prefix")

    host = url.removeprefix("http://").encode()
    assert b"".join(server.requests) == (
        b"POST /prefix/v1/x HTTP/1.1\r\nHost: " + host + b"\r\nA: 1\r\nContent-Length: 4\r\n\r\nbody"
    )


async def test_trailers_are_no_headers() -> None:
    """Trailers after the body are not returned as headers of the response."""
    async with asking(Server(CHUNKED)) as (client, url):
        answer = await client.request(b"GET", url, "/", [], b"", connect=1)
        await answer.read(1 << 30)

        assert answer.headers == [(b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    "said",
    [OK[:30], OK[:-1], CHUNKED[:-20], b""],
    ids=["in-headers", "in-body", "in-chunk", "before"],
)
async def test_a_connection_that_breaks(said: bytes) -> None:
    """A response that breaks off is never taken for a complete one."""
    async with asking(Server(said, closes=True)) as (client, url):
        with pytest.raises(BackendDisconnected):
            await ask(client, url)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" * 20_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["ssh", "status", "length", "chunk", "headers", "continues", "upgrade"],
)
async def test_no_http(said: bytes) -> None:
    """A response that is not HTTP, or whose headers never end, raises a BackendError with a detail."""
    async with asking(Server(said)) as (client, url):
        with pytest.raises(BackendError) as caught:
            await ask(client, url)

    assert caught.type is BackendError
    assert caught.value.detail


@pytest.mark.parametrize("more", [OK, b"x"], ids=["answer", "garbage"])
async def test_answers_nobody_asked_for(more: bytes) -> None:
    """Bytes after a response end the connection, so that they do not become the next request's response."""
    server = Server(OK + more, OK)
    async with asking(server) as (client, url):
        with contextlib.suppress(BackendError):  # bytes in the same packet spoil the first response as well
            assert await ask(client, url) == (200, b"ok")

        assert await ask(client, url) == (200, b"ok")
        assert server.connections == 2


async def test_late_bytes_on_an_idle_connection() -> None:
    """A connection on which a server sends unrequested bytes is closed before it is used again."""
    server = Server(OK, OK)
    writers: list[asyncio.StreamWriter] = []
    serve = server.serve

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server.serve = keep  # type: ignore[method-assign]
    async with asking(server) as (client, url):
        await ask(client, url)
        writers[0].write(OK)
        async with asyncio.timeout(10):
            while not server.ended:
                await asyncio.sleep(0.01)
        assert await ask(client, url) == (200, b"ok")
        assert server.connections == 2


async def test_idle_connections_are_closed() -> None:
    """After `keep_alive` seconds an idle connection is not used again, and `close_idle` closes it."""
    server = Server(OK, OK, OK)
    async with asking(server, keep_alive=0) as (client, url):
        await ask(client, url)
        await ask(client, url)
        assert server.connections == 2
        client.close_idle()
        async with asyncio.timeout(10):
            while server.ended < 2:
                await asyncio.sleep(0.01)


async def test_connections_are_not_shared() -> None:
    """Two requests at the same time use two connections."""
    server = Server(OK, OK)
    async with asking(server) as (client, url):
        assert await asyncio.gather(ask(client, url), ask(client, url)) == [(200, b"ok")] * 2
        assert server.connections == 2


async def test_closing_early_cuts_the_connection() -> None:
    """Closing an incomplete response closes its connection: the server notices, and nothing is left over."""
    server = Server(OK[:-1], OK)
    async with asking(server) as (client, url):
        answer = await client.request(b"POST", url, "/", [], b"", connect=1)
        answer.close()
        async with asyncio.timeout(10):
            while not server.ended:
                await asyncio.sleep(0.01)
        assert await ask(client, url) == (200, b"ok")


async def test_a_slow_reader_holds_the_server_back() -> None:
    """Only a small part of an unread response is kept in memory; when it is read, it arrives complete."""
    size = 64 << 20
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    async with asking(server) as (client, url):
        answer = await client.request(b"POST", url, "/", [], b"", connect=1)
        await asyncio.sleep(0.2)
        assert answer.kept < 2 << 20
        assert len(await answer.read(1 << 30)) == size


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
async def test_nobody_there(url: str) -> None:
    """A refused connection and an unknown host raise NoBackend."""
    with pytest.raises(NoBackend):
        await HttpClient(keep_alive=4).request(b"GET", url, "/", [], b"", connect=5)


async def test_tls_is_verified() -> None:
    """A server without TLS at an https address raises NoBackend; no request is sent unencrypted."""
    server = Server(OK)
    async with asking(server) as (client, url):
        with pytest.raises(NoBackend):
            await ask(client, url.replace("http", "https"))
    assert not any(b"POST" in request for request in server.requests)


async def test_a_login_in_the_address() -> None:
    """User and password in the address are sent as basic authentication, not as part of the host."""
    server = Server(OK)
    async with asking(server) as (client, url):
        await ask(client, url.replace("//", "//me:a%20b@"))
    assert b"\r\nAuthorization: Basic bWU6YSBi\r\n" in server.requests[0]
    assert b"@" not in server.requests[0]
