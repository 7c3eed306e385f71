"""Finds quantities in prose: a number in any usual notation, with its unit. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from gateway.evidence.grading.number_words import NUMBER_SCALES, words_as_numbers
from gateway.evidence.grading.plain_text import without_markup
from gateway.evidence.grading.units import PERCENT, Unit, unit_at

_MOST_DIGITS = 400  # of a number, and its largest exponent: longer ones are no numbers that anybody means

_SPACES = "\u00a0\u202f\u2009'’_"
_DECIMAL = rf"""(?:
    \d{{1,3}}(?:,\d{{2,3}})*,\d{{3}}(?![\d,]*\d) (?:\.\d+)?
  | \d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?!\d) (?:[.,]\d+)?
  | \d{{1,3}}(?:\ \d{{3}}){{2,}}(?!\d) (?:[.,]\d+)?
  | \d{{1,3}}(?:\.\d{{3}})+,\d+
  | \d{{1,3}}(?:\.\d{{3}}){{2,}}(?![\d.])
  | (?<![(\[{{\d,])\d+,(?:\d{{1,2}}|\d{{4,}})(?![\d,])
  | (?<![(\[{{\d,])0,\d+(?![\d,])
  | \d+(?:\.\d+)?
  | \.\d+
)"""
_QUANTITY = re.compile(
    rf"""(?<![A-Za-z_\d^])(?<!\d\.)(?<!\^[-+({{])
    (?P<minus>(?:(?<![\w)\]}}%])-|\b(?:minus|negative)\s+)?)[+±~≈]?
    (?P<currency>[$€£¥₹]?)\ ?(?P<minus2>-?)
    (?:
        (?P<whole>\d+)(?:\ +|\ ?\+\ ?(?=\d+/)|-(?=\d+/))(?P<upper>\d+)\s?[/⁄]\s?(?P<lower>\d+)(?![\d/])
      | (?P<above>\d+(?:\.\d+)?)\s?/\s?(?P<below>\d+(?:\.\d+)?)(?![\d/])(?<!\d/\d\d\d\d)
      | (?P<decimal>{_DECIMAL})
        (?:
            (?:[eE](?P<exponent>[+-]?\d{{1,4}})(?!\w))
          | (?:\s*[×*xX·]\s*10\s*\^\s*\(?(?P<power>[+-]?\d{{1,4}})\)?)
          | (?:\s?\^\s?\(?(?P<raised>-?\d{{1,3}})\)?)
          | (?:st|nd|rd|th)\b
        )?
    )""",
    re.VERBOSE,
)
_MAGNITUDE = re.compile(
    rf"[ \t-]?({'|'.join(NUMBER_SCALES)})s?\b|(?<=\d)([kKMB]|bn|mn)(?![A-Za-z0-9])", re.IGNORECASE
)
_LETTERS = {"k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "B": 10**9, "bn": 10**9}
_UNIT_GAP = re.compile(r"[ \t\u00a0\u202f\u2009-]{0,3}")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}")


class Quantity(NamedTuple):
    """A number with its unit, as it stands in a text."""

    value: Fraction
    unit: Unit | None
    start: int
    end: int
    """Place in the plain text."""


def quantities(text: str) -> list[Quantity]:
    """The quantities in a text, in their order. Words count only where there are no digits.

    text: as `without_markup` returns it.
    """
    return list(_in_digits(text)) or [
        _with_unit(text, Fraction(value), start, end) for value, start, end in words_as_numbers(text)
    ]


def only_quantity(text: str) -> Quantity | None:
    """The quantity that a text consists of, apart from its unit or one word such as "apples"; else None."""
    text = without_markup(text).strip()
    found = quantities(text)
    if len(found) != 1:
        return None
    before, after = text[: found[0].start], text[found[0].end :]
    return found[0] if re.fullmatch(r"\s*\.?|\s+[A-Za-z]+\.?", after) and not before.strip() else None


def _in_digits(text: str) -> Iterator[Quantity]:
    for match in _QUANTITY.finditer(text):
        value = _value(match)
        if value is None:
            continue
        if bool(match["minus"]) != bool(match["minus2"]):
            value = -value
        if match["currency"]:
            yield _with_currency(text, value, match)
        else:
            yield _with_unit(text, value, match.start(), match.end())


def _value(match: re.Match[str]) -> Fraction | None:
    if len(match[0]) > _MOST_DIGITS:
        return None
    if match["whole"]:
        lower = int(match["lower"])
        return int(match["whole"]) + Fraction(int(match["upper"]), lower) if lower else None
    if match["above"]:
        below = Fraction(match["below"])
        return Fraction(match["above"]) / below if below else None
    value = decimal_value(match["decimal"])
    if exponent := match["exponent"] or match["power"]:
        return value * Fraction(10) ** int(exponent) if abs(int(exponent)) <= _MOST_DIGITS else None
    if raised := match["raised"]:
        small = len(match["decimal"]) * abs(int(raised)) <= _MOST_DIGITS and value
        return Fraction(value ** int(raised)) if small else None
    return value


def decimal_value(digits: str) -> Fraction:
    """The value of a number without a sign, whatever separates its groups and its decimals."""
    digits = re.sub(f"[ {_SPACES}]", "", digits)
    comma, point = digits.rfind(","), digits.rfind(".")
    if comma >= 0 and point >= 0:
        groups, mark = (",", ".") if point > comma else (".", ",")
        digits = digits.replace(groups, "").replace(mark, ".")
    elif comma >= 0:
        digits = digits.replace(",", "") if _GROUPED.fullmatch(digits) else digits.replace(",", ".")
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    return Fraction(digits)


def _magnitude(text: str, end: int) -> tuple[int, int]:
    match = _MAGNITUDE.match(text, end)
    if not match:
        return 1, end
    if match[1]:
        return NUMBER_SCALES[match[1].lower()], match.end()
    times = _LETTERS.get(match[2])
    return (times, match.end()) if times else (1, end)


def _with_currency(text: str, value: Fraction, match: re.Match[str]) -> Quantity:
    times, end = _magnitude(text, match.end())
    symbol = match["currency"]
    unit, length = unit_at(symbol + text[end : end + 40], 0) or (None, len(symbol))  # "$/hour"
    return Quantity(value * times, unit, match.start(), end + length - len(symbol))


def _with_unit(text: str, value: Fraction, start: int, end: int) -> Quantity:
    times, end = _magnitude(text, end)
    gap = _UNIT_GAP.match(text, end)
    found = unit_at(text, gap.end() if gap else end)
    unit, end = found or (None, end)
    return Quantity(value * times, unit, start, end)


def equal(reference: Quantity, answer: Quantity, relative: Fraction, absolute: Fraction) -> bool:
    """Whether an answer is right by a reference.

    An answer without a unit is taken to have the unit of the reference, and the other way round. 50 %, 50
    and 0.5 are equal, as it is not said whether a share or a percentage was asked for.
    """

    def near(expected: Fraction, value: Fraction) -> bool:
        return abs(expected - value) <= max(absolute, relative * abs(expected))

    one, other = reference.unit, answer.unit
    if one and other:
        if one.dimensions == other.dimensions:
            return near(reference.value * one.factor, answer.value * other.factor)
        if PERCENT not in (one, other):
            return False
    if near(reference.value, answer.value):
        return True
    if one == PERCENT and not other:
        return near(reference.value / 100, answer.value)
    return other == PERCENT and not one and near(reference.value, answer.value / 100)
