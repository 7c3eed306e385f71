"""A response as it arrives from a backend, and how its body is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.http.headers import Headers
from gateway.openai_api.compiled_events import RepeatedEvents
from gateway.upstream.lane import Lane, Passage, enter

UNREAD_BYTES = 1 << 18
"""With more unread bytes than this, the connection is not read until they are taken."""
_PIECE_OVERHEAD = 64  # bytes that Python needs for each piece of a body


class HttpResponse:
    """One response. After `begun` it has a status and headers; then its body is read in blocks."""

    status = 0
    headers: Headers = []  # noqa: RUF012 - replaced, never changed
    """Names in lower case."""
    complete = False
    """The whole body has arrived."""
    failure: GatewayError | None = None
    waiter: asyncio.Future[bool] | None = None
    kept = 0
    """The size of `blocks` in memory, in bytes."""
    shortcut: Callable[[bytes], bytes] | None = None
    """Takes chunks of the body as they come, with their framing. Returns the rest, for the receiver.

    It is called between chunks, while there is a receiver.
    """
    _lane: Lane | None = None
    """Where events pass in C."""
    _passage: Passage | None = None
    _unsent: Callable[[bytes], None] | None = None
    _receiver: Callable[[bytes], bool] | None = None
    _most = 0
    """Bytes that the receiver takes at once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.blocks: list[bytes] = []
        """Parts of the body that have arrived and have not been read yet."""
        self._transport = transport

    def header(self, name: bytes) -> str:
        """The first value of a header, or an empty string."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""

    async def begun(self) -> None:
        """Wait for the status and the headers.

        Raises: BackendDisconnected, BackendError.
        """
        while not self.status:
            await self._arrival()

    async def block(self) -> bytes:
        """Wait for more of the body; returns all that has arrived, or b"" at the end and when interrupted.

        Raises: BackendDisconnected, BackendError.
        """
        while not self.blocks and not self.complete:
            if await self._arrival():
                break
        return self._arrived()

    async def receive(self, receiver: Callable[[bytes], bool], most: int) -> bytes:
        """Have a function called with the body as it arrives, in the same turn of the event loop.

        That ends with the body, when `receiver` returns False, with an interruption, or when more than `most`
        bytes have arrived at once. These are returned.

        Raises: BackendDisconnected, BackendError, and what `receiver` raises.
        """
        try:
            while not self.blocks and not self.complete:
                self._receiver, self._most = receiver, most
                if await self._arrival():
                    break
        finally:
            self._receiver = None
            if self._lane and self._passage:
                self._resume(self._lane.leave(self._passage))
        return self._arrived()

    @property
    def receives(self) -> bool:
        """A function takes the body as it arrives."""
        return self._receiver is not None

    def divert(
        self,
        client: asyncio.Transport,
        events: RepeatedEvents,
        beginning: bytes,
        unsent: Callable[[bytes], None],
    ) -> bool:
        """Have events that repeat others passed to a client in C, until anything else comes.

        See `lane.enter`. The end of `receive` ends that too. `shortcut` may call this.

        beginning: of a chunk whose rest is still to come.
        unsent: called with bytes that the client has not taken, before anything else is received.

        Returns whether it is done.
        """
        if self._receiver is None:
            return False
        entered = enter(self._transport, client, events, beginning, self._come_back)
        if entered:
            self._unsent = unsent
            self._lane, self._passage = entered
            self._transport.pause_reading()
        return entered is not None

    @property
    def diverted(self) -> Passage | None:
        """The latest time that events passed in C."""
        return self._passage

    def _come_back(self, unsent: bytes, rest: bytes) -> None:
        if unsent and self._unsent:
            self._unsent(unsent)
        self._resume(rest)

    def _resume(self, rest: bytes) -> None:
        """Receive what arrives, after what remained in C."""
        self._lane = self._unsent = None
        transport = self._transport
        if not transport.is_closing():
            transport.resume_reading()
            if rest:
                transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]

    def deliver(self, body: bytes) -> None:
        """Take a part of the body from the connection."""
        receiver = self._receiver
        if receiver is None or len(body) > self._most:
            self._receiver = None
            self.blocks.append(body)
            self.kept += len(body) + _PIECE_OVERHEAD
            self.wake()
            return
        try:
            if receiver(body):
                return
        except Exception as error:  # noqa: BLE001 - it belongs to the task that waits
            self._receiver = None
            if self.waiter and not self.waiter.done():
                self.waiter.set_exception(error)
            return
        self._receiver = None
        self.interrupt()

    def wake(self) -> None:
        """Let the task go on that waits for the response."""
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(False)

    def _arrived(self) -> bytes:
        """Everything that has arrived and has not been read yet."""
        if not self.blocks:
            return b""
        block = self.blocks[0] if len(self.blocks) == 1 else b"".join(self.blocks)
        self.blocks.clear()
        if self.kept > UNREAD_BYTES and not (self.complete or self.failure):
            self._transport.resume_reading()
        self.kept = 0
        return block

    @property
    def at_end(self) -> bool:
        """The whole body has arrived and has been read."""
        return self.complete and not self.blocks

    async def read(self, most: int) -> bytes:
        """Read the rest of the body, but stop after the block that exceeds `most` bytes.

        Raises: BackendDisconnected, BackendError.
        """
        if self.complete:
            return self._arrived()
        blocks, size = [], 0
        while size <= most and (block := await self.block()):
            blocks.append(block)
            size += len(block)
        return b"".join(blocks)

    def interrupt(self) -> None:
        """Let `block` return b"", if it waits for a body that does not come."""
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(True)

    def fail(self, failure: GatewayError) -> None:
        """Let whoever waits for more of the response get this error."""
        self.failure = failure
        self.wake()

    async def _arrival(self) -> bool:
        """Wait until something has arrived. Returns whether nothing has, as the wait was interrupted."""
        if self.failure:
            raise self.failure.detached()
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            return await self.waiter
        finally:
            self.waiter = None

    def close(self) -> None:
        """Cut the connection if the response is not complete, which tells the backend to stop."""
        if not self.complete:
            self._transport.abort()
