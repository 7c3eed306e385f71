"""One HTTP exchange with a client: the body within its limits, one response, and a disconnect."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from random import Random

from starlette.types import Message, Receive, Scope, Send

from gateway.config.server import HttpLimits
from gateway.errors import ClientClosed, GatewayError
from gateway.http.addresses import Networks, client_address
from gateway.http.body_memory import BodyMemory
from gateway.http.headers import PAGE_POLICY, Headers
from gateway.http.outbox import Outbox, UnreadMemory
from gateway.http.request_body import RequestBody

_ids = Random()  # noqa: S311 - request ids are no secret, and urandom is a system call
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

_PATIENCE = 10.0  # seconds in which a client must take a block when there is no room for more
_SECONDS_PER_MEBIBYTE = 60.0  # in which a client must read what is left when its backend has finished

PEER = "thinkmeter.peer"
"""The key under which `HttpProtocol` puts the connection's `Peer` into the ASGI scope."""


def _forget(_: bytes) -> None:
    """What is sent to a client that has left."""


class Peer:
    """The client at the other end of a connection, and the blocks to cancel when it disconnects."""

    def __init__(self) -> None:
        self.gone = False
        self.paused = False
        """The client does not read what was sent to it."""
        self.watchers: list[CancelOnDisconnect] = []
        self.send_now: Callable[[bytes], None] = _forget
        """Sends a part of the body of the response under way, without waiting."""
        self.readers: list[Callable[[], object]] = []
        """Called once when the client reads again, or leaves."""

    def resume(self) -> None:
        """Note that the client reads again."""
        self.paused = False
        readers, self.readers = self.readers, []
        for callback in readers:
            callback()

    def leave(self) -> None:
        """Cancel the watching blocks, because the connection is lost."""
        self.gone, self.send_now = True, _forget
        self.resume()
        for watcher in self.watchers:
            watcher.stop()


class HttpMemory:
    """Memory that the exchanges of a gateway share."""

    def __init__(self, limits: HttpLimits) -> None:
        self.bodies = BodyMemory(limits.bodies_bytes)
        self.unread = UnreadMemory(limits.unread_bytes)


