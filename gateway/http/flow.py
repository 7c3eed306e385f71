"""Stops reading from a client that sends faster than it is read, and still notices that it leaves."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.flow_control import FlowControl

_LOOK_SECONDS = 0.5
"""How often a connection that is not read is looked at."""
_ESTABLISHED = 1
"""Linux's number of the state of a TCP connection that neither side has closed."""


class WatchedFlow(FlowControl):
    """uvicorn's flow control. While nothing is read, the end of the connection is not read either."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._connection = transport
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def pause_reading(self) -> None:
        super().pause_reading()
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more, because the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._connection.is_closing() or not self.read_paused:
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
