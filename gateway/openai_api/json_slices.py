"""Reads large JSON in slices: where the elements of a container end, and whether all is valid. No I/O.

A parser holds Python's lock while it reads. For 32 MB of brackets that stops all other requests for 0.1 s.
These functions never hold it for more than a few milliseconds, so they can run in a thread.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from gateway.errors import InvalidJson

SLICE = 1 << 20
"""Bytes that are read at once."""
_STRING_SLICE = 1 << 18
_LEVELS = 4  # of nesting that are taken apart, because each is read once more

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_DELTA = np.zeros(256, np.int8)
_DELTA[list(b"[{")], _DELTA[list(b"]}")] = 1, -1
_STRUCTURAL = np.zeros(256, bool)
_STRUCTURAL[list(b"[]{},")] = True

_NOWHERE = np.zeros(0, np.int64)

_SPACE = re.compile(rb"[ \t\r\n]*")
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.){0,1000}")[ \t\r\n]*:[ \t\r\n]*')

# Whole characters of a string: an escaped pair of surrogates is one.
_CHARACTERS = re.compile(
    rb"(?: [^\\]++ | \\[^u] | \\u (?![dD][89abAB])[^\\]{4} | \\u[dD][89abAB][^\\]{2} \\u[^\\]{4} )*+",
    re.VERBOSE | re.DOTALL,
)

_skip = msgspec.json.Decoder(Raw)


class _Scan:
    """The state of a scan between two slices."""

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._escaped = False
        """The first byte of the next slice is escaped."""

    def structure(self, data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the brackets and commas outside of strings, and the depth after each."""
        quotes = data == _QUOTE
        if self._in_string and not quotes.any():  # inside of a long text
            self._skip(data)
            return _NOWHERE, _NOWHERE
        self._leave_out_escaped(data, quotes)
        inside = np.bitwise_xor.accumulate(quotes)
        if self._in_string:
            np.logical_not(inside, out=inside)
        self._in_string = bool(inside[-1])
        structural = _STRUCTURAL[data]
        structural &= ~inside
        at = np.flatnonzero(structural)
        depths = np.cumsum(_DELTA[data[at]], dtype=np.int64) + self.depth
        if len(depths):
            self.depth = int(depths[-1])
        return at, depths

    def _skip(self, data: NDArray[np.uint8]) -> None:
        backslashes = len(data) - len(data.tobytes().rstrip(b"\\")) if data[-1] == _BACKSLASH else 0
        self._escaped = (backslashes - (self._escaped and backslashes == len(data))) % 2 == 1

    def _leave_out_escaped(self, data: NDArray[np.uint8], quotes: NDArray[np.bool_]) -> None:
        """Clear the quotes that a backslash escapes."""
        found = np.flatnonzero(data == _BACKSLASH)
        if self._escaped:
            quotes[0] = False
            found = found[found > 0]
        self._escaped = False
        if not len(found):
            return
        # Of a run of backslashes, every second one is escaped: the byte after an odd run is escaped too.
        first = np.flatnonzero(np.diff(found, prepend=-2) != 1)
        lengths = np.diff(first, append=len(found))
        after = (found[first] + lengths)[lengths % 2 == 1]
        if len(after) and after[-1] == len(data):
            self._escaped, after = True, after[:-1]
        quotes[after] = False


def separators(text: memoryview) -> Iterator[NDArray[np.int64]]:
    """The positions of the commas between the elements of a container, slice by slice.

    The last position is that of the closing bracket. What lies between two positions is not checked.

    Raises: InvalidJson.
    """
    scan, opening = _Scan(), text[0]
    for start in range(0, len(text), SLICE):
        data = np.frombuffer(text[start : start + SLICE], np.uint8)
        at, depths = scan.structure(data)
        ends = np.flatnonzero(depths == 0)
        if len(ends):
            end = int(at[ends[0]])
            blank = _SPACE.fullmatch(text, start + end + 1)
            if data[end] != {ord("["): ord("]"), ord("{"): ord("}")}[opening] or not blank:
                break
            at, depths = at[: ends[0]], depths[: ends[0]]
            yield np.append(at[(depths == 1) & (data[at] == _COMMA)], end) + start
            return
        yield at[(depths == 1) & (data[at] == _COMMA)] + start
    raise InvalidJson("The request body is not valid JSON: brackets do not match")


def is_container(text: memoryview) -> bool:
    """Whether a JSON value is an object or an array."""
    return text[0] in b"{["


