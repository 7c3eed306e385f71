"""Reads a response up to the commit point: its error, its type, or the first event of its stream."""

from __future__ import annotations

from gateway.errors import BackendDisconnected, BackendError
from gateway.upstream.errors import Failure, failure_of
from gateway.upstream.http1 import HttpResponse

_ERROR_BYTES = 65_536  # the rest of a longer error body is not read
_TYPES = frozenset("text/html text/plain text/event-stream application/json application/octet-stream".split())
_EVENT_BYTES = 1 << 20  # a first event longer than this is passed on before it is complete


def check_content_type(response: HttpResponse, *, stream: bool) -> None:
    """Refuse a response that is not of the type that was asked for. Raises: BackendError."""
    expected = "text/event-stream" if stream else "application/json"
    found = response.header(b"content-type")
    if not found.lower().startswith(expected):
        kind = found.partition(";")[0].strip().lower()
        seen = (
            kind if kind in _TYPES else f"a content type of {len(found)} characters"
        )  # it may quote a prompt
        hint = ": its URL may be wrong, or a proxy before it asks for a login" if kind == "text/html" else ""
        raise BackendError(
            "The backend sent a response of an unexpected content type",
            detail=f"status {response.status}, not {expected}, but {seen}{hint}",
            spent=True,
        )


async def first_event(response: HttpResponse) -> bytes:
    """Read a stream until its first event is complete; returns everything read so far.

    Committing earlier gains nothing: no client can use half an event such as `data: {"choices":[{"de`.
    """
    begun = await response.block()
    if not begun or _ends_event(begun):
        return begun
    event = bytearray(begun)
    while len(event) < _EVENT_BYTES:
        more = await response.block()
        if not more:
            raise BackendDisconnected("The backend closed the connection before its response was complete")
        end = bytes(event[-2:]) + more  # only this can complete it: searching all again would be quadratic
        event += more
        if _ends_event(end):
            break
    return bytes(event)


def _ends_event(block: bytes) -> bool:
    """Whether a block holds the empty line that ends an event; lines end with LF or CRLF."""
    return b"\n\n" in block or b"\n\r\n" in block


async def read_failure(response: HttpResponse) -> Failure:
    """The failure that a response with a status of 300 or above reports."""
    after = response.header(b"retry-after")
    body = (await response.read(_ERROR_BYTES))[:_ERROR_BYTES]
    seconds = min(float(after), 3600) if after.isdecimal() else 1
    return failure_of(response.status, body, retry_after=seconds, server=response.header(b"server"))
