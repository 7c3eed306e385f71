"""One client connection of the fake backend: reads requests and carries out the plan of each response."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import orjson

from tests.fakes.fault import Fault, decode
from tests.fakes.plan import Action, Refused, Stop

if TYPE_CHECKING:
    from tests.fakes.backend import Backend

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class Request:
    """A request that the backend received, and what became of it."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.path = urlsplit(target).path
        self.headers = headers
        """Names in lower case; the values of a repeated header are joined by a comma."""
        self.body = body
        self.fault = Fault()
        self.outcome: Literal["running", "done", "aborted", "broken"] = "running"
        """`aborted`: the client left. `broken`: the backend broke off, as its fault says."""

    def __repr__(self) -> str:
        return f"<{self.method} {self.target} {self.outcome}>"

    @cached_property
    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def streams(self) -> bool:
        return isinstance(self.json, dict) and self.json.get("stream") is True

    @property
    def own_fault(self) -> Fault | None:
        """The fault that the request carries, in the header `x-fault` or in `metadata.fault`."""
        raw: Any = self.headers.get("x-fault")
        if raw is None and isinstance(self.json, dict):
            metadata = self.json.get("metadata")
            raw = metadata.get("fault") if isinstance(metadata, dict) else None
        if raw is None:
            return None
        try:
            return decode(raw) if isinstance(raw, str) else msgspec.convert(raw, Fault)
        except msgspec.ValidationError as broken:
            raise Refused(400, f"bad fault: {broken}") from None


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; pipelined requests wait in a queue."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._request: Request | None = None
        self._keep_alive = True
        self._actions: Iterator[Action] = iter(())
        self._timer: asyncio.Handle | None = None
        self._full = False

    # transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._backend.connections.add(self)
        if self._backend.refuses():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self._transport.close()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._request is not None and self._timer is None:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._backend.connections.discard(self)
        self._end("aborted")
        self._waiting.clear()
        self._backend.changed()

    def reset(self) -> None:
        """Break the connection so that the client sees ECONNRESET."""
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    # parser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._backend.light:
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, target = self._parser.get_method().decode(), self._url.decode("latin-1")
        request = Request(method, target, self._headers, b"".join(self._body))
        self._waiting.append((request, self._parser.should_keep_alive()))
        if self._request is None:
            self._next()

    # responses

    def _next(self) -> None:
        backend = self._backend
        self._request, self._keep_alive = self._waiting.popleft()
        backend.in_flight += 1
        if not backend.light:
            backend.requests.append(self._request)
            backend.changed()
        self._actions = backend.answer(self._request)
        self._go_on()

    def _go_on(self) -> None:
        self._timer = None
        while not self._full and self._request is not None:
            action = next(self._actions, None)
            if action is None:
                self._finished()
            elif isinstance(action, bytes):
                self._transport.write(action)
            elif isinstance(action, float):
                loop = self._loop
                self._timer = loop.call_later(action, self._go_on) if action else loop.call_soon(self._go_on)
                return
            elif self._break_off(action):
                return

    def _break_off(self, stop: Stop) -> bool:
        if stop is Stop.STALL:
            return True
        self._end("broken")
        if stop is Stop.CUT:
            self._transport.close()
        else:
            self.reset()
        return True

    def _finished(self) -> None:
        request = self._request
        self._end("done")
        if not self._keep_alive or (request and request.fault.headers.get("connection") == "close"):
            self._transport.close()
        elif self._waiting:
            self._next()

    def _end(self, outcome: Literal["done", "aborted", "broken"]) -> None:
        """Record how the current request ended, if one is running."""
        request, self._request = self._request, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if request is None:
            return
        request.outcome = outcome
        self._backend.in_flight -= 1
        if outcome == "aborted":
            self._backend.aborted.append(request)
        self._backend.changed()
