"""Receives the body of a request within its limits, and decodes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice

from gateway.config.server import HttpLimits
from gateway.errors import ClientClosed, InvalidJson, RequestTimeout, RequestTooLarge
from gateway.http.body_memory import BodyMemory
from gateway.http.browsers import check_media_type
from gateway.http.content_coding import charset_of, codings_of, decompressed, transcoded

_SMALL = 1 << 18
"""Bytes. A shorter body never waits for room."""
_AT_ONCE = 4
"""Blocks that are decoded on the event loop, which takes a millisecond. A thread decodes the others."""
_BATCH = 16
"""Blocks that a thread decodes before the memory is counted again."""
_OBJECT = b"{"
"""How a JSON object begins. No compressed body of one begins so."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_decoders = ThreadPoolExecutor(2, "bodies")  # few, as each slows the event loop down a little


class RequestBody:
    """The body of one request. The connection feeds it, and the request reads it."""

    __slots__ = ("_arrived", "_held", "_limits", "_lost", "_memory", "_waiting", "_want", "complete")

    def __init__(
        self,
        arrived: bytes,
        limits: HttpLimits,
        memory: BodyMemory,
        *,
        complete: bool,
        want: Callable[[], None] | None = None,
    ) -> None:
        """arrived: what came with the head. complete: that is the whole body.

        want: called whenever the request waits for more.
        """
        self._arrived: bytes | bytearray = arrived
        """What was not read yet."""
        self._limits = limits
        self._memory = memory
        self._want = want
        self._held = 0
        """Bytes of the body that count in `BodyMemory`."""
        self._waiting: asyncio.Future[None] | None = None
        self._lost = False
        self.complete = complete
        """The last byte has arrived."""

    # --- for the connection ------------------------------------------------------------------------

    def feed(self, part: bytes) -> int:
        """Take a part that has arrived. Returns how many bytes were not read yet."""
        if not self._arrived:
            self._arrived = part
        else:
            if isinstance(self._arrived, bytes):
                self._arrived = bytearray(self._arrived)
            self._arrived += part
        self._wake()
        return len(self._arrived)

    def end(self) -> None:
        """Everything has arrived."""
        self.complete = True
        self._wake()

    def lose(self) -> None:
        """The client left, so nothing more arrives."""
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # --- for the request ---------------------------------------------------------------------------

    def whole(self, headers: Mapping[bytes, bytes], most: int) -> bytes | None:
        """The body, if all of it is there and declared to be plain JSON, as usual; else `read` it."""
        body = self._arrived
        if (
            self.complete
            and headers.get(b"content-type") == b"application/json"
            and b"content-encoding" not in headers
            and 2 <= len(body) <= most
            and isinstance(body, bytes)
            and charset_of(body) is None
            and not self._lost
        ):
            self._arrived = b""
            return body
        return None

    async def read(self, headers: Mapping[bytes, bytes], most: int) -> bytes:
        """Read the whole body, which must be JSON, as it was before the client compressed it.

        most: how long it may be, in bytes, compressed or not.

        Raises: UnsupportedMediaType, UnsupportedContentCoding, BrokenContentCoding, RequestTooLarge,
        RequestTimeout, InvalidJson, ClientClosed.
        """
        check_media_type(headers)
        codings = codings_of(headers) if b"content-encoding" in headers else []
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        if self.complete and len(self._arrived) <= most and not self._lost:
            body = self._take()
        else:
            body = await self._received(most)
        if codings and not body.startswith(_OBJECT):  # a proxy that decompresses may leave the header
            body = await self._decoded(decompressed(body, codings, most))
        if not body:
            hint = "" if declared else ". If it has one, send its Content-Length"
            raise InvalidJson(f"The request has no body, where JSON is expected{hint}")
        if (charset := charset_of(body)) is None:
            return body
        if charset == "utf-8-sig":
            return body.removeprefix(_BYTE_ORDER_MARK)
        return await self._decoded(transcoded(body, charset, most))

    def release(self) -> None:
        """Let other bodies be read, because this one is held no longer."""
        if self._held:
            self._memory.release(self)

    async def part(self) -> bytes:
        """What has arrived and was not read yet; empty at the end. Raises: ClientClosed."""
        while not self._arrived and not self.complete:
            await self._more()
        if self._lost:
            raise ClientClosed("The client closed the connection")
        return self._take()

    async def left(self) -> None:
        """Wait until the client leaves."""
        while not self._lost:
            await self._more()

    async def _more(self) -> None:
        """Wait until something happens. Raises: ClientClosed."""
        if self._lost:
            raise ClientClosed("The client closed the connection")
        if self._want is not None:
            self._want()
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _take(self) -> bytes:
        arrived, self._arrived = self._arrived, b""
        return arrived if isinstance(arrived, bytes) else bytes(arrived)

    async def _received(self, most: int) -> bytes:
        """The bytes as they arrive."""
        body, size = BytesIO(), 0  # a list would cost an object for each part, which may be one byte
        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                while size <= most and (self._arrived or not self.complete):
                    if size > _SMALL:
                        await self._room(size, deadline)
                    size += body.write(await self.part())
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {self._limits.body_seconds:g} s") from None
        if size > most:
            raise _too_large(most)
        return body.getvalue()  # without a copy, which would take 33 MB and 25 ms

    async def _decoded(self, blocks: Iterator[bytes]) -> bytes:
        """All blocks of a decoder. It holds the encoded body, which stays counted too."""
        body, encoded = BytesIO(), self._held
        batch = list(islice(blocks, _AT_ONCE))
        body.writelines(batch)
        if len(batch) < _AT_ONCE:
            return body.getvalue()
        loop = asyncio.get_running_loop()
        while batch:
            if body.tell() > _SMALL:
                await self._room(encoded + body.tell())
            batch = await loop.run_in_executor(_decoders, lambda: list(islice(blocks, _BATCH)))
            body.writelines(batch)
        return body.getvalue()

    async def _room(self, size: int, deadline: asyncio.Timeout | None = None) -> None:
        """Count so many bytes. Wait until there is room for them, outside of the time for the body."""
        memory, more = self._memory, size - self._held
        if not memory.has_room(self, more):
            loop = asyncio.get_running_loop()
            left = (deadline.when() or 0.0) - loop.time() if deadline else 0.0
            if deadline:
                deadline.reschedule(None)
            await memory.room(self, more)
            if deadline:
                deadline.reschedule(loop.time() + left)
        memory.take(self, more)
        self._held = size


def _too_large(most: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {most} bytes")
