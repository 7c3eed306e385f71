"""Units of measurement, so that 12 km and 12,000 m are equal. No I/O."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple


class Unit(NamedTuple):
    """A unit, by what it measures."""

    factor: Fraction
    """What one is worth in base units."""
    dimensions: tuple[tuple[str, int], ...]
    """Base units and their powers, sorted."""


PERCENT = Unit(Fraction(1), (("%", 1),))

# base unit: factor, symbols (case matters), words in the singular
_TABLE: dict[str, list[tuple[str, str, str]]] = {
    "%": [("1", "%", "percent")],
    "m": [
        ("1", "m", "meter metre"),
        ("1000", "km", "kilometer kilometre"),
        ("1/100", "cm", "centimeter centimetre"),
        ("1/10", "dm", "decimeter decimetre"),
        ("1/1000", "mm", "millimeter millimetre"),
        ("1/1000000", "µm μm um", "micrometer micrometre micron"),
        ("1/1000000000", "nm", "nanometer nanometre"),
        ("0.0254", "", "inch"),
        ("0.3048", "ft", "foot feet"),
        ("0.9144", "yd", "yard"),
        ("1609.344", "mi", "mile"),
    ],
    "g": [
        ("1", "g", "gram gramme"),
        ("1000", "kg", "kilogram kilogramme kilo"),
        ("1/1000", "mg", "milligram"),
        ("1/1000000", "µg μg", "microgram"),
        ("1000000", "t", "tonne"),
        ("453.59237", "lb lbs", "pound"),
        ("28.349523125", "oz", "ounce"),
    ],
    "s": [
        ("1", "s sec secs", "second"),
        ("1/1000", "ms", "millisecond"),
        ("60", "min mins", "minute"),
        ("3600", "h hr hrs", "hour"),
        ("86400", "d", "day"),
        ("604800", "", "week"),
    ],
    "month": [("1", "", "month"), ("12", "yr yrs", "year")],
    "l": [
        ("1", "l L", "liter litre"),
        ("1/1000", "ml mL", "milliliter millilitre"),
        ("1/100", "cl cL", "centiliter centilitre"),
        ("1/10", "dl dL", "deciliter decilitre"),
    ],
    "B": [
        ("1", "B", "byte"),
        ("1/8", "", "bit"),
        ("1000", "kB KB", "kilobyte"),
        ("1000000", "MB", "megabyte"),
        ("1000000000", "GB", "gigabyte"),
        ("1000000000000", "TB", "terabyte"),
        ("1024", "KiB", ""),
        ("1048576", "MiB", ""),
        ("1073741824", "GiB", ""),
    ],
    "$": [("1", "$ USD", "dollar"), ("1/100", "¢", "cent")],
    "€": [("1", "€ EUR", "euro")],
    "£": [("1", "£ GBP", "")],
    "¥": [("1", "¥ JPY", "yen")],
    "₹": [("1", "₹ INR", "rupee")],
    "°": [("1", "°", "degree")],
    "°C": [("1", "°C", "celsius")],
    "°F": [("1", "°F", "fahrenheit")],
    "K": [("1", "K", "kelvin")],
    "J": [("1", "J", "joule"), ("1000", "kJ", "kilojoule"), ("3600000", "kWh", "")],
    "W": [("1", "W", "watt"), ("1000", "kW", "kilowatt"), ("1000000", "MW", "megawatt")],
    "N": [("1", "N", "newton")],
    "Pa": [("1", "Pa", "pascal"), ("1000", "kPa", "kilopascal"), ("100000", "bar", "")],
    "V": [("1", "V", "volt")],
    "A": [("1", "A", "ampere amp")],
    "Ω": [("1", "Ω", "ohm")],
    "Hz": [("1", "Hz", "hertz"), ("1000", "kHz", ""), ("1000000", "MHz", ""), ("1000000000", "GHz", "")],
    "mol": [("1", "mol", "mole")],
}
_RATES = {"mph": ("1609.344", 3600), "kph": ("1000", 3600), "kmh": ("1000", 3600)}
_WORDS: dict[str, tuple[Fraction, str]] = {}
_SYMBOLS: dict[str, tuple[Fraction, str]] = {}
for _base, _rows in _TABLE.items():
    for _factor, _symbols, _words in _rows:
        _SYMBOLS |= {symbol: (Fraction(_factor), _base) for symbol in _symbols.split()}
        _WORDS |= {
            plural: (Fraction(_factor), _base)
            for word in _words.split()
            for plural in (word, f"{word}s", f"{word}es")
        }

_NAMES = "|".join(re.escape(name) for name in sorted(_SYMBOLS, key=len, reverse=True))
_ONE = (
    rf"(?:(square|sq\.?|cubic)\s+)?(?:({_NAMES})(?![A-Za-z])|([A-Za-z]+))"
    r"(?:\^\{?([23])\}?|\s+(squared|cubed)\b)?"
)
_FIRST = re.compile(_ONE, re.IGNORECASE)
_PER = re.compile(rf"(?:\s*/\s*|\s+per\s+|\s+an?\s+(?=hour|day))(?:{_ONE})", re.IGNORECASE)
_INCHES = re.compile(r"in(?=[.,;:)]|\s*$)")
_POWERS = {"square": 2, "sq": 2, "sq.": 2, "squared": 2, "cubic": 3, "cubed": 3, "2": 2, "3": 3}


def unit_at(text: str, start: int) -> tuple[Unit, int] | None:
    """The unit that begins at `start`, and where it ends; None if what stands there is no unit."""
    if inches := _INCHES.match(text, start):  # "12 in" at the end; elsewhere it is the preposition
        return Unit(Fraction("0.0254"), (("m", 1),)), inches.end()
    first = _FIRST.match(text, start)
    unit = _unit(first) if first else None
    if not first or not unit:
        return None
    below = _PER.match(text, first.end())
    divisor = _unit(below) if below else None
    if not below or not divisor:
        return unit, first.end()
    return _over(unit, divisor), below.end()


def _unit(match: re.Match[str]) -> Unit | None:
    before, symbol, word, exponent, after = match.groups()
    name = symbol or word
    if name.lower() in _RATES and not (before or exponent or after):
        length, seconds = _RATES[name.lower()]
        return Unit(Fraction(length) / seconds, (("m", 1), ("s", -1)))
    found = _SYMBOLS.get(name) or _WORDS.get(name.lower())
    if not found:
        return None
    power = _POWERS[(before or exponent or after or "1").lower()] if before or exponent or after else 1
    factor, base = found
    if base == "l":
        factor, base, each = factor / 1000, "m", 3
    else:
        each = 1
    return Unit(factor**power, ((base, each * power),))


def _over(unit: Unit, divisor: Unit) -> Unit:
    powers = dict(unit.dimensions)
    for base, power in divisor.dimensions:
        powers[base] = powers.get(base, 0) - power
    dimensions = tuple(sorted((base, power) for base, power in powers.items() if power))
    return Unit(unit.factor / divisor.factor, dimensions)
