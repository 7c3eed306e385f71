"""What the gateway added to a request, and the request without parts of it. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

import msgspec
from msgspec import Raw, Struct

from gateway.openai_api.refusals import Refusal
from gateway.openai_api.requests import Fields, encode

FieldPath: TypeAlias = tuple[str, ...]
"""A top-level field, `("stream_options",)`, or a key of one, `("stream_options", "include_usage")`."""

RefusedField: TypeAlias = tuple[FieldPath, bytes]
"""A field that a backend refuses, with the word, `true`, `false` or 0 that it refuses; b"" for any value."""

Additions: TypeAlias = dict[FieldPath, Raw]

_KEPT = frozenset(("model", "messages", "prompt", "max_tokens", "min_tokens"))
"""Fields that are never taken back."""
_CAP, _OLD_CAP = "max_completion_tokens", "max_tokens"
"""A cap is not taken back but sent by its old name, because budgets rely on it."""
_LONGEST_WORD = 40  # bytes
SMALL_FIELD = 1024
"""Bytes; longer fields of a large body are not kept once it has been encoded."""
_MOST_FIELDS = 64
_SUBJECTS = frozenset(("thinking", "reasoning", "effort"))

_object = msgspec.json.Decoder(Fields)


class Amendment(Struct, frozen=True):
    """How a request differs from what was planned, because its backend refuses a part of that."""

    without: frozenset[RefusedField] = frozenset()
    """Added fields that are taken back."""
    room: int | None = None
    """The most completion tokens; None if the backend was not asked again for the length."""
    capped: bool = True
    """Whether a length limit is sent. The backend ends a completion at its context anyway."""
    times: int = 0
    """How often it was asked again."""
    lasting: frozenset[RefusedField] = frozenset()
    """Those of `without` that the backend refuses in every request."""


AS_PLANNED = Amendment()


def small_fields(fields: Fields) -> Fields:
    """Copies of the short fields, which hold nothing of the body that they were read from."""
    short = [name for name, value in fields.items() if len(memoryview(value)) <= SMALL_FIELD]
    return {name: fields[name].copy() for name in short[:_MOST_FIELDS]}


def additions(sent: Fields, own: Fields) -> Additions:
    """The fields of a request, and the keys of its objects, that the client did not send like this.

    sent: the request as the backend gets it. own: the client's fields.
    """
    found: Additions = {}
    for name, value in sent.items():
        theirs = own.get(name)
        if name in _KEPT or value == theirs:
            continue
        found[(name,)] = value
        before = _opened(theirs)
        found |= {(name, key): inner for key, inner in _opened(value).items() if inner != before.get(key)}
    return found


def refused_of(added: Additions, refusal: Refusal) -> frozenset[RefusedField]:
    """The additions that a refusal names. Of an object, those are its keys if it names any of them.

    If it names none but speaks of thinking, as in `"gemma3" does not support thinking`, all that control it.
    """
    named = [path for path in added if path[-1] in refusal.names]
    if not named and refusal.names & _SUBJECTS:
        named = [path for path in added if _controls_thinking(path)]
    opened = {path[0] for path in named if len(path) > 1}
    return frozenset((path, _word(added[path])) for path in named if len(path) > 1 or path[0] not in opened)


def _controls_thinking(path: FieldPath) -> bool:
    return path[-1] != "include_reasoning" and not _SUBJECTS.isdisjoint(path[-1].split("_"))


def any_at(refused: Iterable[RefusedField], places: Collection[FieldPath]) -> bool:
    """Whether a field at one of these places is refused whatever its value, or an object that holds it."""
    return any(not word and place[: len(path)] == path for path, word in refused for place in places)


def taken_back(sent: Fields, own: Fields, paths: Iterable[FieldPath]) -> Fields:
    """The request with the client's own values at `paths`, or none where the client sent none."""
    fields = dict(sent)
    for name, *key in paths:
        if name == _CAP:
            fields[_OLD_CAP] = fields.pop(_CAP)
        elif not key:
            _restore(fields, own, name)
        else:
            inner = _opened(fields.get(name))
            _restore(inner, _opened(own.get(name)), key[0])
            fields[name] = Raw(encode(inner))
            if not inner:
                _restore(fields, own, name)
    return fields


def without_refused(sent: Fields, own: Fields, refused: frozenset[RefusedField]) -> Fields:
    """The request without those of its additions that a backend refuses."""
    added = additions(sent, own)
    hit = [path for path, value in added.items() if (path, _word(value)) in refused]
    return taken_back(sent, own, sorted(hit, key=len, reverse=True))


def with_lower_minimum(fields: Fields) -> Fields:
    """The request with `min_tokens` at its length limit, if it is above."""
    limit, minimum = fields.get(_CAP, fields.get(_OLD_CAP)), fields.get("min_tokens")
    try:
        above = limit is not None and minimum is not None and float(bytes(minimum)) > float(bytes(limit))
    except ValueError:
        above = False
    return fields | {"min_tokens": limit} if above and limit is not None else fields


def counts_asked_for(fields: Fields) -> bool:
    """Whether a stream is asked for a running count in every chunk."""
    options = _opened(fields.get("stream_options"))
    return all(options.get(name) == Raw(b"true") for name in ("include_usage", "continuous_usage_stats"))


def _restore(fields: Fields, own: Fields, name: str) -> None:
    if name in own:
        fields[name] = own[name]
    else:
        fields.pop(name, None)


def _opened(value: Raw | None) -> Fields:
    """The keys of an object; none of any other value."""
    try:
        return _object.decode(value) if value is not None and bytes(value)[:1] == b"{" else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _word(value: Raw) -> bytes:
    """A word, `true`, `false`, `null` or 0 itself, because others may be taken; b"" for any other value."""
    text = bytes(value)
    return text if text[:1] in b'"tfn0' and len(text) <= _LONGEST_WORD else b""
