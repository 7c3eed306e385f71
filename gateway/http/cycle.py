"""One response on a connection: uvicorn's, and ours where a request is refused before it begins."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.errors import GatewayError
from gateway.http.headers import PAGE_POLICY


class Cycle(RequestResponseCycle):
    """One request and its response. HTTP/1.0 knows no chunks: there the response ends with the connection."""

    _unframed = False
    """The end of the connection is the end of the response."""

    async def send(self, message: Any) -> None:
        if self.scope["http_version"] == "1.0":
            if not self.response_started:
                self._unframed = all(
                    name.lower() != b"content-length" for name, _ in message.get("headers", ())
                )
                self.chunked_encoding = False if self._unframed else None
            elif self._unframed:
                self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    def send_now(self, block: bytes) -> None:
        """Send a part of the body without waiting, although the client may not read."""
        if self.disconnected:
            return
        if self.chunked_encoding:
            block = b"%x\r\n%b\r\n" % (len(block), block)
        elif self.scope["method"] == "HEAD":
            return
        elif not self._unframed:
            if len(block) > self.expected_content_length:
                raise RuntimeError("the body of a response is longer than it was declared to be")
            self.expected_content_length -= len(block)
        self.transport.write(block)


def closing_response(error: GatewayError) -> bytes:
    """The bytes of a response that ends a connection."""
    body = error.body()
    ending = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    headers = [*error.headers(), *PAGE_POLICY, *ending]
    lines = [STATUS_LINE[error.status], *(name + b": " + value + b"\r\n" for name, value in headers)]
    return b"".join([*lines, b"\r\n", body])
