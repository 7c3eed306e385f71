"""Reads events that come in every stream, and differ in their ids and counts alone. No I/O.

A stream begins with an event that names the role, and ends with a finish reason and the usage.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from gateway.openai_api.deltas import COMPACT, finished_choices
from gateway.openai_api.running_counts import index_of

_LONGEST = 1_024  # bytes of an event
_USAGE = b',"usage":'

# What stands in front of the choices, as vLLM and SGLang write it:
# data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795790707,"model":"m","choices":[…
# No string has a quote or an escape. So nothing that readers of streams look for can be in it.
_STRING = rb'"[ !#-\[\]-~]*+"'
_NUMBER = rb"(?:0|[1-9][0-9]{0,15}+)"
_HEAD = re.compile(
    rb'data: \{"id":%b,("object":%b,)"created":%b,("model":%b,)(?="choices":\[)'
    % (_STRING, _STRING, _NUMBER, _STRING)
)

# A usage of plain numbers, as in {"prompt_tokens":5,"completion_tokens":7,"details":{"reasoning_tokens":0}}
_PAIR = rb'"[a-z_]++":(?:%b|null)' % _NUMBER
_MEMBER = rb'(?:%b|"[a-z_]++":\{(?:%b(?:,%b)*+)?\})' % (_PAIR, _PAIR, _PAIR)
_COUNTS = re.compile(rb"\{%b(?:,%b)*+\}" % (_MEMBER, _MEMBER))

_CHOICE = b'"choices":[{"index":'
_LAST = b'"choices":[],"usage":'
_SAYS_MORE = (b'{"error"', b"[DONE]", b"\r")
_TEXT = re.compile(rb'"content": ?"[^"]')


class Said(Struct, frozen=True, gc=False):
    """What an event without a text says, beside its counts."""

    finish_reason: str | None
    finished: frozenset[str]
    """The choices that have a finish reason, by their index."""
    index: bytes
    """The choice."""
    last: bool
    """It carries nothing but the usage of the whole stream."""


class EventParts(Struct, frozen=True, gc=False):
    """An event, divided into what differs between streams and what does not."""

    rest: bytes
    """All but the head and the counts."""
    counts: bytes
    """The usage or the running count, as JSON; empty if there is none."""
    bare: bytes
    """The event without them; empty if there are none."""


def beginning_of(event: bytes) -> tuple[bytes, bytes]:
    """What stands in front of the choices of an event, and what of it is the same in every stream.

    Both are empty if it is not laid out as usual.
    """
    found = _HEAD.match(event)
    return (found[0], found[1] + found[2]) if found else (b"", b"")


def parts_of(event: bytes) -> EventParts | None:
    """The parts of one whole event; None if it is not laid out as usual."""
    if len(event) > _LONGEST or not (head := _HEAD.match(event)) or event.find(b"\n") != len(event) - 2:
        return None
    start, at = head.end(), event.find(b',"usage":{', head.end())
    if at < 0:
        return EventParts(event[start:], b"", b"")
    counts = _COUNTS.match(event, at + len(_USAGE))
    if counts is None or b'"usage"' in counts[0]:
        return None
    end = counts.end()
    return EventParts(event[start:at] + _USAGE + event[end:], counts[0], event[:at] + event[end:])


def said_by(event: bytes, parts: EventParts) -> Said | None:
    """What an event says; None if that is more than can be remembered, such as a text or an error."""
    rest, last = parts.rest, parts.rest.startswith(_LAST)
    if (
        rest.count(b'"choices"') != 1
        or not _is_usual_usage(rest, counted=bool(parts.counts), last=last)
        or any(map(rest.__contains__, _SAYS_MORE))
        or any(COMPACT.deltas(event))
        or _TEXT.search(event)
        or not _is_json(event)
    ):
        return None
    return Said(*_finish_of(event), index_of(event), last)


def _is_usual_usage(rest: bytes, *, counted: bool, last: bool) -> bool:
    """Whether the counts are the only usage, and stand where readers of streams expect them."""
    choice, named = rest.startswith(_CHOICE), rest.count(b'"usage"')
    if not counted:
        return not named or (choice and named == rest.count(b'"usage":null'))
    return named == 1 and (last or (choice and b'[],"usage":' not in rest and b' ,"usage":' not in rest))


def _finish_of(event: bytes) -> tuple[str | None, frozenset[str]]:
    """The last finish reason, and the choices that have one."""
    reason = event.rpartition(COMPACT.finish)
    if not reason[1]:
        return None, frozenset()
    return reason[2].partition(b'"')[0].decode(errors="replace"), frozenset(finished_choices([event]))


def _is_json(event: bytes) -> bool:
    try:
        msgspec.json.decode(event[6:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
