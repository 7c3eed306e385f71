"""Reads a response up to the commit point: its error, its type, or the first event of its stream."""

from __future__ import annotations

from typing import Literal

from gateway.errors import BackendDisconnected, BackendError
from gateway.openai_api.event_stream import ends_event, is_whole
from gateway.upstream.arriving import HttpResponse
from gateway.upstream.errors import Failure, failure_of

_ERROR_BYTES = 65_536  # the rest of a longer error body is not read
_TYPES = frozenset("text/html text/plain text/event-stream application/json application/octet-stream".split())
_EVENT_BYTES = 1 << 20  # a first event longer than this is passed on before it is complete
_STREAM, _JSON, _BYTES = "text/event-stream", "application/json", "application/octet-stream"

Kind = Literal["stream", "json", "bytes"]
"""What the body of a response is: events, JSON, or the vectors of embeddings."""


def kind_of(response: HttpResponse, *, stream: bool, binary: bool = False) -> Kind:
    """What a response is, whatever was asked for: some backends ignore `stream`, or know nothing else.

    A type that no client of the API can read is refused, such as the page of a proxy.

    stream: what was asked for, and what a response without a type is taken for.
    binary: the endpoint may return bytes, as vLLM returns embeddings with `encoding_format: bytes`.

    Raises: BackendError.
    """
    found = response.header(b"content-type")
    if found == _JSON:
        return "json"
    found = found.lower().partition(";")[0].strip()
    if found == _STREAM or (stream and not found):
        return "stream"
    if not found or found == _JSON or (found.startswith("application/") and found.endswith("+json")):
        return "json"
    if binary and found == _BYTES:
        return "bytes"
    # any other type may quote a prompt, so only its length is told
    seen = found if found in _TYPES else f"a content type of {len(found)} characters"
    hint = ": its URL may be wrong, or a proxy before it asks for a login" if found == "text/html" else ""
    raise BackendError(
        "The backend sent a response of an unexpected content type",
        detail=f"status {response.status}, not {_STREAM if stream else _JSON}, but {seen}{hint}",
        spent=True,
    )


async def first_event(response: HttpResponse) -> bytes:
    """Read a stream until its first event is complete; returns everything read so far.

    Committing earlier gains nothing: no client can use half an event such as `data: {"choices":[{"de`.
    """
    begun = await response.block()
    if not begun or ends_event(begun):
        return begun
    event = bytearray(begun)
    while len(event) < _EVENT_BYTES:
        more = await response.block()
        if not more:
            if is_whole(bytes(event)):
                break
            raise BackendDisconnected("The backend closed the connection before its response was complete")
        end = bytes(event[-2:]) + more  # only this can complete it: searching all again would be quadratic
        event += more
        if ends_event(end):
            break
    return bytes(event)


async def read_failure(response: HttpResponse) -> Failure:
    """The failure that a response with a status of 300 or above reports."""
    after = response.header(b"retry-after")
    body = (await response.read(_ERROR_BYTES))[:_ERROR_BYTES]
    seconds = min(float(after), 3600) if after.isdecimal() else 1
    return failure_of(response.status, body, retry_after=seconds, server=response.header(b"server"))
