"""Cuts a large request down to a small one that decides alike, so that nothing large is ever decoded. No I/O.

The head and the rules read the beginning and the end of a few texts. Only those are decoded. All other bytes
are checked to be JSON and passed on.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

import msgspec
from msgspec import Raw, Struct

from gateway.errors import InvalidJson, InvalidRequest
from gateway.openai_api import json_slices
from gateway.openai_api.requests import MOST_OPENING, Fields

LARGE_BODY = 1 << 18
"""Bytes; a longer body is cut down before it is parsed."""
_CROWDED = 4_000
"""Commas in a body, above which parsing it takes several milliseconds."""
_NEVER_CROWDED = 1 << 14
_MOST_FIELDS = 1_000
_LONG = frozenset(("messages", "prompt", "prompt_embeds", "tools"))
"""The fields that the gateway reads and that may be longer than `LARGE_BODY`."""

# Above these numbers, a value is not parsed at once: a parser holds Python's lock, and makes an object of
# each field and message. A colon or brace inside a text counts too.
_AT_ONCE = 1 << 22  # bytes
_COLONS = 20_000
_BRACES = 10_000

_TEXT = 1 << 18
"""Bytes read at either end of a long text, more than `_CHARACTERS` in any encoding."""
_CHARACTERS = 20_000
"""Kept at either end of a long text. Nothing that decides reads more."""
_ITEMS = 100  # kept at either end of a long list
_LOOKED_BACK = 10_000  # messages in which the last question is looked for, if there are very many
_LEVELS = 4  # of nesting that are cut down

# The first byte of an escape: no backslash before it, and not the second half of a pair of surrogates.
_ESCAPE = re.compile(rb"(?<!\\)\\(?!u[dD][c-fC-F])")
_LONGEST_ESCAPE = 12


@dataclass(frozen=True, slots=True)
class CutRequest:
    """A large request, and a small one in its place."""

    fields: Fields
    """The top-level fields, as the client sent them."""
    small: Fields
    """The fields that the gateway reads, with long texts and lists cut to their ends."""
    contents: list[Raw] | None = None
    """The content of each message, as the client sent it, if all messages were parsed."""
    omitted_prompts: int = 0
    """Prompts of a legacy completion that the small request lacks."""
    omitted_embeds: int = 0
    """Those of them that are embeddings."""


class _Message(Struct):
    role: Raw = Raw(b'""')
    content: Raw = Raw(b"null")


_fields = msgspec.json.Decoder(Fields)
_messages = msgspec.json.Decoder(list[_Message])
_message = msgspec.json.Decoder(_Message)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


def cut(body: bytes | bytearray, read: Container[str]) -> CutRequest:
    """Cut a request down to the fields that are read.

    Raises: InvalidJson, InvalidRequest.
    """
    text = json_slices.stripped(memoryview(body))
    json_slices.check_utf8(text)
    fields = _split(text)
    small: Fields = {}
    contents: list[Raw] | None = None
    omitted = {"prompt": 0, "prompt_embeds": 0}
    for name in fields:
        if name not in read:
            continue
        value = json_slices.stripped(memoryview(fields[name]))
        if len(value) > LARGE_BODY and name not in _LONG:
            raise InvalidRequest(f"`{name[:100]}` is longer than {LARGE_BODY} bytes", param=name[:100])
        if name == "messages":
            small[name], contents = _questions(value)
            continue
        small[name] = shrink(value)
        if name in omitted:
            omitted[name] = _omitted_prompts(value)
    return CutRequest(fields, small, contents, sum(omitted.values()), omitted["prompt_embeds"])


def slow_to_parse(body: bytes) -> bool:
    """Whether a body would stop the event loop for long: it is large, or has very many small parts."""
    return len(body) > LARGE_BODY or (len(body) > _NEVER_CROWDED and body.count(b",") > _CROWDED)


def parsed_at_once(value: memoryview) -> bool:
    """Whether parsing the value holds Python's lock for a few milliseconds at most."""
    return len(value) <= _AT_ONCE and json_slices.count(value, b"{") <= _BRACES


