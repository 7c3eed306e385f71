"""Connections of the HTTP/1.1 client for backends, and the responses on them. It parses with httptools.

A general client costs twice as much per request (docs/decisions/0002). This one leaves out what a gateway to
inference servers does not need: redirects, cookies, proxies, compression, pipelining. It raises the gateway's
own errors only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import httptools

from gateway.errors import BackendDisconnected, BackendError, GatewayError
from gateway.http.headers import Headers
from gateway.upstream.causes import Cause
from gateway.upstream.connecting import lost_cause

_WINDOW = 1 << 18  # with more unread bytes than this, the connection is not read until they are taken
_HEADER_BYTES = 1 << 16
_FRAMING_BYTES = 1 << 17  # between two pieces of a body: headers, chunk sizes with extensions, trailers
_PIECE_OVERHEAD = 64  # bytes that Python needs for each piece of a body
_CLOSING_SECONDS = 0.1  # if a server closes an idle connection just as it is used, it shows within this time
_TLS_ALERT = b"\x15\x03"  # how a TLS server begins its response to a request without TLS


class HttpResponse:
    """One response. After `begun` it has a status and headers; then its body is read in blocks."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: Headers = []
        """Names in lower case."""
        self.complete = False
        """The whole body has arrived."""
        self.failure: GatewayError | None = None
        self.waiter: asyncio.Future[bool] | None = None
        self.blocks: list[bytes] = []
        """Parts of the body that have arrived and have not been read yet."""
        self.kept = 0
        """Their size in memory, in bytes."""
        self._connection = connection
        self._receiver: Callable[[bytes], bool] | None = None
        self._most = 0
        """Bytes that the receiver takes at once."""

    def header(self, name: bytes) -> str:
        """The first value of a header, or an empty string."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

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
        return self._arrived()

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
        if self.kept > _WINDOW and not (self.complete or self.failure):
            self._connection.transport.resume_reading()
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
        blocks, size = [], 0
        while size <= most and (block := await self.block()):
            blocks.append(block)
            size += len(block)
        return b"".join(blocks)

    def interrupt(self) -> None:
        """Let `block` return b"", if it waits for a body that does not come."""
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(True)

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
            self._connection.transport.abort()


class Connection(asyncio.Protocol):
    """A connection to a backend, with at most one response under way. The parser calls the `on_…` methods."""

    transport: asyncio.Transport

    def __init__(self, idle: deque[Connection], connections: set[Connection], share: float = 1) -> None:
        """`share` is the part of the usual age that this connection reaches."""
        self.share = share
        self._idle = idle
        self._connections = connections
        self._parser = httptools.HttpResponseParser(self)
        self._response: HttpResponse | None = None
        self._pieces: list[bytes] = []
        """Parts of the body that the parser has found."""
        self._header_bytes = self._framing_bytes = 0
        self._framed = self._ended = self._reusable = False
        self._keep = self._heard = False
        self._asked_at = 0.0
        self._loss: tuple[Exception | None] | None = None
        """What `connection_lost` was called with."""
        self.opened = time.monotonic()
        self.idle_since = 0.0  # until the first response

    def ask(self, head: bytes, body: bytes, *, keep: bool = True) -> HttpResponse:
        """Send a request; the connection must be idle. `keep`: it may be used again after the response."""
        self._response = response = HttpResponse(self)
        self._framed = self._ended = self._heard = False
        self._keep, self._asked_at = keep, time.monotonic()
        self._header_bytes = self._framing_bytes = 0
        if self._loss:  # between its opening and now
            self.connection_lost(*self._loss)
        elif not self.transport.is_closing():
            self.transport.writelines((head, body))
        return response

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # unrequested bytes would be taken for the response to the next request
            self.transport.abort()
            return
        self._framing_bytes += len(data)
        self._heard = True
        begun = response.status
        try:
            self._parser.feed_data(data)
            if self._framing_bytes > _FRAMING_BYTES:  # the parser would keep an endless header in memory
                raise httptools.HttpParserError("too many bytes that belong to no body")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            word = "tls_expected" if data[:2] == _TLS_ALERT else "unreadable"
            cause = Cause(word, f"{type(error).__name__}: {error.__context__ or error}")
            text = "The backend sent a response that cannot be parsed"
            self._break(BackendError(text, detail=cause, spent=True))
            self.transport.abort()
            return
        if self._pieces:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            response.deliver(body)
        if self._ended:
            self._complete(response)
            response.wake()
        elif response.kept > _WINDOW:
            self.transport.pause_reading()
        elif not begun and response.status:
            response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._loss = (exc,)
        self._connections.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        if self._response is None:
            return
        if exc is None and self._response.status and not self._framed:
            # without Content-Length and chunks, the body ends where the connection ends
            self._response.complete = True
            self._response.wake()
        else:
            unused = self.idle_since == 0 and not self._response.headers
            cause = lost_cause(exc, unused_tls=unused and bool(self.transport.get_extra_info("ssl_object")))
            text = "The backend closed the connection before its response was complete"
            waited = time.monotonic() - self._asked_at
            failure = BackendDisconnected(text, detail=cause)
            failure.stale = self.idle_since > 0 and waited < _CLOSING_SECONDS and not self._heard
            self._break(failure)

    def _break(self, failure: GatewayError) -> None:
        if self._response:
            self._response.failure = failure
            self._response.wake()
            self._response = None

    def _complete(self, response: HttpResponse) -> None:
        self._response = None
        response.complete = True
        if self._reusable and self._keep and not self.transport.get_write_buffer_size():
            if response.kept > _WINDOW:
                self.transport.resume_reading()
            self.idle_since = time.monotonic()
            self._idle.append(self)
        else:
            self.transport.close()

    # --- called by the parser -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._ended:
            raise ValueError("two responses to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > _HEADER_BYTES:
            raise ValueError("too many headers")
        self._framed = self._framed or name in {b"content-length", b"transfer-encoding"}
        if self._response and not self._response.status:  # headers after the body are trailers
            self._response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._response and status >= 200:
            self._response.status = status

    def on_body(self, body: bytes) -> None:
        if self._response:
            self._pieces.append(body)
            self._framing_bytes = 0

    def on_message_complete(self) -> None:
        if self._response and self._response.status:
            self._ended, self._reusable = True, self._parser.should_keep_alive()
        elif self._response:  # `100 Continue` or the like: the actual response is still to come
            self._response.headers.clear()
