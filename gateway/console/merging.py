"""Merges what the consoles of several workers know into what one console shows. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

_BREAKERS = ("closed", "half_open", "open")


def merge_snapshots(own: dict[str, Any], others: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The snapshot of all workers. What all know alike, such as models and budgets, is the own one's."""
    every = [own, *others]
    return own | {
        "since": min(each["since"] for each in every),
        "backends": _backends(every),
        "sums": reduce(_added, (each["sums"] for each in every)),
        "seconds": _seconds(every),
    }


def _added(first: Any, second: Any) -> Any:
    """Two numbers, or the numbers of two mappings, added."""
    if not isinstance(first, dict):
        return first + second
    return first | {
        name: _added(first[name], value) if name in first else value for name, value in second.items()
    }


def _seconds(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sums of each second over all workers, oldest first."""
    merged: dict[int, dict[str, Any]] = {}
    for each in every:
        for second in each["seconds"]:
            at = second["at"]
            if known := merged.get(at):
                merged[at] = known | {"sums": _added(known["sums"], second["sums"])}
            else:
                merged[at] = second
    return [merged[at] for at in sorted(merged)]


def _backends(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replicas in the order of the first worker's, as the worker sees each that sees the worst."""
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in every:
        for backend in each["backends"]:
            seen.setdefault((backend["model"], backend["name"]), []).append(backend)
    return [
        max(views, key=_trouble) | {"in_flight": sum(v["in_flight"] for v in views)}
        for views in seen.values()
    ]


def _trouble(backend: dict[str, Any]) -> tuple[bool, int]:
    return not backend["healthy"], _BREAKERS.index(backend["breaker"])
