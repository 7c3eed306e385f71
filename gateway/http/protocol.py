"""uvicorn's HTTP protocol, with limits on headers and time, and errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.config.server import HttpLimits
from gateway.errors import GatewayError, HeadersTooLarge, InvalidRequest, RequestTimeout
from gateway.http.exchange import PEER, Peer

_FRAMING = (b"content-length", b"transfer-encoding")


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for ever for headers of any size."""

    limits = HttpLimits()
    stall_seconds: Callable[[], float] = staticmethod(lambda: 60.0)
    """How long a client may leave its answer unread."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refusal: GatewayError | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._in_head = False
        self._unparsed = 0
        self._declining = False
        self._behind: list[RequestResponseCycle] = []
        self._peer = Peer()
        self._stalled: asyncio.TimerHandle | None = None
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._read_on()
        for cycle in self._behind:  # uvicorn tells only the last of pipelined requests
            cycle.disconnected = True
            cycle.message_event.set()
        self._peer.leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        # a client that reads nothing must not hold its slot, its error event or a shutdown for ever
        self._stalled = self.loop.call_later(self.stall_seconds(), self.transport.abort)

    def resume_writing(self) -> None:
        self._read_on()
        super().resume_writing()

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def data_received(self, data: bytes) -> None:
        began_before, self._data = self._in_head, data
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._in_head and began_before:
            self._unparsed += len(data)  # of a head still incomplete, which the parser keeps in memory
            if self._unparsed > self.limits.header_bytes + 65_536:
                self._refuse(self._too_large())
                return
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._wait_for_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[PEER] = self._peer  # type: ignore[literal-required]  # ours, beside ASGI's own
        self._in_head = True
        self._size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value)
        if self._size > self.limits.header_bytes or len(self.headers) >= self.limits.header_count:
            self._refusal = self._too_large()
            raise self._refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._in_head, self._unparsed = False, 0
        if self._declining:
            return
        self._behind = [cycle for cycle in self._behind if not cycle.response_complete]
        if self.cycle is not None and not self.cycle.response_complete:
            self._behind.append(self.cycle)
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Decline another protocol, which Java's HTTP client offers with every request.

        The parser stops at the offer, before the body. A new one goes on, told of the body's framing alone.
        """
        stopped = sys.exception()
        rest = self._data[stopped.args[0] :] if isinstance(stopped, httptools.HttpParserUpgrade) else b""
        framing = [name + b": " + value + b"\r\n" for name, value in self.headers if name in _FRAMING]
        self.cycle.more_body = True
        self.parser, self._declining = httptools.HttpRequestParser(self), True
        self.parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))
        self._declining = False
        if rest:
            self.data_received(rest)

    def _too_large(self) -> HeadersTooLarge:
        limits = self.limits
        return HeadersTooLarge(
            f"The request has more than {limits.header_count} headers or {limits.header_bytes} bytes of them"
        )

    def _wait_for_headers(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._refuse(RequestTimeout(f"No complete request within {self.limits.header_seconds:g} s"))

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for anything its parser refuses, our own limits included."""
        self._refuse(self._refusal or InvalidRequest("This is not a valid HTTP/1.1 request"))

    def _refuse(self, error: GatewayError) -> None:
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if not self._owes_answer():
            self.transport.close()
            return
        body = error.body()
        headers = [*error.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = [STATUS_LINE[error.status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self.transport.write(b"".join([*lines, b"\r\n", body]))
        self.transport.close()

    def _owes_answer(self) -> bool:
        """Whether bytes written now would be read as the answer to the request that is refused."""
        if self.cycle is None:
            return True
        if self._in_head:
            return self.cycle.response_complete
        return not self.cycle.response_started and not self.pipeline


def protocol(limits: HttpLimits, stall_seconds: Callable[[], float]) -> type[HttpProtocol]:
    """The protocol under these limits; `stall_seconds` is asked whenever a client stops reading."""
    return type("Protocol", (HttpProtocol,), {"limits": limits, "stall_seconds": staticmethod(stall_seconds)})
