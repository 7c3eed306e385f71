"""Reads the body of a request within its limits, and decodes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice

from starlette.types import Message, Receive

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
    """The body of one request."""

    __slots__ = ("_held", "_limits", "_memory", "_receive")

    def __init__(self, receive: Receive, limits: HttpLimits, memory: BodyMemory) -> None:
        self._receive = receive
        self._limits = limits
        self._memory = memory
        self._held = 0
        """Bytes of the body that count in `BodyMemory`."""

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

    async def _received(self, most: int) -> bytes:
        """The bytes as they arrive."""
        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                message = await self._part()
                first: bytes = message.get("body", b"")
                if not message.get("more_body", False) and len(first) <= most:
                    return first
                body = BytesIO()  # a list would cost an object for each part, which may be one byte
                size = body.write(first)
                while message.get("more_body", False) and size <= most:
                    if size > _SMALL:
                        await self._room(size, deadline)
                    message = await self._part()
                    size += body.write(message.get("body", b""))
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

    async def _part(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientClosed("The client closed the connection")
        return message


def _too_large(most: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than {most} bytes")
