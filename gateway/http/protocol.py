"""uvicorn's HTTP protocol, with limits on headers and time, and with errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.config.server import HttpLimits
from gateway.errors import GatewayError, HeadersTooLarge, InvalidRequest, RequestTimeout
from gateway.http.exchange import PEER, Peer

_FRAMING = (b"content-length", b"transfer-encoding")


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol under limits: by itself it waits indefinitely for headers of any size."""

    limits = HttpLimits()
    stall_seconds: Callable[[], float] = staticmethod(lambda: 60.0)
    """How long a client may leave its response unread."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refusal: GatewayError | None = None
        """Why `on_header` refused the request."""
        self._waiting: asyncio.TimerHandle | None = None
        """The timer that runs while the headers of a request are due."""
        self._in_head = False
        """The parser is between the first byte of a request and the end of its headers."""
        self._unparsed = 0
        """Bytes of incomplete headers, beyond the block that they began in."""
        self._declining = False
        """The parser is reading the head made up by `_decline_upgrade`."""
        self._behind: list[RequestResponseCycle] = []
        """Earlier pipelined requests whose responses are not complete."""
        self._peer = Peer()
        self._stalled: asyncio.TimerHandle | None = None
        """The timer that runs while the client leaves its response unread."""
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._read_on()
        for cycle in self._behind:  # uvicorn tells only the last pipelined request about the disconnect
            cycle.disconnected = True
            cycle.message_event.set()
        self._peer.leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._peer.paused = True
        # otherwise a client that stops reading could keep its slot and delay a shutdown indefinitely
        self._stalled = self.loop.call_later(self.stall_seconds(), self.transport.abort)

    def resume_writing(self) -> None:
        self._read_on()
        self._peer.paused = False
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
            self._unparsed += len(data)  # the parser keeps incomplete headers in memory
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
        # uvicorn calls this while it handles HttpParserUpgrade, for every upgrade that it does not support
        self._decline_upgrade()

    def _decline_upgrade(self) -> None:
        """Ignore an offer to change the protocol, and serve the request as HTTP/1.1.

        Java's HTTP client makes such an offer by default:

            POST /v1/chat/completions HTTP/1.1
            Connection: Upgrade, HTTP2-Settings
            Upgrade: h2c
            Content-Length: 90

            {"model": "qwen3-8b", …

        httptools takes such a request for complete and stops at the blank line, because an accepted upgrade
        would continue in the other protocol. By then uvicorn has started the request, and only the body is
        missing. So a new parser reads on. To know where the body ends, it is first given a made-up head with
        the headers that say so: `POST / HTTP/1.1` and `content-length: 90`.
        """
        offer = sys.exception()
        rest = self._data[offer.args[0] :] if isinstance(offer, httptools.HttpParserUpgrade) else b""
        framing = [name + b": " + value + b"\r\n" for name, value in self.headers if name in _FRAMING]
        self.cycle.more_body = True  # the first parser said that there is none
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
        """Called by uvicorn when the parser fails, which it also does after `on_header` has refused."""
        self._refuse(self._refusal or InvalidRequest("This is not a valid HTTP/1.1 request"))

    def _refuse(self, error: GatewayError) -> None:
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if not self._owes_response():
            self.transport.close()
            return
        body = error.body()
        headers = [*error.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = [STATUS_LINE[error.status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self.transport.write(b"".join([*lines, b"\r\n", body]))
        self.transport.close()

    def _owes_response(self) -> bool:
        """Whether the client would read bytes written now as the response to the refused request."""
        if self.cycle is None:
            return True
        if self._in_head:
            return self.cycle.response_complete
        return not self.cycle.response_started and not self.pipeline


def protocol(limits: HttpLimits, stall_seconds: Callable[[], float]) -> type[HttpProtocol]:
    """The protocol under these limits; `stall_seconds` is called whenever a client stops reading.

    Raises: RuntimeError.
    """
    if not hasattr(HttpToolsProtocol, "_unsupported_upgrade_warning"):
        raise RuntimeError(
            f"uvicorn {uvicorn.__version__} is not supported: it has no _unsupported_upgrade_warning, which "
            "the gateway needs to serve requests that offer an upgrade; install an earlier version"
        )
    return type("Protocol", (HttpProtocol,), {"limits": limits, "stall_seconds": staticmethod(stall_seconds)})
