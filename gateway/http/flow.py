"""Stops reading from a client that sends faster than it is read, and still notices that it leaves."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

HIGH_WATER = 65_536
"""Bytes that may arrive unused before no more are read."""
_LOOK_SECONDS = 0.5
"""How often a connection that is not read is looked at."""
_ESTABLISHED = 1
"""Linux's number of the state of a TCP connection that neither side has closed."""


def write_at_once(transport: asyncio.Transport, data: bytes) -> None:
    """Send bytes before the running task goes on. `transport.write` would send them when it pauses."""
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing() and not transport.get_write_buffer_size():
        with suppress(OSError):  # no room, or a broken connection: the transport finds out too
            data = data[os.write(connection.fileno(), data) :]
    if data:
        transport.write(data)


class WatchedReading:
    """Pauses reading. While nothing is read, the end of the connection is not read either."""

    __slots__ = ("_connection", "_loop", "_paused", "_timer")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = transport
        self._loop = loop
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    def pause(self) -> None:
        if self._paused:
            return
        self._paused = True
        self._connection.pause_reading()
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._connection.resume_reading()

    def stop(self) -> None:
        """Look no more, because the connection is lost."""
        self._paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._connection.is_closing() or not self._paused:
            return
        if _has_left(self._connection.get_extra_info("socket")):
            self._connection.abort()
        else:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)


def _has_left(connection: socket.socket | None) -> bool:
    """Whether the client has closed its side, behind bytes that were not read. Known on Linux only."""
    if connection is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
    except OSError:
        return True
