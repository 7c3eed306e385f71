"""Reads counts, and JSON in general, from backends that do not write it as OpenAI does.

What is read here decides about numbers alone. So a value that cannot be read is unknown, and costs neither
the response nor the values beside it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_NUMBER = re.compile(r"\s*\d{1,15}(?:\.\d{0,15})?\s*")
_MOST = 2**53


def count_of(value: Any) -> int | None:
    """A count of tokens, also from `37.0` or `"37"`; None if it is none, such as -1, NaN or true."""
    if value is None or (type(value) is int and 0 <= value < _MOST):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and math.isfinite(value):
        value = math.ceil(value)
    return value if type(value) is int and 0 <= value < _MOST else None


def loose_object(text: bytes) -> dict[str, Any] | None:
    """A JSON object, also with a BOM, NaN, control characters or wrong UTF-8; None if it is none."""
    try:
        value = json.loads(text.decode("utf-8-sig", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def word_of(value: Any) -> str | None:
    """A word such as a finish reason, also from `{"type": "stop"}`; None if it is none."""
    if isinstance(value, dict):
        value = value.get("type")
    return value[:64] if isinstance(value, str) else None


def text_length(value: Any, depth: int = 4) -> int:
    """Characters of a text, or of all texts in parts such as `[{"type": "text", "text": "a"}]`."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = [part for name, part in value.items() if name != "type"]
    if isinstance(value, list) and depth:
        return sum(text_length(part, depth - 1) for part in value)
    return 0
