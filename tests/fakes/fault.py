"""What one answer of the fake backend shall look like: the limits list a test writes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    All fields are optional; `Fault()` is a normal answer.

    `after` counts token events of a stream (the role event is not one); -1 is "before the role event". In an
    answer that is not a stream, `end` strikes in the middle of the body, whatever `after` says.
    """

    # before the answer
    delay_ms: float = 0  # before the headers (a huge value is a backend that never answers)
    first_byte_ms: float = 0  # between the headers and the first body byte
    refuse: bool = False  # close at accept; on a kept-alive connection the same as `reset`
    reset: bool = False  # TCP reset before the headers

    # another answer altogether
    status: int = 200  # an error status without `body` carries vLLM's error object
    message: str = "the fake backend was told to fail"
    headers: dict[str, str] = {}  # added to, or in place of, the usual ones, e.g. Retry-After
    content_type: str | None = None
    body: Any = None  # a string is sent as it is, anything else as JSON
    garbage: int = 0  # so many bytes that are neither UTF-8 nor JSON, with the usual content type
    empty: bool = False  # 200 with the right content type and no body at all
    context_too_long: bool = False  # vLLM's 400, whatever was asked

    # how it ends
    after: int = 0
    end: Literal["cut", "reset", "clean", "stall"] | None = None
    # cut: FIN without the last HTTP chunk; reset: RST; clean: proper HTTP end without [DONE]; stall: for ever
    half_event: bool = False  # send half of the next event before that
    error: str | None = None  # an SSE error event with this message, then [DONE], as vLLM does
    error_code: int = 500  # 400 with `after=-1`: how vLLM refuses some streams

    # how it is written
    pace_ms: float = 0  # between token events, on an absolute schedule
    drip_ms: float = 0  # between any two writes
    glue: int = 1  # SSE events per HTTP chunk
    split: int = 0  # bytes per TCP write, HTTP framing included (1 = a byte at a time)
    crlf: bool = False  # \r\n between and after the lines of an event
    comments: int = 0  # a `: keep-alive` comment before every n-th token event
    stamp: bool = False  # content is `@<CLOCK_MONOTONIC ns>;`, taken when the event is written

    # what the model says
    tokens: int | None = None  # answer tokens it wants to say; None: as many as it may
    reasoning: int | None = None  # reasoning tokens it wants; None: its whole budget, or 16
    pad: int = 0  # makes the last answer token so many bytes long
    tool_call: bool = False
    deaf: bool = False  # takes no limit seriously
    usage: Literal["details", "plain", "missing", "null", "spaced"] = "details"

    @property
    def fixed(self) -> bool:
        """Whether the answer's bytes are known before it is written, and may be kept for the next one."""
        return msgspec.structs.replace(self, tokens=None, reasoning=None, pad=0, usage="details") == Fault()


def decode(raw: bytes | str) -> Fault:
    """Read a fault from JSON; an unknown field is an error, so that a typo cannot pass as "no fault"."""
    return msgspec.json.decode(raw, type=Fault)
