r"""Turns LaTeX, Markdown and typographic signs around numbers into plain text. No I/O."""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_FRACTION = re.compile("[¼½¾⅐-⅞↉]")
_MATH = [
    (re.compile(r"\\(?:left|right|displaystyle|!)"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=\d)\\[,;: ](?=\d{3})"), "\u2009"),
    (re.compile(r"\\[,;: ]|~"), " "),
    (re.compile(r"\\([$%&#])"), r"\1"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree"), "°"),
    (re.compile(r"\\(?:times|cdot)"), "×"),
    (re.compile(r"\\approx"), "≈"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"(?<=\d)\s*\\frac\{\s*(\d+)\s*\}\{\s*(\d+)\s*\}"), r" \1/\2"),
    (re.compile(r"\\frac\{\s*(-?[\d.,]+)\s*\}\{\s*([\d.,]+)\s*\}"), r"\1/\2"),
    (re.compile(r"\\[\[\]()]|\$\$"), " "),
    (re.compile(r"\$(?=\S)([^$\n]*?\S)\$(?!\d)"), r" \1 "),
    (re.compile(r"\^\{(-?\d+)\}"), r"^\1"),
]
_SIGNS = [
    (re.compile("−|﹣|－"), "-"),
    (re.compile(r"(?<![\w)])[–—](?=[\d.$€£¥₹])"), "-"),
    (re.compile(r"\*\*|__|`"), " "),
    (re.compile(r"(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)"), " "),
]


def without_markup(text: str) -> str:
    """The text without markup around its numbers."""
    text = _FRACTION.sub(_spelled_fraction, text)
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    for pattern, replacement in _SIGNS:
        text = pattern.sub(replacement, text)
    for pattern, replacement in _MATH:
        text = pattern.sub(replacement, text)
    return text.translate(_FULL_WIDTH)


_FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}


def _spelled_fraction(match: re.Match[str]) -> str:
    parts = unicodedata.normalize("NFKC", match[0]).replace("\N{FRACTION SLASH}", "/")
    mixed = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return f" {parts}" if mixed else parts
