"""Connections to Redis with one command under way on each, without a task or a lock per command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis

GRACE_TURNS = 5  # turns of the event loop in which to read a reply that arrived just before the timeout
_INCOMPLETE = object()


class Channel(asyncio.Protocol):
    """One connection, already authenticated. A command that gets no reply in time costs the connection."""

    def __init__(
        self, writer: asyncio.StreamWriter, idle: list[Channel], parse_error: Callable[[str], Exception]
    ) -> None:
        """Take over the transport of `writer`. idle: the channels that wait for a command."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer  # kept, because it closes the transport when it is collected
        self._transport = writer.transport
        self._idle = idle
        self._reader = hiredis.Reader(replyError=parse_error, notEnoughData=_INCOMPLETE)
        self._done: Callable[[Any], None] | None = None
        self._ends = 0.0
        """When the command under way times out, by the clock of the event loop."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0
        """When the timer rings: not later than the command under way times out."""
        self._transport.set_protocol(self)

    def ask(self, data: bytes, seconds: float, done: Callable[[Any], None]) -> None:
        """Send a packed command. `done` gets its reply, or the error in its place, also after `seconds`."""
        self._done = done
        self._ends = self._loop.time() + seconds
        if self._timer is None or self._ends < self._rings:  # one timer serves command after command
            self._ring(seconds)
        self._transport.write(data)

    def close(self, error: Exception | None = None) -> None:
        """Drop the connection. A hung server would not answer the goodbye of TLS, so there is none."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self in self._idle:
            self._idle.remove(self)
        self._transport.abort()
        self._end(error or ConnectionResetError("the connection was closed"))

    def _end(self, result: Any) -> None:
        done, self._done = self._done, None
        if done:
            done(result)

    def data_received(self, data: bytes) -> None:
        if self._done is None:  # nobody asked: no later reply would fit its command
            self.close()
            return
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
        except Exception as error:  # noqa: BLE001 - what answers does not speak the protocol of Redis
            self.close(error)
            return
        if reply is _INCOMPLETE:
            return
        if self._reader.has_data():  # two replies to one command: either may be the right one
            self.close(ConnectionResetError("Redis said more than was asked"))
            return
        self._idle.append(self)
        self._end(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(ConnectionResetError(f"Redis closed the connection{f': {exc}' if exc else ''}"))

    def _ring(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._rings = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        if self._done is None:
            return
        left = self._ends - self._loop.time()
        if left > 0:
            self._ring(left)
        else:
            self._give_up(self._ends, GRACE_TURNS)

    def _give_up(self, ends: float, turns: int) -> None:
        """Time out, unless the reply has arrived and was not read because this process was busy."""
        if self._done is None or self._ends != ends:
            return
        if turns:
            self._loop.call_soon(self._give_up, ends, turns - 1)
        else:
            self.close(TimeoutError("no reply in time"))


def pack(*words: Any) -> bytes:
    """A command in the protocol of Redis."""
    packed: bytes = hiredis.pack_command(words)
    return packed


async def ask(channel: Channel, words: tuple[Any, ...], seconds: float) -> Any:
    """The reply of a command. Raises: what the server or the connection answered instead."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(reply: Any) -> None:
        if not future.done():
            future.set_result(reply)

    channel.ask(pack(*words), seconds, done)
    reply = await future
    if isinstance(reply, Exception):
        raise reply
    return reply
