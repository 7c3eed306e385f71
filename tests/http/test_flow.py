"""Bytes are sent at once where the connection takes them, and in order where it does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from gateway.http.flow import write_at_once


class Transport(asyncio.Transport):
    """A transport that keeps what it is given, over a real socket or none."""

    def __init__(self, connection: socket.socket | None, *, waiting: int = 0, closing: bool = False) -> None:
        super().__init__({"socket": connection})
        self.kept = b""
        self._waiting, self._closing = waiting, closing

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.kept += data

    def get_write_buffer_size(self) -> int:
        return self._waiting

    def is_closing(self) -> bool:
        return self._closing


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_sent_at_once(pair: Pair) -> None:
    """The other end has the bytes when the function returns, and the transport gets none."""
    transport = Transport(pair[0])
    write_at_once(transport, b"hello")

    assert (pair[1].recv(100), transport.kept) == (b"hello", b"")


def test_the_rest_waits(pair: Pair) -> None:
    """What the connection does not take is left to the transport, and no byte is lost or sent twice."""
    data = bytes(range(256)) * 16_384
    transport = Transport(pair[0])
    write_at_once(transport, data)
    write_at_once(transport, b"")  # a full connection takes nothing

    received = b""
    while len(received) + len(transport.kept) < len(data):
        received += pair[1].recv(1 << 20)
    assert received
    assert transport.kept
    assert received + transport.kept == data


@pytest.mark.parametrize("options", [{"waiting": 3}, {"closing": True}])
def test_never_past_waiting_bytes(pair: Pair, options: dict[str, int]) -> None:
    """Bytes that wait are sent first. The number of a closed socket may be another connection's by now."""
    transport = Transport(pair[0], **options)  # type: ignore[arg-type]
    write_at_once(transport, b"hello")

    assert transport.kept == b"hello"
    with pytest.raises(BlockingIOError):
        pair[1].recv(100)


def test_broken_connection(pair: Pair) -> None:
    """The transport finds out that the client has left."""
    transport = Transport(pair[0])
    pair[1].close()
    write_at_once(transport, b"hello")

    assert transport.kept == b"hello"


def test_without_socket() -> None:
    """A transport of another kind gets all bytes."""
    transport = Transport(None)
    write_at_once(transport, b"hello")

    assert transport.kept == b"hello"