def stripped(text: memoryview) -> memoryview:
    """The text without white space around it. Raises: InvalidJson."""
    blank = _SPACE.match(text)
    text = text[blank.end() :] if blank else text
    while len(text) and text[-1] in b" \t\r\n":
        end = bytes(text[-SLICE:])
        text = text[: len(text) - len(end) + len(end.rstrip(b" \t\r\n"))]
    if not len(text):
        raise InvalidJson("The request body is not valid JSON: a value is missing")
    return text


def count(text: memoryview, marks: bytes) -> int:
    """How often any of these bytes occurs."""
    found = 0
    for start in range(0, len(text), SLICE):
        data = np.frombuffer(text[start : start + SLICE], np.uint8)
        found += sum(int(np.count_nonzero(data == mark)) for mark in marks)
    return found


def both_ends(text: memoryview, most: int) -> tuple[list[memoryview], int]:
    """The first and the last `most` elements of a container, and how many it has. Raises: InvalidJson."""
    first: list[int] = []
    last: list[int] = []
    total = 0
    for found in separators(text):
        total += len(found)
        first += found[: most - len(first)].tolist()
        last = [*last, *found[-most - 1 :].tolist()][-most - 1 :]
    starts = [0, *first]
    spans = list(zip(starts, first, strict=False))
    spans += [span for span in pairwise(last) if span[0] >= first[-1]]
    if total == 1 and _SPACE.fullmatch(text, 1, first[0]):
        return [], 0
    return [stripped(text[start + 1 : end]) for start, end in spans], total


def member(text: memoryview) -> tuple[str, memoryview]:
    """The key and the value of `"key": value`. Raises: InvalidJson."""
    key = _KEY.match(text)
    if not key or key.end() == len(text):
        raise InvalidJson("The request body is not valid JSON: a field has no name, or an endless one")
    try:
        return msgspec.json.decode(key[1], type=str), text[key.end() :]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"The request body is not valid JSON: {error}") from None


def check_utf8(text: memoryview) -> None:
    """Raises: InvalidJson."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), _STRING_SLICE):
            decoder.decode(text[start : start + _STRING_SLICE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InvalidJson(f"The request body is not valid JSON: {error.reason}") from None


def check_json(text: memoryview, levels: int = _LEVELS) -> None:
    """Check the grammar of a value, in slices. Raises: InvalidJson."""
    text = stripped(text)
    if len(text) <= SLICE or not levels:
        _check_slice(text)
    elif text[0] == _QUOTE:
        _check_string(text)
    elif is_container(text):
        _check_container(text, levels)
    else:
        _check_slice(text)  # a long number


def _check_slice(*parts: bytes | memoryview) -> None:
    try:
        _skip.decode(parts[0] if len(parts) == 1 else b"".join(parts))
    except msgspec.DecodeError as error:
        raise InvalidJson(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidJson("The request body is nested too deeply") from None


def _check_string(text: memoryview) -> None:
    start = 1
    while len(text) - start > _STRING_SLICE:
        end = characters(text, start, start + _STRING_SLICE)
        if end == start:
            break
        _check_slice(b'"', text[start:end], b'"')
        start = end
    _check_slice(b'"', text[start:])


def characters(text: memoryview, start: int, end: int) -> int:
    """Where the last whole escape of a string before `end` ends, if none has begun before `start`."""
    if b"\\" not in bytes(text[start:end]):
        return min(end, len(text))
    found = _CHARACTERS.match(text, start, end)
    return found.end() if found else start


def _check_container(text: memoryview, levels: int) -> None:
    """Check the elements in groups of about a slice. An element that is longer is a group of its own."""
    brackets = (b"{", b"}") if text[0] == ord("{") else (b"[", b"]")
    start, only = 1, True
    for found in separators(text):
        # The element that reaches beyond a slice lies between its last separator and the next one's first.
        for cut in dict.fromkeys((int(found[0]), int(found[-1])) if len(found) else ()):
            group = text[start:cut]
            start = cut + 1
            closing = text[cut] != _COMMA
            if not (only and closing) and _SPACE.fullmatch(group):
                raise InvalidJson("The request body is not valid JSON: an element is missing")
            only = False
            if len(group) <= 2 * SLICE:
                _check_slice(brackets[0], group, brackets[1])
            elif brackets[0] == b"{":
                check_json(member(group)[1], levels - 1)
            else:
                check_json(group, levels - 1)
