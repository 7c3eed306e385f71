"""Reads numbers that are written as words: "twenty-one", "two hundred and five". No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
"""Words that multiply what is before them."""
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * tens for tens, word in enumerate(_TENS, start=2)
}
_ONE = "|".join(sorted([*_VALUES, *NUMBER_SCALES], key=len, reverse=True))  # "sixty" is no "six"
_RUN = re.compile(rf"\b(?:{_ONE})(?:(?:\s+and\s+|[\s-]+)(?:{_ONE}))*\b", re.IGNORECASE)


def words_as_numbers(text: str) -> Iterator[tuple[int, int, int]]:
    """The numbers that are written as words: value, begin and end of each."""
    for run in _RUN.finditer(text):
        words = re.findall(_ONE, run[0].lower())
        if words[0] not in NUMBER_SCALES or words[0] == "dozen":
            yield _value(words), run.start(), run.end()


def _value(words: list[str]) -> int:
    total = current = 0
    for word in words:
        if word in _VALUES:
            current += _VALUES[word]
        elif word in ("hundred", "dozen"):
            current = max(current, 1) * NUMBER_SCALES[word]
        else:
            total, current = total + max(current, 1) * NUMBER_SCALES[word], 0
    return total + current
