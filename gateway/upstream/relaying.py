"""Passes the events of a stream from a backend to its client."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from gateway.errors import BackendDisconnected
from gateway.openai_api.event_stream import BLANK_LINES, KEEP_ALIVE
from gateway.openai_api.stream import StreamReader
from gateway.upstream.response import UpstreamResponse

_LAST_WORDS = 10.0
"""Seconds after the last finish reason in which a backend sends the usage and the end mark, if it does."""


async def relay_events(
    response: UpstreamResponse,
    reader: StreamReader,
    send: Callable[[bytes], Awaitable[None]],
    *,
    comments: bool,
) -> None:
    """Send what a reader makes of a stream to the client, with a comment line whenever it is silent for long.

    A stream whose answer is complete has ended well, even if the backend breaks off before its end mark, or
    leaves the connection open after it.

    comments: a comment line is sent in a silence, but only between whole events.

    Raises: BackendDisconnected.
    """
    sent = b""
    try:
        async for block in response.blocks(pauses=True):
            if block:
                response.latest = time.perf_counter()
                if events := reader.feed(block):
                    sent = events
                    await send(events)
            elif reader.done or (reader.answered and _silence(response) > _LAST_WORDS):
                break
            elif comments and sent.endswith(BLANK_LINES):
                await send(KEEP_ALIVE)
    except BackendDisconnected:
        if not reader.answered:
            raise
    if events := reader.finish():
        await send(events)
    if not reader.done and not reader.failed:
        raise BackendDisconnected("The backend closed the stream before its end")


def _silence(response: UpstreamResponse) -> float:
    return time.perf_counter() - response.latest
