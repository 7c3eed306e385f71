"""What a reload changes, and what it may not change. No I/O."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from gateway.config.loader import Problem
from gateway.config.settings import Settings

_READ_AT_START = ("server", "limits", "redis", "reservations.lease", "evidence")
"""Settings that a reload does not change, as what they configure lives as long as the process."""
_NAMED = 5  # names in one list of a sentence


def forbidden_changes(old: Settings, new: Settings) -> list[Problem]:
    """Why a reload must not replace one configuration by the other; empty if it may.

    A file without `keys` can be a mistake, or half a file. Taking it would open the gateway to everybody.
    """
    problems = []
    if old.keys and not new.keys:
        problems.append(
            Problem(None, "keys", "no API key is left; only a restart opens the gateway to everybody")
        )
    if new.console_is_open and not old.console_is_open:
        problems.append(Problem(None, "console", "no key is needed; only a restart opens it to everybody"))
    if old.metrics.hash and not new.metrics.hash:
        problems.append(Problem(None, "metrics", "no key is left; only a restart opens it to everybody"))
    if old.budgets and not new.budgets and "budgets" not in new.model_fields_set:
        problems.append(Problem(None, "budgets", "no budget is left; write `budgets: []` if that is meant"))
    return problems


def describe_changes(old: Settings, new: Settings) -> str:
    """The settings that differ, with the names of entries that are new (+), gone (-) or different (~)."""
    changed = []
    for setting in Settings.model_fields:
        before, after = getattr(old, setting), getattr(new, setting)
        if before != after:
            names = _names(before, after)
            changed.append(f"{setting} ({names})" if names else setting)
    return ", ".join(changed) or "no setting changed"


def late_changes(started: Settings, new: Settings) -> list[str]:
    """The settings that differ from those at the start of the process, and change only at the next start."""
    return [name for name in _READ_AT_START if attrgetter(name)(new) != attrgetter(name)(started)]


def _names(before: Any, after: Any) -> str:
    """The names of entries that differ; empty for a setting that has no named entries."""
    old, new = _entries(before), _entries(after)
    signs = [("+", [n for n in new if n not in old]), ("-", [n for n in old if n not in new])]
    signs.append(("~", [n for n in new if n in old and new[n] != old[n]]))
    return " ".join(_listed(sign, names) for sign, names in signs if names)


def _entries(section: Any) -> dict[str, Any]:
    if isinstance(section, dict):
        return section
    return (
        {entry.name: entry for entry in section if hasattr(entry, "name")}
        if isinstance(section, list)
        else {}
    )


def _listed(sign: str, names: list[str]) -> str:
    more = f" {sign}{len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return " ".join(sign + name for name in names[:_NAMED]) + more
