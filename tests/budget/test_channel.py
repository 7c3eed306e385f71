"""A connection to Redis: replies, timeouts and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.store.channel import Channel, ask


class Server:
    """Answers nothing by itself; the test writes what the server says."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while await reader.read(1_000):
            self.asked.set()
        writer.close()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[Channel]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
    made = Channel(writer, [], ValueError)
    yield made
    made.close()
    while not all(writer.is_closing() for writer in server.writers):
        await asyncio.sleep(0)
    listener.close()


async def answered(server: Server, channel: Channel, *pieces: bytes) -> object:
    """The reply to a command, if the server says this."""
    server.asked.clear()
    task = asyncio.create_task(ask(channel, ("PING",), 10))
    await server.asked.wait()
    for piece in pieces:
        server.writers[-1].write(piece)
        await asyncio.sleep(0)
    return await task


async def test_replies_in_pieces(server: Server, channel: Channel) -> None:
    """A reply may arrive in any pieces, and the next command gets its own."""
    assert await answered(server, channel, b"*2\r\n:", b"1\r\n$2\r", b"\nab\r\n") == [1, b"ab"]
    assert await answered(server, channel, b"+OK\r\n") == b"OK"


async def test_error_replies(server: Server, channel: Channel) -> None:
    """An error is raised, and the connection goes on."""
    with pytest.raises(ValueError, match="ERR no"):
        await answered(server, channel, b"-ERR no\r\n")
    assert await answered(server, channel, b":7\r\n") == 7


async def test_what_does_not_speak_the_protocol(server: Server, channel: Channel) -> None:
    """Another protocol ends the connection."""
    with pytest.raises(Exception, match="Protocol error"):
        await answered(server, channel, b"HTTP/1.1 400 Bad Request\r\n")


async def test_more_than_was_asked(server: Server, channel: Channel) -> None:
    """Two replies to a command end the connection: the next command must not get what is left over."""
    with pytest.raises(ConnectionResetError, match="more than was asked"):
        await answered(server, channel, b":1\r\n:2\r\n")


@pytest.mark.parametrize("said", [b":1\r\n", b":"])
async def test_said_without_a_question(server: Server, channel: Channel, said: bytes) -> None:
    """A reply that nobody asked for, or a part of one, ends the connection."""
    assert await answered(server, channel, b"+OK\r\n") == b"OK"
    assert channel._idle == [channel]
    server.writers[-1].write(said)
    async with asyncio.timeout(5):
        while channel._idle:
            await asyncio.sleep(0)
    assert channel._transport.is_closing()


async def test_lost(server: Server, channel: Channel) -> None:
    """A command under way learns that the server has closed the connection."""
    task = asyncio.create_task(ask(channel, ("PING",), 10))
    await server.asked.wait()
    server.writers[-1].close()
    with pytest.raises(ConnectionResetError):
        await task


async def test_a_shorter_timeout_after_a_longer_one(server: Server, channel: Channel) -> None:
    """Each command has its own time, also when the one before was allowed more."""
    assert await answered(server, channel, b"+OK\r\n") == b"OK"
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError, match="no reply in time"):
            await ask(channel, ("PING",), 0.01)
