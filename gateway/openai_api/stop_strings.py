"""Finds the client's `stop` strings in the answer of a model that thinks first. No I/O.

A backend looks for them in all that a model writes, its thought included, and a thought ends as soon as it
quotes one. So the field is held back, and the answer alone is searched, as vLLM would search it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from gateway.openai_api.lengths import least_tokens
from gateway.openai_api.lenient import is_true
from gateway.openai_api.requests import Fields

_MOST_STRINGS, _MOST_CHARACTERS = 64, 4096  # because each string is looked for in every delta
_MOST_SPACE = 64  # characters of white space before a thought that the backend has left in the answer
_MOST_BYTES = 1 << 16  # of a field that is read
_READ = ("stop", "include_stop_str_in_output", "min_tokens", "echo", "use_beam_search")
_THINK, _END_THINK = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class StopStrings:
    """What a request says about its stop strings."""

    strings: tuple[str, ...]
    included: bool = False
    """The string that ended the answer is shown with it."""
    min_tokens: int = 0
    """Tokens of a choice, its thought included, before which none of the strings counts."""


class Match(NamedTuple):
    """A stop string in a text, and the positions between which it lies."""

    string: str
    start: int
    end: int


def stop_strings(fields: Fields) -> StopStrings | None:
    """The stop strings of a request, if the gateway can apply them in place of the backend.

    It cannot with strings that the backend will refuse, with very many or long ones, and where vLLM applies
    them to something else than the answer: it ignores them in beam search, and an echo is no answer.
    """
    if "stop" not in fields:
        return None
    stated = _value(fields["stop"])
    strings = [stated] if isinstance(stated, str) else stated
    if not isinstance(strings, list) or not strings:
        return None
    if not all(isinstance(string, str) and string for string in strings):
        return None
    if len(strings) > _MOST_STRINGS or sum(map(len, strings)) > _MOST_CHARACTERS:
        return None
    if any(is_true(_value(fields.get(name))) for name in ("echo", "use_beam_search")):
        return None
    included = is_true(_value(fields.get("include_stop_str_in_output")))
    return StopStrings(tuple(strings), included, least_tokens(fields, None))


def fields_about_stops(fields: Fields) -> Fields:
    """A copy of the fields that `stop_strings` reads, without a reference to the body of the request."""
    return {name: Raw(bytes(fields[name])) for name in _READ if name in fields}


def first_stop(text: str, strings: Iterable[str], after: int = 0) -> Match | None:
    """The stop string that is complete first. Of several that end together, the first in the list.

    after: position in the text up to which no string counts that ends there.
    """
    first = None
    for string in strings:
        start = text.find(string, max(0, after - len(string) + 1))
        if start >= 0 and (first is None or start + len(string) < first.end):
            first = Match(string, start, start + len(string))
    return first


def overlap(text: str, string: str) -> int:
    """How many characters at the end of the text may begin the string, which is not complete there."""
    at = text.find(string[0], max(0, len(text) - len(string) + 1))
    while at >= 0 and not string.startswith(text[at:]):
        at = text.find(string[0], at + 1)
    return len(text) - at if at >= 0 else 0


class StopSearch:
    """Looks for stop strings in the answer of one choice, as its text arrives.

    White space that stands between thought and answer does not complete a string: with `stop: "\\n\\n"`, all
    answers would be empty. A thought that the backend has not taken out of the answer is not searched either.
    """

    def __init__(self, stops: StopStrings, *, parsed: bool = False) -> None:
        """parsed: the backend has taken the thought out of the answer."""
        self.found: str | None = None
        """The string that ended the answer."""
        self.dropped = 0
        """Characters of the latest text that follow it."""
        self._stops = stops
        self._text = ""
        """The end of what has arrived, which may begin a string."""
        self._shown = 0
        """Characters of it that have been shown."""
        self._exempt = 0
        """Characters of it with which no string may end."""
        self._begun = False
        """The answer has a character that is not white space."""
        self._undecided = not parsed
        """The text so far may begin a thought."""
        self._thinks = False

    @property
    def waits(self) -> bool:
        """Whether what comes next decides about text that has arrived."""
        return bool(self._text)

    def feed(self, text: str, *, counts: bool = True, last: bool = False) -> str:
        """Take more of the text, and return what of it, and of what was held back, can be shown now.

        counts: a string may end in this text. last: nothing follows that belongs to it.
        """
        self._text += text
        shown = self._pass_thought(last=last) if self._undecided or self._thinks else ""
        if self._undecided or self._thinks:
            return shown
        return shown + self._search(counts=counts, last=last)

    def _pass_thought(self, *, last: bool) -> str:
        """Show a thought that the answer begins with."""
        if self._undecided:
            start = self._text.lstrip()
            if _THINK.startswith(start) and len(self._text) <= _MOST_SPACE and not last:
                return ""
            self._undecided, self._thinks = False, start.startswith(_THINK)
            if not self._thinks:
                return ""
        thought, mark, rest = self._text.partition(_END_THINK)
        if mark:
            self._thinks, self._text = False, rest
            return thought + mark
        kept = 0 if last else overlap(thought, _END_THINK)
        self._text = thought[len(thought) - kept :]
        return thought[: len(thought) - kept]

    def _search(self, *, counts: bool, last: bool) -> str:
        text, strings = self._text, self._stops.strings
        if not self._begun:
            space = len(text) - len(text.lstrip())
            self._begun = space < len(text)
            self._exempt = max(self._exempt, space)
        if not counts:
            self._exempt = len(text)
        if match := first_stop(text, strings, self._exempt):
            self.found, self._text = match.string, ""
            self.dropped = len(text) - match.end
            return text[self._shown : match.end if self._stops.included else match.start]
        kept = 0 if last else max(overlap(text, string) for string in strings)
        done = len(text) - kept
        end = len(text) if self._stops.included else done
        shown, self._text = text[self._shown : end], text[done:]
        self._shown, self._exempt = end - done, max(0, self._exempt - done)
        return shown


def _value(raw: Raw | None) -> Any:
    """The value of a field; None if it is absent, long, or cannot be read."""
    if raw is None or len(memoryview(raw)) > _MOST_BYTES:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
