"""Questions and answers between a worker and its supervisor, over a socket pair."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

log = logging.getLogger("thinkmeter.workers")

Handle = Callable[[str, bytes], Awaitable[list[bytes]]]
"""Answers a question, given its name and body."""

_LENGTH = 4  # bytes in front of each frame
_ANSWER_SECONDS = 10.0
"""After so long, an answer counts as lost."""


class ChannelError(ConnectionError):
    """The process at the other end has ended, or does not answer."""


class Frame(Struct, array_like=True):
    """A question, or the answer with the same number."""

    number: int
    name: str
    """What the question is about; empty in an answer."""
    bodies: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


class WorkerChannel:
    """One end of a socket pair. Both ends may ask, and each answers while `run` runs."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[list[bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to use the socket in this event loop."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._end)

    async def run(self, handle: Handle) -> None:
        """Answer questions with `handle`, each in a task of its own, until the other end closes."""
        reader = self._reader
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(_LENGTH), "big")
                frame = _decoder.decode(await reader.readexactly(size))
                if frame.name:
                    task = asyncio.create_task(self._answer(frame, handle), name=f"answer-{frame.name}")
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                elif (asked := self._asked.get(frame.number)) and not asked.done():
                    asked.set_result(frame.bodies)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.close()

    async def ask(self, name: str, body: bytes = b"", seconds: float = _ANSWER_SECONDS) -> list[bytes]:
        """Ask the other end, and wait this long for its answer. Raises: ChannelError."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(Frame(number, name, [body]))
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise ChannelError(f"no answer about {name}") from None
        finally:
            del self._asked[number]

    def close(self) -> None:
        """Close this end. Whoever waits for an answer gets none."""
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ChannelError("the other process has ended"))
        for task in self._answering:
            task.cancel()
        if self._writer:
            self._writer.close()

    async def _answer(self, frame: Frame, handle: Handle) -> None:
        try:
            bodies = await handle(frame.name, frame.bodies[0])
            self._send(Frame(frame.number, "", bodies))
        except ChannelError:
            return
        except Exception:
            log.exception("a question about %s was not answered", frame.name)

    def _send(self, frame: Frame) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ChannelError("the other process has ended")
        data = _encoder.encode(frame)
        self._writer.write(len(data).to_bytes(_LENGTH, "big") + data)
