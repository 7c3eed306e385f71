"""A body is received in the turn of the event loop in which it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from gateway.errors import BackendDisconnected, BackendError
from gateway.upstream.arriving import HttpResponse
from gateway.upstream.http1 import Connection

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def received(
    say: Callable[[Connection], None], take: Callable[[bytes], bool], most: int = 100
) -> tuple[HttpResponse, bytes]:
    """A response whose body is received after it has begun, and what `receive` returns after `say`."""
    connection = Connection(deque(), set())
    connection.connection_made(Mock())
    response = connection.ask(b"", b"")
    connection.data_received(HEAD)
    asyncio.get_running_loop().call_soon(say, connection)
    return response, await response.receive(take, most)


async def test_body_is_received_in_the_turn_in_which_it_arrives() -> None:
    """The function is called while `data_received` runs, and the task waits until the end."""
    taken: list[bytes] = []
    seen: list[int] = []

    def take(block: bytes) -> bool:
        taken.append(block)
        return True

    def say(connection: Connection) -> None:
        for piece in (b"2\r\nok\r\n", b"1\r\n!\r\n3\r\n", b"abc\r\n0\r", b"\n\r\n"):
            connection.data_received(piece)
            seen.append(len(taken))

    response, rest = await received(say, take)

    assert (taken, seen, rest) == ([b"ok", b"!", b"abc"], [1, 2, 3, 3], b"")
    assert response.at_end


async def test_body_is_handed_back_to_the_task() -> None:
    """So it is when very much arrives at once, and when the function wants no more."""
    taken: list[bytes] = []

    def take(block: bytes) -> bool:
        taken.append(block)
        return False

    def much(connection: Connection) -> None:
        connection.data_received(b"c8\r\n" + b"x" * 200 + b"\r\n")
        connection.data_received(b"1\r\ny\r\n")

    def twice(connection: Connection) -> None:
        connection.data_received(b"1\r\na\r\n")
        connection.data_received(b"1\r\nb\r\n")

    assert (await received(much, take))[1] == b"x" * 200 + b"y"
    assert taken == []
    response, rest = await received(twice, take)
    assert (taken, rest, response.at_end) == ([b"a"], b"b", False)


async def test_function_that_fails() -> None:
    """Its error is raised where the body is awaited, and not in the connection."""

    def take(_: bytes) -> bool:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await received(lambda connection: connection.data_received(b"2\r\nok\r\n"), take)


async def test_connection_that_breaks_while_it_is_received() -> None:
    """What has arrived is passed on first, and then the failure is raised."""
    taken: list[bytes] = []

    def take(block: bytes) -> bool:
        taken.append(block)
        return True

    def say(connection: Connection) -> None:
        connection.data_received(b"2\r\nok\r\n2\r\n!")
        connection.connection_lost(None)

    with pytest.raises(BackendDisconnected):
        await received(say, take)
    assert b"".join(taken) == b"ok!"

    taken.clear()
    with pytest.raises(BackendError):
        await received(lambda connection: connection.data_received(b"2\r\nok\r\nzz\r\n"), take)
    assert taken == [b"ok"]
