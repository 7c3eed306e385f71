"""Passes streams on from socket to socket in the compiled kernel, where nothing else is to be done with them.

`LaneState` and `Passage` are `Lane` and `Passage` in router_model/native/lane.c.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import resource
import select
import sys
from collections.abc import Callable, Iterable
from ctypes import c_char, c_double, c_int64, c_void_p
from functools import cache

from gateway.openai_api.compiled_events import RepeatedEvents, shared_room
from router_model.native.library import LaneFunctions, kernel

_BLOCK = 1 << 16
_BEGINNING = 1_024
_TURN = 1 << 19  # bytes that pass in one turn of the event loop
_BATCH_BYTES = 256
_lanes: dict[asyncio.AbstractEventLoop, Lane] = {}
"""The lane of each event loop in which streams are."""


class LaneState(ctypes.Structure):
    """The lane of one event loop."""

    _fields_ = (
        *((name, c_int64) for name in ("epoll", "left", "next", "named")),
        *((name, c_void_p) for name in ("block", "out")),
        ("batch", c_char * _BATCH_BYTES),
    )
    epoll: int
    left: int
    next: int
    named: int


class Passage(ctypes.Structure):
    """A stream in the lane. It has sockets of its own, as their numbers must not come to mean others."""

    _fields_ = (
        ("events", c_void_p),
        ("backend", c_int64),
        ("client", c_int64),
        ("latest", c_double),
        ("blocks", c_int64),
        *((name, c_void_p) for name in ("unsent", "rest")),
        *((name, c_int64) for name in ("unsent_size", "rest_size", "begun")),
        ("beginning", c_char * _BEGINNING),
    )
    backend: int
    client: int
    latest: float
    """The performance counter when something passed last."""
    blocks: int
    """How many blocks have passed."""
    unsent: int
    rest: int
    unsent_size: int
    rest_size: int
    begun: int

    def __init__(
        self,
        events: RepeatedEvents,
        backend: int,
        client: int,
        beginning: bytes,
        left: Callable[[bytes, bytes], None],
    ) -> None:
        super().__init__(events.address, backend, client)
        self.begun = len(beginning)
        ctypes.memmove(ctypes.addressof(self) + _BEGINNING_AT, beginning, len(beginning))
        self._events = events
        self.left: Callable[[bytes, bytes], None] | None = left
        """Called when the lane takes the stream out, with what the client has not taken, and what remains."""

    def close(self) -> None:
        """Close its sockets, which are copies."""
        self.left = None  # it leads back here, and only a collection of garbage would free the two
        os.close(self.backend)
        os.close(self.client)


class Lane:
    """The streams of an event loop that pass in C. The event loop watches the epoll that watches them."""

    def __init__(self, functions: LaneFunctions, loop: asyncio.AbstractEventLoop) -> None:
        self._functions = functions
        self._loop = loop
        self._epoll = select.epoll()
        self._state = LaneState(self._epoll.fileno())
        self._state.block, self._state.out = _block(), shared_room()[0]
        self._address = ctypes.addressof(self._state)
        self._passages: dict[int, Passage] = {}
        loop.add_reader(self._epoll.fileno(), self._turn)

    def enter(self, passage: Passage) -> bool:
        """Let a stream in whose client has taken everything. Returns False if it cannot be."""
        address = ctypes.addressof(passage)
        entered = not self._functions.enter(self._address, address)
        if entered:
            self._passages[address] = passage
        else:
            passage.close()
        self._close_if_empty()
        return entered

    def leave(self, passage: Passage) -> bytes:
        """Take a stream out. Returns the beginning of a chunk, if one has arrived without its rest."""
        self._remove(passage)
        return ctypes.string_at(ctypes.addressof(passage) + _BEGINNING_AT, passage.begun)

    def _turn(self) -> None:
        """Pass on what has arrived of all streams, and give back those with something else in them."""
        state, step = self._state, self._functions.step
        state.left = _TURN
        try:
            while self._passages and (address := step(self._address)):
                passage = self._passages[address]
                unsent = ctypes.string_at(passage.unsent, passage.unsent_size)
                rest = ctypes.string_at(passage.rest, passage.rest_size)
                left = passage.left
                self._remove(passage)
                if left:
                    left(unsent, rest)
        finally:
            if self._passages and state.next < state.named:  # an error must not stop the others
                self._loop.call_soon(self._turn)

    def _remove(self, passage: Passage) -> None:
        address = ctypes.addressof(passage)
        self._functions.leave(self._address, address)
        del self._passages[address]
        passage.close()
        self._close_if_empty()

    def _close_if_empty(self) -> None:
        if not self._passages and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            del _lanes[self._loop]


def enter(
    backend: asyncio.Transport,
    client: asyncio.Transport,
    events: RepeatedEvents,
    beginning: bytes,
    left: Callable[[bytes, bytes], None],
) -> tuple[Lane, Passage] | None:
    """Let a stream pass in C from now on, between two chunks, if its connections are plain.

    The client must have taken everything, and nobody else may read from the backend or write to the client
    until the stream has left.

    beginning: of a chunk whose rest is still to come. left: see `Passage`.
    """
    functions = _functions()
    if functions is None or client.get_write_buffer_size() or len(beginning) > _BEGINNING:
        return None
    sockets = _copies(backend, client)
    if sockets is None:
        return None
    loop = asyncio.get_running_loop()
    lane = _lanes.get(loop)
    if lane is None:
        try:
            lane = _lanes[loop] = Lane(functions, loop)
        except OSError:  # no descriptor is left
            _close(sockets)
            return None
    passage = Passage(events, *sockets, beginning, left)
    return (lane, passage) if lane.enter(passage) else None


def _copies(*transports: asyncio.Transport) -> tuple[int, int] | None:
    """Copies of the sockets of two connections, unless they have TLS or few descriptors are free."""
    copies: list[int] = []
    for transport in transports:
        connection = transport.get_extra_info("socket")
        if connection is None or transport.is_closing() or transport.get_extra_info("sslcontext"):
            break
        try:
            copies.append(fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, 0))
        except OSError:
            break
    if len(copies) == len(transports) and max(copies) < _most_descriptors():
        return copies[0], copies[1]
    _close(copies)
    return None


def _close(sockets: Iterable[int]) -> None:
    for each in sockets:
        os.close(each)


@cache
def _most_descriptors() -> int:
    """Descriptors with this number or a higher one are left to connections."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft // 2


@cache
def _functions() -> LaneFunctions | None:
    """The lane in C; None where there is none."""
    found = kernel()
    functions = found.lane if found else None
    sizes = (_BLOCK, _BEGINNING, ctypes.sizeof(Passage))
    return functions if functions and functions.sizes == sizes else None


@cache
def _block() -> int:
    """Room for what is read at once, which all lanes share."""
    room = ctypes.create_string_buffer(_BLOCK + _BEGINNING)
    _kept.append(room)
    return ctypes.addressof(room)


_kept: list[object] = []
_BEGINNING_AT = Passage.beginning.offset
