"""Connections of the HTTP/1.1 client for backends.

A general client costs twice as much per request (docs/decisions/0002). This one leaves out what a gateway to
inference servers does not need: redirects, cookies, proxies, compression, pipelining. It raises the gateway's
own errors only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from gateway.errors import BackendDisconnected, BackendError, GatewayError
from gateway.upstream.arriving import UNREAD_BYTES, HttpResponse
from gateway.upstream.causes import Cause
from gateway.upstream.connecting import lost_cause
from gateway.upstream.framed_response import (
    FramedBody,
    FramingError,
    ResponseHead,
    end_of_head,
    read_response_head,
)

_INFORMED_BYTES = 1 << 17  # of heads that announce another one
_CLOSING_SECONDS = 0.1  # if a server closes an idle connection just as it is used, it shows within this time
_TLS_ALERT = b"\x15\x03"  # how a TLS server begins its response to a request without TLS


class Connection(asyncio.Protocol):
    """A connection to a backend, with at most one response under way."""

    transport: asyncio.Transport

    def __init__(self, idle: deque[Connection], connections: set[Connection], share: float = 1) -> None:
        """`share` is the part of the usual age that this connection reaches."""
        self.share = share
        self._idle = idle
        self._connections = connections
        self._response: HttpResponse | None = None
        self._head: ResponseHead | None = None
        self._body: FramedBody | None = None
        """The body under way; None until the head of its response is complete."""
        self._beginning = b""
        """What has arrived of the head."""
        self._informed = 0
        """Bytes of heads that announce another one."""
        self._keep = self._heard = False
        self._asked_at = 0.0
        self._loss: tuple[Exception | None] | None = None
        """What `connection_lost` was called with."""
        self.opened = time.monotonic()
        self.idle_since = 0.0  # until the first response

    def ask(self, head: bytes, body: bytes, *, keep: bool = True) -> HttpResponse:
        """Send a request; the connection must be idle. `keep`: it may be used again after the response."""
        self._response = response = HttpResponse(self.transport)
        self._head = self._body = None
        self._beginning, self._informed = b"", 0
        self._heard = False
        self._keep, self._asked_at = keep, time.monotonic()
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
        self._heard = True
        body = self._body
        if body is not None and response.receives and response.shortcut is not None:
            due = body.due
            if 0 < due < len(data):
                self._read(response, data[:due])
                data, due = data[due:], body.due
            if due == 0 and response.receives and response.shortcut is not None:
                data = response.shortcut(data)
        if data:
            self._read(response, data)

    def _read(self, response: HttpResponse, data: bytes) -> None:
        body, part = self._body, data
        if body is None:
            try:
                part = self._read_head(response, data)
            except FramingError as error:
                self._cannot_read(error, data)
                return
            body = self._body
            if body is None:
                return
        if part:
            part = body.take(part)
        if part:
            response.deliver(part)
        if body.open:
            if response.kept > UNREAD_BYTES:
                self.transport.pause_reading()
        elif body.error or body.rest.strip(b"\r\n"):
            self._cannot_read(body.error or FramingError("more than one response to a request"), data)
        else:
            self._complete(response)

    def _read_head(self, response: HttpResponse, data: bytes) -> bytes:
        """Read the head, if it is complete. Returns what follows it.

        Raises: FramingError.
        """
        searched = len(self._beginning)
        data = self._beginning + data if searched else data.lstrip(b"\r\n")
        while end := end_of_head(data, searched):
            head, data, searched = read_response_head(data[:end]), data[end:], 0
            if head.status >= 200:
                self._beginning = b""
                self._head, self._body = head, head.body()
                response.status, response.headers = head.status, head.headers
                response.wake()
                return data
            self._informed += end  # `100 Continue` or the like: the actual response is still to come
            if self._informed > _INFORMED_BYTES:
                raise FramingError("too many heads of no response")
        self._beginning = data
        return b""

    def _cannot_read(self, error: FramingError, data: bytes) -> None:
        word = "tls_expected" if data[:2] == _TLS_ALERT else "unreadable"
        text = "The backend sent a response that cannot be parsed"
        self._break(BackendError(text, detail=Cause(word, str(error)), spent=True))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._loss = (exc,)
        self._connections.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        if self._response is None:
            return
        if exc is None and self._head and not self._head.declared:
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
        response.wake()
        reusable = self._keep and self._head and self._head.keep_alive
        if reusable and not self.transport.get_write_buffer_size():
            if response.kept > UNREAD_BYTES:
                self.transport.resume_reading()
            self.idle_since = time.monotonic()
            self._idle.append(self)
        else:
            self.transport.close()
