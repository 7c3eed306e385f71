"""The connection to a client: strict framing, limits on size and time, and OpenAI's errors.

uvicorn opens the sockets. Its parser accepts ambiguous requests, and sets no time limit for the headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.errors import GatewayError, RequestTimeout
from gateway.http.body_framing import ChunkedBody, LengthBody
from gateway.http.connections import Connections
from gateway.http.errors import TooManyConnections
from gateway.http.exchange import Exchange
from gateway.http.flow import HIGH_WATER, WatchedReading
from gateway.http.framing import RequestHead, empty_lines
from gateway.http.head_reader import HeadReader
from gateway.http.headers import Headers
from gateway.http.lazy_timer import LazyTimer
from gateway.http.request_body import RequestBody
from gateway.http.response_framing import closing_response
from gateway.http.terms import HttpTerms

_SMALL = 4_096
"""Bytes that are copied faster than they are kept track of."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpProtocol(asyncio.Protocol):
    """A client's connection: reads one request after the other, each when the last response is complete."""

    transport: asyncio.Transport
    gone = False
    paused = False
    _exchange: Exchange | None = None
    """The request whose response is not complete."""
    _body: LengthBody | ChunkedBody | None = None
    """The framing of the body that is arriving; None between requests."""
    _unread: bytes | bytearray = b""
    """What has arrived and was not used yet: an incomplete head, or requests behind the running one."""
    _undeclared = False
    """The running request should have a body, and declares none."""
    _stalled: asyncio.TimerHandle | None = None
    """The timer that runs while the client leaves its response unread."""
    _idle = False
    """The deadline is that of a connection without a request."""
    _expects = False
    """The client waits for a 100 before it sends its body."""

    def __init__(
        self,
        answer: Callable[[Exchange], Coroutine[Any, Any, None]],
        terms: HttpTerms,
        connections: Connections,
        stall_seconds: Callable[[], float],
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        **_: object,
    ) -> None:
        """answer: serves one request, whatever happens. connections: all those of the gateway.

        stall_seconds: how long a client may leave its response unread. The others are uvicorn's.
        """
        self._answer = answer
        self._terms = terms
        self._all = connections
        self._stall_seconds = stall_seconds
        self._state = server_state
        self._idle_seconds = config.timeout_keep_alive
        self._heads = HeadReader(self._terms.limits)
        self._readers: list[Callable[[], object]] = []
        """What is called when the client reads again."""

    # --- for uvicorn and its event loop ------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._loop = loop = asyncio.get_running_loop()
        self.transport = transport
        self.local_address, self.remote_address = get_local_addr(transport), get_remote_addr(transport)
        self.peer_host = self.remote_address[0] if self.remote_address else ""
        self._reading = WatchedReading(transport, loop)
        self._deadline = LazyTimer(loop)
        self._state.connections.add(self)  # type: ignore[arg-type]
        if self._all.add(self):
            self._wait_for_head()
        else:
            self._refuse(TooManyConnections("The gateway has no room for another connection", retry_after=1))

    def connection_lost(self, _: Exception | None) -> None:
        self.gone = True
        self._state.connections.discard(self)
        self._all.remove(self)
        self._deadline.stop()
        self._reading.stop()
        self._unread, self._body = b"", None
        self.resume_writing()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnected()

    def eof_received(self) -> None:
        """A client that closes its sending side has left."""

    def pause_writing(self) -> None:
        self.paused = True
        # otherwise a client that stops reading could keep its slot and delay a shutdown indefinitely
        self._stalled = self._loop.call_later(self._stall_seconds(), self.transport.abort)

    def resume_writing(self) -> None:
        self.paused = False
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        readers, self._readers = self._readers, []
        for callback in readers:
            callback()

    def shutdown(self) -> None:
        """Close the connection, after the running response."""
        if self._exchange is None:
            self.transport.close()
        else:
            self._exchange.keep_alive = False

    # --- for the exchange, and the bounds of all connections ---------------------------------------

    def call_when_reading(self, callback: Callable[[], object]) -> None:
        """Call once when the client reads again, or leaves."""
        self._readers.append(callback)

    def default_headers(self) -> Headers:
        """The date, which uvicorn renews every second."""
        return self._state.default_headers

    def responded(self) -> None:
        """Let the next request begin."""
        self._exchange = None
        if self.gone or self.transport.is_closing():
            return
        self._all.end(self)
        self._reading.resume()
        self._wait_for_next()
        if self._unread or self._body is not None:
            self._not_idle()
            self._all.turns.wait(self._read, self._loop.call_soon)

    def evict(self) -> None:
        """Close the connection in favour of others."""
        self._deadline.stop()
        self.transport.abort()

    # --- reading -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._not_idle()
        if not self._unread:
            self._unread = data
        else:
            if isinstance(self._unread, bytes):
                self._unread = bytearray(self._unread)
            self._unread += data
        self._read()

    def _read(self) -> None:
        """Use what has arrived, as far as it is complete."""
        running = self._exchange is not None
        try:
            while self._unread and not self.transport.is_closing() and self._step():
                pass
        except GatewayError as error:
            self._refuse(error)
        if self.transport.is_closing():
            self._unread = b""
        self._all.hold(self, len(self._unread))
        if self._exchange is not None:
            if running and len(self._unread) > HIGH_WATER:
                self._reading.pause()
        elif (self._unread or not self._idle) and not self.transport.is_closing():
            self._wait_for_head()

    def _step(self) -> bool:
        """Use the next part of what has arrived; False if more is needed, or the response must end first."""
        if self._body is not None:
            return self._read_body(self._body)
        if self._undeclared and self._exchange is not None:
            return False  # this may be its body: it gets its answer, an error, before that is read
        if self._unread[:1] == b"\r":  # RFC 9112, 2.2: empty lines before a request are ignored
            self._use(empty_lines(self._unread))
        if self._exchange is not None:
            self._heads.check(self._unread)
            return False
        if (found := self._heads.read(self._unread)) is None:
            return False
        self._begin(*found)
        return True

    def _use(self, size: int) -> None:
        """Forget the first bytes of what has arrived."""
        unread = self._unread
        if len(unread) - size > _SMALL and isinstance(unread, bytes):
            self._unread = unread = bytearray(unread)  # which forgets its beginning in constant time
        if isinstance(unread, bytes):
            self._unread = unread[size:]
        else:
            del unread[:size]

    def _read_body(self, framing: LengthBody | ChunkedBody) -> bool:
        """Pass on the bytes of a body; False if the rest is needed to go on."""
        part, used = framing.take(self._unread)
        self._use(used)
        exchange = self._exchange
        if part and exchange is not None and exchange.incoming.feed(part) > HIGH_WATER:
            self._reading.pause()
        if framing.done:
            self._body = None
            if exchange is None:
                self._wait_for_next()
            else:
                exchange.incoming.end()
                self._reading.resume()  # nobody will ask for more, and the client's leaving must be seen
        elif framing.interrupted:
            self._all.turns.wait(self._read, self._loop.call_soon)
            return False
        return bool(used)

    def _begin(self, head: RequestHead, size: int) -> None:
        """Start the request whose head has so many bytes. Its body follows, if it has not arrived yet."""
        self._deadline.clear()
        self._all.begin(self)
        unread, length = self._unread, head.length
        end = size + (length or 0)
        complete = length is not None and len(unread) >= end
        if complete:
            arrived = bytes(unread[size:end])
            self._use(end)
        else:
            arrived = b""
            self._use(size)
            limit = self._terms.limits.header_bytes
            self._body = ChunkedBody(limit) if length is None else LengthBody(length)
        self._expects = head.expects_continue and not complete
        self._undeclared = length == 0 and head.method == "POST"
        memory = self._terms.memory.bodies
        body = RequestBody(arrived, self._terms.limits, memory, complete=complete, want=self._want_body)
        exchange = Exchange(self, head, body, self._terms)
        task = self._loop.create_task(self._answer(exchange))
        self._exchange, exchange.task = exchange, task
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _want_body(self) -> None:
        """The request waits for more of its body."""
        if self._expects and self._exchange and not self._exchange.started:
            self._expects = False
            self.transport.write(_CONTINUE)
        self._reading.resume()

    # --- refusing ----------------------------------------------------------------------------------

    def _wait_for_head(self) -> None:
        """Give the client so much time for the next head, from its first byte on."""
        if self._idle or not self._deadline.running:
            self._idle = False
            self._deadline.set(self._terms.limits.header_seconds, self._give_up)

    def _wait_for_next(self) -> None:
        """Let the connection be idle for as long as it may."""
        self._idle = True
        self._deadline.set(self._idle_seconds, self.transport.close)

    def _not_idle(self) -> None:
        self._idle = False
        self._deadline.clear()

    def _give_up(self) -> None:
        seconds = self._terms.limits.header_seconds
        self._refuse(RequestTimeout(f"No complete request within {seconds:g} s"))

    def _refuse(self, error: GatewayError) -> None:
        """Respond with an error, where the client would take it for that of this request, and close."""
        self._deadline.clear()
        if self.transport.is_closing():
            return
        if self._owes_response():
            self.transport.write(closing_response(error))
        self.transport.close()

    def _owes_response(self) -> bool:
        """Whether the client would read bytes written now as the response to the refused request."""
        if self._body is None:
            return self._exchange is None
        return self._exchange is not None and not self._exchange.started
