"""One HTTP exchange with a client: the body within its limits, one response, and a disconnect."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from random import Random
from typing import Protocol

from gateway.errors import ClientClosed, GatewayError, ShuttingDown
from gateway.http.addresses import client_address
from gateway.http.flow import write_at_once
from gateway.http.framing import RequestHead
from gateway.http.headers import PAGE_POLICY, Headers
from gateway.http.outbox import Outbox
from gateway.http.request_body import RequestBody
from gateway.http.response_framing import ResponseFraming
from gateway.http.terms import HttpTerms

_ids = Random()  # noqa: S311 - request ids are no secret, and urandom is a system call
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

_PATIENCE = 10.0  # seconds in which a client must take a block when there is no room for more
_SECONDS_PER_MEBIBYTE = 60.0  # in which a client must read what is left when its backend has finished


class ExchangeConnection(Protocol):
    """The connection of an exchange, as the exchange sees it."""

    transport: asyncio.Transport
    peer_host: str
    """The address at the other end; empty for a socket without addresses."""
    local_address: tuple[str, int | None] | None
    remote_address: tuple[str, int] | None
    gone: bool
    """The connection is lost."""
    paused: bool
    """The client does not read what was sent to it."""

    def call_when_reading(self, callback: Callable[[], object]) -> None:
        """Call once when the client reads again, or leaves."""
        ...

    def default_headers(self) -> Headers:
        """The headers of every response."""
        ...

    def responded(self) -> None:
        """The response of the running exchange is complete, or was given up."""
        ...


class Exchange:
    """One request and its response, which is started at most once."""

    status = 0
    """The status of the response; 0 until it starts."""
    error: GatewayError | None = None
    """The error that was sent to the client, or would have been if it had stayed connected."""
    started = False
    finished = False
    keep_alive: bool
    """Whether the connection stays open after the response."""
    granted: Headers = []  # noqa: RUF012 - replaced, never changed
    """Headers that permit a web page to read the response."""
    _completed = False
    """All of the response was handed to the connection."""
    _streams = False
    _outbox: Outbox | None = None
    """What the client has not read yet of a stream."""
    _framing: ResponseFraming | None = None
    _cancels = False
    """A disconnect cancels the task."""
    task: asyncio.Task[None] | None = None
    """The task that serves the exchange, from its start to `close`."""

    def __init__(
        self, client: ExchangeConnection, head: RequestHead, body: RequestBody, terms: HttpTerms
    ) -> None:
        self.head = head
        self.raw_headers = head.headers
        self.headers = head.named
        self.request_id = (
            self._given_request_id() if b"x-request-id" in self.headers else None
        ) or _ids.randbytes(16).hex()
        self.keep_alive = head.keep_alive
        self.client = client
        self.incoming = body
        self._terms = terms

    @property
    def peer_address(self) -> str:
        """The client's address: the connection's, or what a trusted proxy tells."""
        if not self._terms.proxies:
            return self.client.peer_host
        return client_address(self.client.peer_host, self.raw_headers, self._terms.proxies)

    def _given_request_id(self) -> str | None:
        given = self.headers.get(b"x-request-id")
        return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else None

    # --- the request -------------------------------------------------------------------------------

    def body(self, most: int | None = None) -> Coroutine[None, None, bytes]:
        """Read the whole request body, which must be JSON; see `RequestBody.read`.

        most: how long it may be, in bytes; default `limits.body_bytes`.
        """
        return self.incoming.read(self.headers, self._terms.limits.body_bytes if most is None else most)

    def whole_body(self) -> bytes | None:
        """The request body, if it is plain JSON and has arrived; None if `body` must wait or decode."""
        return self.incoming.whole(self.headers, self._terms.limits.body_bytes)

    def close(self) -> None:
        """Release the memory that the exchange shares with others, and the connection for the next one."""
        self.task = None
        self.incoming.release()
        if not self._completed and not self.client.gone:
            self.client.transport.close()  # the response cannot be completed
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None  # it holds the exchange too

    def release_body(self) -> None:
        """Let other bodies be read, because this one is held no longer."""
        self.incoming.release()

    def cancel_on_disconnect(self) -> None:
        """From now on, cancel the task when the client disconnects before its whole response has been sent.

        Raises: ClientClosed, if it has left already.
        """
        if self.client.gone:
            raise ClientClosed("The client closed the connection")
        self._cancels = True

    def disconnected(self) -> None:
        """The client has left."""
        self.incoming.lose()
        if self._cancels and self.task is not None and not self.finished:
            self.task.cancel()

    def cancellation(self) -> GatewayError:
        """Why the task of the exchange was cancelled."""
        if self.client.gone:
            return ClientClosed("The client closed the connection")
        return ShuttingDown("The gateway is shutting down")

    # --- the response ------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """The client does not read what was sent to it."""
        return self.client.paused

    def call_when_reading(self, callback: Callable[[], object]) -> None:
        """Call once when the client reads again, or leaves."""
        self.client.call_when_reading(callback)

    async def start(self, status: int, headers: Headers, *, streams: bool = False) -> None:
        """Send the status and the headers, with ours added; with `streams`, later errors become events."""
        if self.client.paused:
            await self._read()
        self._streams = streams
        self._write(self._begun(status, headers).head)

    def _begun(self, status: int, headers: Headers, length: int | None = None) -> ResponseFraming:
        """How the response is framed that starts now. length: of the body, if it is whole."""
        own: Headers = [*self.client.default_headers(), *headers, *self.granted]
        own.append((b"x-request-id", self.request_id.encode()))
        if status == 408 or (status >= 400 and b"expect" in self.headers):  # the body may never come
            own.append((b"connection", b"close"))
        head = self.head
        self._framing = framing = ResponseFraming(
            status, own, method=head.method, http10=head.http10, keep_alive=self.keep_alive, length=length
        )
        self.started, self.status = True, status
        return framing

    def send_now(self, block: bytes) -> None:
        """Send a part of the body without waiting, even if the client does not read."""
        framing = self._framing
        if framing is None:
            raise RuntimeError("the response has not started")
        if self.head.method != "HEAD":
            self._write(framing.part(block))

    def pass_on(self, block: bytes) -> bool:
        """Send a part of a stream, or keep it while the client does not read.

        Returns whether there is room for more. If there is not, wait for `room` first.
        """
        if self._outbox is None:
            if not self.client.paused:
                self.send_now(block)
                return True
            self._outbox = Outbox(self, self._terms.memory.unread, _PATIENCE)
        return self._outbox.put(block)

    @property
    def takes_chunks(self) -> bool:
        """Chunks, with their framing, may be written to the client's transport while it reads."""
        return bool(self._framing and self._framing.chunked) and (self._outbox is None or self._outbox.empty)

    async def room(self) -> None:
        """Wait until the client has read enough of what is kept for it. Raises: ClientClosed."""
        if self._outbox is not None:
            await self._outbox.room()

    async def stream(self, block: bytes) -> None:
        """Send a part of a stream. If the client does not read, keep it within the limits.

        Raises: ClientClosed.
        """
        if not self.pass_on(block):
            await self.room()

    async def write(self, block: bytes) -> None:
        """Send a part of a body, as fast as the client reads."""
        if self.client.paused:
            await self._read()
        self.send_now(block)

    async def finish(self, block: bytes = b"") -> None:
        """Send the last part of a body, after everything that is unread. Raises: ClientClosed."""
        if self._outbox is not None:
            await self._outbox.drain(_SECONDS_PER_MEBIBYTE)
        self.finished = True
        if self.client.paused:
            await self._read()
        framing = self._framing
        if framing is None:
            raise RuntimeError("the response has not started")
        if block:
            self.send_now(block)
        self._complete(framing.end())

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response."""
        if self.client.paused:
            await self._read()
        head = self._begun(status, headers, len(body)).head
        self.finished = True
        self._complete(head if self.head.method == "HEAD" else head + body)

    async def tell_methods(self, allow: str) -> None:
        """Respond to OPTIONS, without a permission for web pages: those of other origins get none."""
        await self.start(204, [(b"allow", allow.encode()), *PAGE_POLICY])
        await self.finish()

    async def fail(self, error: GatewayError) -> None:
        """Send an error as the response, or as the last event of a stream that has begun.

        Half a body of another kind cannot be completed: the connection closes.
        """
        self.error, self._cancels = error.detached(), False
        if isinstance(error, ClientClosed) or self.finished:
            self.status = error.status
        elif not self.started:
            await self.respond(error.status, [*error.headers(), *PAGE_POLICY], error.body())
        elif self._streams:
            await self.finish(error.sse())

    def _complete(self, last: bytes) -> None:
        """Send the last bytes, and let the next request of the connection begin."""
        framing, client = self._framing, self.client
        if last and not client.gone:
            write_at_once(client.transport, last)
        self._completed = True
        if framing is None or not framing.keep_alive or not self.keep_alive:
            client.transport.close()
        client.responded()

    def _write(self, data: bytes) -> None:
        if data and not self.client.gone:
            self.client.transport.write(data)

    async def _read(self) -> None:
        """Wait until the client reads again, or leaves."""
        while self.client.paused:
            reads = asyncio.Event()
            self.client.call_when_reading(reads.set)
            await reads.wait()
