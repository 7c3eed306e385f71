"""Reads whole numbers as leniently as backends do. No I/O."""

from __future__ import annotations

from typing import Any


def whole_number(value: Any) -> int | None:
    """The whole number that a JSON value stands for, such as 20, 20.0 or "20"; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None
