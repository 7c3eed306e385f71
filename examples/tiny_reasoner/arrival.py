"""Refuses request bodies that are too large or arrive too slowly."""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 2**20
BODY_SECONDS = 30.0


class Arrival:
    """Refuses a body over `most` bytes with status 413, and one that takes over `seconds` with 408."""

    def __init__(self, app: ASGIApp, most: int = BODY_BYTES, seconds: float = BODY_SECONDS) -> None:
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; reading its body raises the refusal as an exception."""
        due = asyncio.get_running_loop().time() + self._seconds
        left, arriving = self._most, True

        async def watched() -> Message:
            nonlocal left, arriving
            try:
                async with asyncio.timeout_at(due if arriving else None):
                    message = await receive()
            except TimeoutError:
                raise _refused(408, f"The body did not arrive within {self._seconds:g} s.") from None
            left -= len(message.get("body", b""))
            if left < 0:
                raise _refused(413, f"The body is larger than {self._most} bytes.")
            arriving = bool(message.get("more_body", False))
            return message

        await self._app(scope, watched if scope["type"] == "http" else receive, send)


def _refused(status: int, detail: str) -> HTTPException:
    return HTTPException(status, detail, {"connection": "close"})  # do not wait for the rest of the body