class Exchange:
    """One request and its response, which is started at most once."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limits: HttpLimits,
        *,
        memory: HttpMemory | None = None,
        proxies: Networks = (),
    ) -> None:
        """memory: what all exchanges share. proxies: the networks whose `X-Forwarded-For` is believed."""
        self._scope = scope
        self._proxies = proxies
        self.raw_headers: Headers = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        self.request_id = self._given_request_id() or f"{_ids.getrandbits(128):032x}"
        self._peer: Peer = scope.get(PEER) or Peer()
        self._send = send
        self._limits = limits
        memory = memory or HttpMemory(limits)
        self._body = RequestBody(receive, limits, memory.bodies)
        self._unread = memory.unread
        self._outbox: Outbox | None = None
        """What the client has not read yet of a stream."""
        self.status = 0
        """The status of the response; 0 until it starts."""
        self.error: GatewayError | None = None
        """The error that was sent to the client, or would have been if it had stayed connected."""
        self.started = False
        self.finished = False
        self._streams = False

    @property
    def method(self) -> str:
        """The method of the request, in capital letters."""
        method: str = self._scope["method"]
        return method

    @property
    def peer_address(self) -> str:
        """The client's address: the connection's, or what a trusted proxy tells."""
        client = self._scope.get("client")
        return client_address(client[0] if client else "", self.raw_headers, self._proxies)

    def _given_request_id(self) -> str | None:
        given = self.headers.get(b"x-request-id", b"")
        return given.decode() if _REQUEST_ID.fullmatch(given) else None

    # --- the request -------------------------------------------------------------------------------

    def body(self, most: int | None = None) -> Coroutine[None, None, bytes]:
        """Read the whole request body, which must be JSON; see `RequestBody.read`.

        most: how long it may be, in bytes; default `limits.body_bytes`.
        """
        return self._body.read(self.headers, self._limits.body_bytes if most is None else most)

    async def close(self) -> None:
        """Release the memory that the exchange shares with others."""
        self.release_body()
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None  # it holds the exchange too

    def release_body(self) -> None:
        """Let other bodies be read, because this one is held no longer."""
        self._body.release()

    def cancel_on_disconnect(self) -> CancelOnDisconnect:
        """Cancel the block inside `async with` when the client disconnects.

        Raises: ClientClosed.
        """
        return CancelOnDisconnect(self, self._peer)

    # --- the response ------------------------------------------------------------------------------

    async def start(self, status: int, headers: Headers, *, streams: bool = False) -> None:
        """Send the status and the headers, with ours added; with `streams`, later errors become events."""
        self.started, self._streams = True, streams
        self.status = status
        headers = [*headers, *self._own_headers(status)]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _own_headers(self, status: int) -> Headers:
        headers = [(b"x-request-id", self.request_id.encode())]
        if status == 408 or (status >= 400 and b"expect" in self.headers):  # the body may never come
            headers.append((b"connection", b"close"))
        return headers

    @property
    def paused(self) -> bool:
        """The client does not read what was sent to it."""
        return self._peer.paused

    def send_now(self, block: bytes) -> None:
        """Send a part of a body without waiting."""
        self._peer.send_now(block)

    def call_when_reading(self, callback: Callable[[], object]) -> None:
        """Call once when the client reads again, or leaves."""
        self._peer.readers.append(callback)

    def pass_on(self, block: bytes) -> bool:
        """Send a part of a stream, or keep it while the client does not read.

        Returns whether there is room for more. If there is not, wait for `room` first.
        """
        if self._outbox is None:
            if not self._peer.paused:
                self._peer.send_now(block)
                return True
            self._outbox = Outbox(self, self._unread, _PATIENCE)
        return self._outbox.put(block)

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

    async def finish(self, block: bytes = b"") -> None:
        """Send the last part of a body, after everything that is unread. Raises: ClientClosed."""
        if self._outbox is not None:
            await self._outbox.drain(_SECONDS_PER_MEBIBYTE)
        self.finished = True
        await self._send({"type": "http.response.body", "body": block, "more_body": False})

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole response."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.finish(body)

    async def tell_methods(self, allow: str) -> None:
        """Respond to OPTIONS, without a permission for web pages: those of other origins get none."""
        await self.start(204, [(b"allow", allow.encode()), *PAGE_POLICY])
        await self.finish()

    async def fail(self, error: GatewayError) -> None:
        """Send an error as the response, or as the last event of a stream that has begun.

        Raises: GatewayError.
        """
        self.error = error.detached()
        if isinstance(error, ClientClosed) or self.finished:
            self.status = error.status
            return
        if not self.started:
            await self.respond(error.status, [*error.headers(), *PAGE_POLICY], error.body())
        elif self._streams:
            await self.finish(error.sse())
        else:
            raise error  # half a body cannot be completed: the server closes the connection

    def relay(self, message: Message) -> Message:
        """Track a response that FastAPI sends itself, and add our headers to it."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = message["headers"]
            if not any(name == b"content-security-policy" for name, _ in headers):
                headers = [*headers, *PAGE_POLICY]
            message["headers"] = [*headers, *self._own_headers(message["status"])]
        elif not message.get("more_body"):
            self.finished = True
        return message


class CancelOnDisconnect:
    """See `Exchange.cancel_on_disconnect`. The protocol calls `stop`, so no task has to wait for it."""

    def __init__(self, exchange: Exchange, peer: Peer) -> None:
        self._exchange = exchange
        self._peer = peer
        self._stopped = False

    async def __aenter__(self) -> None:
        if self._peer.gone:
            raise ClientClosed("The client closed the connection")
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not inside a task")
        self._task = task
        self._peer.watchers.append(self)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._peer.watchers.remove(self)
        if self._stopped and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise ClientClosed("The client closed the connection") from None

    def stop(self) -> None:
        """Cancel the block, unless its whole response has been sent."""
        if not self._exchange.finished:
            self._stopped = True
            self._task.cancel()
