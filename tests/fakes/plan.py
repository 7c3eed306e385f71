"""Turns one request and one fault into the writes, waits and breaks that make up the response. No I/O."""

from __future__ import annotations

import enum
import json
import re
import time
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec
import orjson

from tests.fakes import dialect
from tests.fakes.ask import Ask, speech
from tests.fakes.dialect import Event
from tests.fakes.fault import Fault

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
LAST_CHUNK = b"0\r\n\r\n"
STAMP_DIGITS = 20  # all of the same length, so that the size of a chunk does not depend on the time
MOST_CHOICES = 128  # vLLM allows 16,384, which would take this process too long


class Stop(enum.Enum):
    """A way to break off a response."""

    CUT = enum.auto()
    RESET = enum.auto()
    STALL = enum.auto()


Action: TypeAlias = bytes | float | Stop
"""Bytes to write, seconds to wait, or how to break off."""


class Refused(Exception):
    """The backend refuses the request with an error object, as vLLM would."""

    def __init__(self, status: int, message: str, param: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.status = status
        named = "" if value is None else f" (parameter={param}, value={value})"
        self.body = dialect.error(status, message + named, param=param)


def head(fault: Fault, content_type: str, *, length: int | None = None) -> bytes:
    """The status line and headers; `length` None means chunked."""
    fields = {
        "date": formatdate(usegmt=True),
        "server": "uvicorn",
        "content-type": fault.content_type or content_type,
    }
    if length is None:
        fields["transfer-encoding"] = "chunked"
    else:
        fields["content-length"] = str(length)
    fields |= {name.lower(): value for name, value in fault.headers.items()}
    try:
        phrase = HTTPStatus(fault.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {fault.status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(data: bytes) -> bytes:
    """One chunk of HTTP/1.1 chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, fault: Fault, content_type: str = JSON) -> Iterator[Action]:
    """A response in one piece, or half of one if the fault breaks it off."""
    sent = body[: len(body) // 2] if fault.end else body
    yield head(fault, content_type, length=len(sent) if fault.end == "clean" else len(body))
    if fault.first_byte_ms:
        yield fault.first_byte_ms / 1000
    if sent:
        yield sent
    yield from _stop(fault)


def _stop(fault: Fault) -> Iterator[Action]:
    stops = {"cut": Stop.CUT, "reset": Stop.RESET, "stall": Stop.STALL}
    if fault.end in stops:
        yield stops[fault.end]


def stream(events: Iterable[Event], fault: Fault) -> Iterator[Action]:
    """A stream of server-sent events, with one HTTP chunk per event unless the fault glues them."""
    yield head(fault, SSE)
    if fault.first_byte_ms:
        yield fault.first_byte_ms / 1000
    eol = b"\r\n" if fault.crlf else b"\n"
    breaks = bool(fault.end or fault.error)
    due, spoken, held = time.monotonic(), 0, b""
    for count, event in enumerate(events, 1):
        text = b"data: " + event.data + eol + eol
        if breaks and (fault.after < 0 or (event.token and spoken == fault.after)):
            yield from [frame(held)] if held else []
            yield from _break_off(text, fault, eol)
            return
        if event.token:
            if fault.comments and spoken % fault.comments == 0:
                text = b": keep-alive" + eol + eol + text
            spoken += 1
            if fault.pace_ms:
                due += fault.pace_ms / 1000
                yield max(0.0, due - time.monotonic())
            if fault.stamp:
                text = text.replace(b"@;", b"@%0*d;" % (STAMP_DIGITS, time.monotonic_ns()))
        held += text
        if count % fault.glue == 0:
            yield frame(held)
            held = b""
    yield (frame(held) if held else b"") + LAST_CHUNK


def _break_off(text: bytes, fault: Fault, eol: bytes) -> Iterator[Action]:
    if fault.half_event:
        yield frame(text[: len(text) // 2])
    if fault.error is not None:
        # vLLM encodes this event with the json module, hence with spaces.
        error = json.dumps(dialect.error(fault.error_code, fault.error)).encode()
        yield frame(b"data: " + error + eol + eol + b"data: [DONE]" + eol + eol) + LAST_CHUNK
    elif fault.end == "clean":
        yield LAST_CHUNK
    else:
        yield from _stop(fault)


def written(actions: Iterable[Action], fault: Fault) -> Iterator[Action]:
    """Apply the part of the fault that is about writing: `delay_ms`, `split` and `drip_ms`."""
    if fault.delay_ms:
        yield fault.delay_ms / 1000
    gap = fault.drip_ms / 1000
    for action in actions:
        if not isinstance(action, bytes):
            yield action
            continue
        size = fault.split or len(action)
        for start in range(0, len(action), size):
            yield action[start : start + size]
            if fault.split or gap:
                yield gap


def applied(fault: Fault, body: Any) -> Fault:
    """The fault of a request, without an error if that is for a field that the request lacks."""
    if fault.refuses is None:
        return fault
    path, sign, wanted = re.split(r"([=>]|$)", fault.refuses, maxsplit=1)
    value = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    refused = value is not None and (value > int(wanted) if sign == ">" else wanted in ("", str(value)))
    return fault if refused else msgspec.structs.replace(fault, status=200, body=None, error=None)


def canned(fault: Fault, *, sse: bool) -> Iterator[Action] | None:
    """A response that does not depend on the request, or None."""
    kind = SSE if sse else JSON
    if fault.reset or fault.refuse:
        return iter((Stop.RESET,))
    if fault.garbage:
        return whole((b"\xff\xfe\x00{" * fault.garbage)[: fault.garbage], fault, kind)
    if fault.body is not None:
        body = fault.body.encode() if isinstance(fault.body, str) else orjson.dumps(fault.body)
        return whole(body, fault, JSON if fault.status >= 400 else kind)
    if fault.status >= 400:
        return whole(orjson.dumps(dialect.error(fault.status, fault.message)), fault)
    if fault.empty:
        return iter((head(fault, kind) + LAST_CHUNK,)) if sse else whole(b"", fault)
    return None


def check_length(ask: Ask, max_model_len: int, *, clamp: bool) -> None:
    """
    Refuse a request that does not fit into the context.

    vLLM up to 0.25 refuses a request whose prompt and output limit together exceed the context. vLLM 0.32
    shortens the output (`clamp`), and refuses only a prompt or a limit that is too large by itself.

    Raises: Refused.
    """
    prompt, limit, name = ask.prompt_tokens, ask.limit, ask.limit_name
    scores = limit == 0 and ask.echo and ask.messages is None
    if limit is not None and limit < 1 and not scores:
        raise Refused(400, f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if limit is not None and limit > max_model_len:
        bound = f"{name}={limit} cannot be greater than max_model_len={max_model_len}. "
        raise Refused(400, bound + "Please request fewer output tokens.", name, limit)
    if prompt > max_model_len:
        said = (
            f"your prompt contains {prompt} input tokens, which exceeds this limit even without any output "
        )
        raise _overflow(max_model_len, said + "tokens. Please reduce the length of the input prompt.", prompt)
    if limit is not None and prompt + limit > max_model_len and not clamp:
        raise _overflow(max_model_len, _sum_too_long(prompt, limit), prompt)
    most = min(max_model_len - prompt if limit is None else limit, max_model_len - prompt)
    if (least := ask.min_tokens or 0) > most:
        raise Refused(400, f"min_tokens must be less than or equal to max_tokens={most}, got {least}.")


def _overflow(max_model_len: int, text: str, prompt: int) -> Refused:
    context = f"This model's maximum context length is {max_model_len} tokens. However, "
    return Refused(400, context + text, "input_tokens", prompt)


def _sum_too_long(prompt: int, limit: int) -> str:
    return (
        f"you requested {limit} output tokens and your prompt contains {prompt} input tokens, for a total of "
        f"{prompt + limit} tokens. Please reduce the length of the input prompt or the number of requested "
        "output tokens."
    )


def parse(body: bytes, served_name: str) -> Ask:
    """
    Read the request, as strictly as vLLM does about the fields that a gateway could get wrong.

    Raises: Refused.
    """
    try:
        ask = msgspec.json.decode(body, type=Ask)
    except msgspec.DecodeError as broken:
        raise Refused(400, f"1 validation error: {broken}", "body") from None
    if ask.model is None:
        ask.model = served_name
    if ask.model != served_name:
        text = f"The model `{ask.model}` does not exist. Valid aliases: {served_name}."
        raise Refused(404, text, "model")
    if ask.stream_options is not None and not ask.stream:
        raise Refused(400, "Stream options can only be defined when `stream=True`.", "stream_options")
    if ask.n is not None and not 1 <= ask.n <= MOST_CHOICES:
        raise Refused(400, f"n must be between 1 and {MOST_CHOICES}, got {ask.n}.", "n", ask.n)
    if ask.thinking_token_budget is not None and ask.thinking_token_budget < -1:
        text = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
        raise Refused(400, text, "thinking_token_budget", ask.thinking_token_budget)
    return ask


def generate(
    path: str, ask: Ask, fault: Fault, serial: str, *, max_model_len: int, clamp: bool
) -> Iterator[Action]:
    """The response of the fake model. Raises: Refused."""
    if fault.context_too_long:
        prompt = ask.prompt_tokens
        raise _overflow(max_model_len, _sum_too_long(prompt, ask.limit or max_model_len), prompt)
    check_length(ask, max_model_len, clamp=clamp)
    said = speech(ask, fault, max_model_len=max_model_len)
    if path == "/v1/completions":
        if ask.stream:
            return stream(dialect.completion_events(ask, fault, said, serial), fault)
        return whole(dialect.dump(dialect.whole_completion(ask, fault, said, serial), fault), fault)
    if not ask.messages:
        raise Refused(400, "1 validation error: messages: field required", "body.messages")
    if ask.stream:
        return stream(dialect.chat_events(ask, fault, said, serial), fault)
    answer: dict[str, Any] = dialect.whole_chat(ask, fault, said, serial)
    return whole(dialect.dump(answer, fault), fault)
