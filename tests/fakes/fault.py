"""What one response of the fake backend looks like, as a test scripts it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    All fields are optional; `Fault()` is a normal response.

    `after` counts the token events of a stream. The role event is not one; -1 means before the role event. If
    the response is not a stream, `end` breaks it off in the middle of the body, whatever `after` is.
    """

    # before the response
    delay_ms: float = 0  # before the headers (a huge value is a backend that never responds)
    first_byte_ms: float = 0  # between the headers and the first body byte
    refuse: bool = False  # close at accept; on a kept-alive connection the same as `reset`
    reset: bool = False  # TCP reset before the headers

    # instead of the normal response
    status: int = 200  # an error status without `body` carries vLLM's error object
    message: str = "the fake backend was told to fail"
    headers: dict[str, str] = {}  # added to the usual ones, or replacing them, e.g. Retry-After
    content_type: str | None = None
    body: Any = None  # a string is sent unchanged, anything else as JSON
    garbage: int = 0  # this many bytes that are neither UTF-8 nor JSON, with the usual content type
    empty: bool = False  # 200 with the right content type and no body at all
    refuses: str | None = None  # only for requests with this field: `a.b`, `a.b=value` or `a.b>number`
    context_too_long: bool = False  # vLLM's 400 for a prompt that is too long, whatever was asked

    # how it ends
    after: int = 0
    end: Literal["cut", "reset", "clean", "stall"] | None = None
    # cut: FIN without the last HTTP chunk; reset: RST; clean: a proper HTTP end without [DONE];
    # stall: nothing more is sent, and the connection stays open
    half_event: bool = False  # send half of the next event before the end
    error: str | None = None  # an SSE error event with this message, then [DONE], as vLLM does
    error_code: int = 500  # 400 with `after=-1`: how vLLM refuses some streams

    # how it is written
    pace_ms: float = 0  # between token events, on an absolute schedule
    drip_ms: float = 0  # between any two writes
    glue: int = 1  # SSE events per HTTP chunk
    split: int = 0  # bytes per write, HTTP framing included (1 = a byte at a time)
    crlf: bool = False  # \r\n between and after the lines of an event
    comments: int = 0  # a `: keep-alive` comment before every n-th token event
    stamp: bool = False  # content is `@<CLOCK_MONOTONIC ns>;`, taken when the event is written

    # what the model says
    tokens: int | None = None  # content tokens it wants to say; None: as many as the limit allows, or 16
    reasoning: int | None = None  # reasoning tokens it wants to say; None: its whole budget, or 16
    pad: int = 0  # makes the last content token this many bytes longer
    tool_call: bool = False
    deaf: bool = False  # ignores the client's limit on the length
    usage: Literal["details", "plain", "missing", "null", "spaced"] = "details"

    @property
    def fixed(self) -> bool:
        """Whether the bytes of the response are known in advance, so that they may be cached."""
        return msgspec.structs.replace(self, tokens=None, reasoning=None, pad=0, usage="details") == Fault()


def decode(raw: bytes | str) -> Fault:
    """Read a fault from JSON. An unknown field is an error, so that a typo cannot pass as "no fault"."""
    return msgspec.json.decode(raw, type=Fault)
