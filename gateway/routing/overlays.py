"""Fills in the template of a family: the fields that a request gets for a tier. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def filled(template: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Replace the placeholders of a family's template; drop fields whose placeholder has no value.

    For example, {"thinking_token_budget": "$budget"} becomes {"thinking_token_budget": 1024}.
    """
    return {
        name: filled(value, values) if isinstance(value, dict) else values.get(str(value), value)
        for name, value in template.items()
        if not str(value).startswith("$") or value in values
    }


def places_of(value: str, template: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The paths at which a value stands in a family's template, such as `("thinking_token_budget",)`."""
    for name, inner in template.items():
        if isinstance(inner, dict):
            yield from ((name, *path) for path in places_of(value, inner))
        elif inner == value:
            yield (name,)
