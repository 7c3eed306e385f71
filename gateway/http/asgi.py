"""Lets FastAPI serve an exchange. The hot routes do without it."""

from __future__ import annotations

from typing import Any

from starlette.types import Message

from gateway.errors import ClientClosed
from gateway.http.exchange import Exchange
from gateway.http.headers import PAGE_POLICY


class AsgiExchange:
    """An exchange as an ASGI application sees it."""

    def __init__(self, exchange: Exchange, path: str) -> None:
        """path: that of the request, without %-escapes."""
        self._exchange = exchange
        self._body_ended = False
        head = exchange.head
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if head.http10 else "1.1",
            "server": exchange.client.local_address,
            "client": exchange.client.remote_address,
            "scheme": "http",
            "root_path": "",
            "headers": head.headers,
            "state": {},
            # no body is sent in response to HEAD, whatever the application says
            "method": "GET" if head.method == "HEAD" else head.method,
            "path": path,
            "raw_path": head.path,
            "query_string": head.query,
        }

    async def receive(self) -> Message:
        """The next part of the body, and at last the disconnect."""
        body = self._exchange.incoming
        try:
            if self._body_ended:
                await body.left()
            part = await body.part()
        except ClientClosed:
            return {"type": "http.disconnect"}
        self._body_ended = body.complete
        return {"type": "http.request", "body": part, "more_body": not self._body_ended}

    async def send(self, message: Message) -> None:
        """Send a part of the response, with what every response of the gateway has."""
        exchange = self._exchange
        if message["type"] == "http.response.start":
            headers = list(message["headers"])
            if not any(name == b"content-security-policy" for name, _ in headers):
                headers += PAGE_POLICY
            await exchange.start(message["status"], headers)
        elif message.get("more_body"):
            await exchange.write(message.get("body", b""))
        else:
            await exchange.finish(message.get("body", b""))
