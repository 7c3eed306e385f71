"""uvicorn's connection to a client, with strict framing, limits on size and time, and OpenAI's errors.

uvicorn's own parser is not used: it accepts what other programs read differently, waits indefinitely for
headers of any size, and keeps several copies of incomplete ones.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.config.server import HttpLimits
from gateway.errors import GatewayError, HeadersTooLarge, RequestTimeout
from gateway.http.connections import Connections
from gateway.http.cycle import Cycle, closing_response
from gateway.http.errors import TooManyConnections
from gateway.http.exchange import PEER, Peer
from gateway.http.flow import WatchedFlow
from gateway.http.framing import ChunkedBody, LengthBody, RequestHead, check_beginning, read_head

_SMALL = 4_096
"""Bytes that are copied faster than they are kept track of."""
_REQUEST_LINE_BYTES = 8_192
"""What the request line may take beside the headers."""


class HttpProtocol(HttpToolsProtocol):
    """A client's connection: reads one request after the other, each when the last response is complete."""

    flow: WatchedFlow
    limits = HttpLimits()
    stall_seconds: Callable[[], float] = staticmethod(lambda: 60.0)
    """How long a client may leave its response unread."""
    open_connections: Connections
    """All connections of the gateway."""
    _undeclared = False  # the running request should have a body, and declares none

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.parser = None  # type: ignore[assignment]
        self.flow = WatchedFlow(transport, self.loop)
        self._unread: bytes | bytearray = b""
        """What has arrived and was not used yet: an incomplete head, or requests behind the running one."""
        self._seen = 0
        """Bytes of the incomplete head that were searched for its end."""
        self._body: LengthBody | ChunkedBody | None = None
        """The body that is arriving; None between requests."""
        self._waiting: asyncio.TimerHandle | None = None
        """The timer that runs while the headers of a request are due."""
        self._stalled: asyncio.TimerHandle | None = None
        """The timer that runs while the client leaves its response unread."""
        self._peer, self.peer_host = Peer(), self.client[0] if self.client else ""
        if self.open_connections.add(self):
            self._wait_for_headers()
        else:
            self._refuse(TooManyConnections("The gateway has no room for another connection", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_connections.remove(self)
        for timer in (self._waiting, self._stalled):
            if timer is not None:
                timer.cancel()
        self.flow.stop()
        self._unread, self._body = b"", None
        self._peer.leave()
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close the connection in favour of others."""
        self._stop_waiting()
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._peer.paused = True
        # otherwise a client that stops reading could keep its slot and delay a shutdown indefinitely
        self._stalled = self.loop.call_later(self.stall_seconds(), self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()
        self._peer.resume()

    # --- reading -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if not self._unread:
            self._unread = data
        else:
            if isinstance(self._unread, bytes):
                self._unread = bytearray(self._unread)
            self._unread += data
        self._read()

    def _read(self) -> None:
        """Use what has arrived, as far as it is complete."""
        try:
            while self._unread and not self.transport.is_closing() and self._step():
                pass
        except GatewayError as error:
            self._refuse(error)
        if self.transport.is_closing():
            self._unread = b""
        self.open_connections.hold(self, len(self._unread))
        if self._running():
            if len(self._unread) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            return
        if self._unread:
            self._unset_keepalive_if_required()
        if self.timeout_keep_alive_task is None:
            self._wait_for_headers()

    def _step(self) -> bool:
        """Use the next part of what has arrived; False if more is needed, or the response must end first."""
        if self._body is not None:
            return self._read_body(self._body)
        if self._undeclared and self._running():
            return False  # this may be its body: it gets its answer, an error, before that is read
        end = self._end_of_head()
        if end < 0:
            return False
        if self._running():
            check_beginning(self._unread[:1])  # garbage ends the connection without waiting for the response
            return False
        self._read_head(end)
        return True

    def _running(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _use(self, size: int) -> None:
        """Forget the first bytes of what has arrived."""
        unread = self._unread
        if len(unread) - size > _SMALL and isinstance(unread, bytes):
            self._unread = unread = bytearray(unread)  # which forgets its beginning in constant time
        if isinstance(unread, bytes):
            self._unread = unread[size:]
        else:
            del unread[:size]

    def _read_body(self, body: LengthBody | ChunkedBody) -> bool:
        """Pass on the bytes of a body; False if the rest is needed to go on."""
        part, used = body.take(self._unread)
        self._use(used)
        if part and not self.cycle.response_complete:
            self.cycle.body += part
            self.cycle.message_event.set()
            if len(self.cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        if body.done:
            self._body = None
            if self.cycle.response_complete:
                self._stop_waiting()
                self._wait_for_next()
            else:
                self.cycle.more_body = False
                self.cycle.message_event.set()
                self.flow.resume_reading()  # nobody will ask for more, and the client's leaving must be seen
        elif body.interrupted:
            self.open_connections.turns.wait(self._read, self.loop.call_soon)
            return False
        return bool(used)

    def _wait_for_next(self) -> None:
        """Let the connection be idle for as long as it may."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _end_of_head(self) -> int:
        """Where the head that comes next ends, before its last line end; -1 if it is not complete.

        Raises: HeadersTooLarge, InvalidRequest.
        """
        while self._unread[:2] == b"\r\n":  # RFC 9112, 2.2: empty lines before a request are ignored
            self._use(2)
        unread = self._unread
        end = unread.find(b"\r\n\r\n", max(0, self._seen - 3))
        if (end if end >= 0 else len(unread)) > self.limits.header_bytes + _REQUEST_LINE_BYTES:
            raise self._too_large()
        if end < 0:
            check_beginning(unread, self._seen)
            self._seen = len(unread)
        return end

    def _read_head(self, end: int) -> None:
        """Begin the request whose head ends there.

        Raises: HeadersTooLarge, InvalidRequest.
        """
        self._seen = 0
        head = read_head(bytes(self._unread[: end + 4]))
        most = self.limits.header_bytes
        if len(head.headers) > self.limits.header_count or (end > most and head.header_bytes() > most):
            raise self._too_large()
        self._use(end + 4)
        self._stop_waiting()
        self.open_connections.begin(self)
        self._begin(head)

    def _begin(self, head: RequestHead) -> None:
        """Start the request; its body follows."""
        path = head.path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.0" if head.http10 else "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": self.root_path,
            "headers": head.headers,
            "state": self.app_state.copy(),
            "method": head.method,
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
        }
        self.scope[PEER] = self._peer  # type: ignore[literal-required]  # ours, beside ASGI's own
        self.cycle = cycle = Cycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=head.keep_alive,
            on_response=self.on_response_complete,
        )
        self._peer.send_now = cycle.send_now
        self._undeclared = head.length == 0 and head.method == "POST"
        if head.length == 0:
            self.cycle.more_body = False
            self.cycle.message_event.set()
        else:
            limit = self.limits.header_bytes
            self._body = ChunkedBody(limit) if head.length is None else LengthBody(head.length)
        self._start_asgi_task(self.cycle, self.app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.open_connections.end(self)
        if not self.transport.is_closing() and (self._unread or self._body is not None):
            self._unset_keepalive_if_required()
            self.open_connections.turns.wait(self._read, self.loop.call_soon)

    # --- refusing ----------------------------------------------------------------------------------

    def _too_large(self) -> HeadersTooLarge:
        limits = self.limits
        return HeadersTooLarge(
            f"The request has more than {limits.header_count} headers or {limits.header_bytes} bytes of them"
        )

    def _wait_for_headers(self) -> None:
        if self._waiting is None and not self.transport.is_closing():
            self._waiting = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._refuse(RequestTimeout(f"No complete request within {self.limits.header_seconds:g} s"))

    def _refuse(self, error: GatewayError) -> None:
        """Respond with an error, where the client would take it for that of this request, and close."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self._owes_response():
            self.transport.write(closing_response(error))
        self.transport.close()

    def _owes_response(self) -> bool:
        """Whether the client would read bytes written now as the response to the refused request."""
        if self._body is None:
            return not self._running()
        return not self.cycle.response_started


def protocol(
    limits: HttpLimits, stall_seconds: Callable[[], float], connections: Connections
) -> type[HttpProtocol]:
    """The protocol under these limits; `stall_seconds` is called whenever a client stops reading."""
    parts = {"limits": limits, "stall_seconds": staticmethod(stall_seconds), "open_connections": connections}
    return type("Protocol", (HttpProtocol,), parts)