def _split(text: memoryview) -> Fields:
    """The top-level fields of a body, whose grammar is checked. Raises: InvalidJson, InvalidRequest."""
    if text[0] == ord("{") and (len(text) > _AT_ONCE or json_slices.count(text, b":") > _COLONS):
        members, total = json_slices.both_ends(text, _MOST_FIELDS)
        if total > _MOST_FIELDS:
            raise InvalidRequest(f"The request has more than {_MOST_FIELDS} fields")
        json_slices.check_json(text)
        return {name: Raw(value) for name, value in map(json_slices.member, members)}
    try:
        return _fields.decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidJson(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidJson("The request body is nested too deeply") from None


def _questions(messages: memoryview) -> tuple[Raw, list[Raw] | None]:
    """The last messages, as far as a rule may search them, the last one of the user, and the chat's opening.

    The second result is the content of each message, if all were parsed.
    """
    if len(messages) <= LARGE_BODY or messages[0] != ord("["):
        return shrink(messages), None
    kept: list[_Message] = []
    size, asked = 0, False
    at_once = parsed_at_once(messages)
    decoded = _decoded(messages, at_once=at_once)
    left = len(decoded)
    for message in reversed(decoded):
        asks = _asks(message)
        if size < _TEXT or (asks and not asked):
            kept.append(_small(message))
            size += len(memoryview(kept[-1].content))
            asked = asked or asks
        elif asked:
            break
        left -= 1
    opened = next(
        (at + 1 for at, message in enumerate(decoded[:MOST_OPENING]) if _asks(message)), MOST_OPENING
    )
    kept += map(_small, reversed(decoded[: min(opened, left)]))
    return Raw(_encode(kept[::-1])), [message.content for message in decoded] if at_once else None


def _asks(message: _Message) -> bool:
    return bytes(memoryview(message.role)[:20]) == b'"user"'


def _small(message: _Message) -> _Message:
    return _Message(shrink(memoryview(message.role)), shrink(memoryview(message.content)))


def _decoded(messages: memoryview, *, at_once: bool) -> list[_Message]:
    """The messages, or the first and the last of very many. Raises: InvalidRequest."""
    try:
        if at_once:
            return _messages.decode(messages)
        ends, _ = json_slices.both_ends(messages, _LOOKED_BACK)
        last = max(MOST_OPENING, len(ends) - _LOOKED_BACK)
        return [_one_message(message) for message in (*ends[:MOST_OPENING], *ends[last:])]
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{str(error).partition(' - at ')[0]} in messages", param="messages") from None


def _one_message(message: memoryview) -> _Message:
    if len(message) <= LARGE_BODY or message[0] != ord("{"):
        return _message.decode(message)
    members, _ = json_slices.both_ends(message, _ITEMS)
    found = {name: Raw(value) for name, value in map(json_slices.member, members)}
    return _Message(found.get("role", Raw(b'""')), found.get("content", Raw(b"null")))


def _omitted_prompts(prompts: memoryview) -> int:
    """How many prompts of a list `_shrink` leaves out; a list of numbers is one prompt in token ids."""
    if len(prompts) <= LARGE_BODY or prompts[0] != ord("["):
        return 0
    if json_slices.stripped(prompts[1:])[0] not in b'["':
        return 0
    items, total = json_slices.both_ends(prompts, _ITEMS)
    return total - len(items)


def shrink(value: memoryview, levels: int = _LEVELS) -> Raw:
    """A JSON value with long texts and lists cut to their ends; a short value stays as it is."""
    value = json_slices.stripped(value)
    if len(value) <= LARGE_BODY:
        return Raw(value)
    if value[0] == ord('"'):
        return Raw(_encode(_shorten(value)))
    if not json_slices.is_container(value) or not levels:
        return Raw(b"null")
    items, _ = json_slices.both_ends(value, _ITEMS)
    if value[0] == ord("["):
        return Raw(_encode([shrink(item, levels - 1) for item in items]))
    return Raw(_encode({name: shrink(item, levels - 1) for name, item in map(json_slices.member, items)}))


def _shorten(text: memoryview) -> str:
    """The beginning and the end of a long JSON string."""
    beginning = bytes(text[1 : json_slices.characters(text, 1, _TEXT)])
    return _decoded_text(_whole_utf8(beginning))[:_CHARACTERS] + _decoded_text(_ending(text))[-_CHARACTERS:]


def _ending(text: memoryview) -> bytes:
    """The end of a JSON string, from the beginning of a character on."""
    window = bytes(text[-_TEXT:-1])
    start = _LONGEST_ESCAPE
    if b"\\" in window[: 2 * _LONGEST_ESCAPE]:
        escape = _ESCAPE.search(window, start)
        start = escape.start() if escape else len(window)
    while start < len(window) and window[start] & 0xC0 == 0x80:  # inside of a character in UTF-8
        start += 1
    return window[start:]


def _whole_utf8(text: bytes) -> bytes:
    """Without a last character that is incomplete."""
    return text.decode(errors="ignore").encode()


def _decoded_text(text: bytes) -> str:
    return _text.decode(b'"' + text + b'"')
