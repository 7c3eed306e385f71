"""What a reload says that it changes, and what only a restart may change."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config.changes import describe_changes, forbidden_changes
from gateway.config.loader import ConfigError, parse
from gateway.config.settings import Settings
from tests.making import settings

KEYS = {"keys": [{"name": "web", "key": "k"}, {"name": "app", "key": "l"}]}
BUDGETS = {"budgets": [{"name": "day", "window": "24h", "tokens": 1000}]}
ADMIN, CONSOLE = {"admin": {"key": "adm"}}, {"console": {"key": "con"}}
OPEN = {"console": {"enabled": True}}


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        (KEYS, {}, "keys"),
        (KEYS, {"keys": []}, "keys"),
        (KEYS, {"keys": None}, "keys"),
        (KEYS, {"console": {"enabled": False}}, "keys"),
        (CONSOLE, {}, "console"),
        (KEYS | CONSOLE | {"console": {"key": "con", "enabled": True}}, KEYS | OPEN, "console"),
        (KEYS | ADMIN | OPEN, KEYS | OPEN, "console"),
        (KEYS, KEYS | OPEN, "console"),
        ({"console": {"enabled": False}}, {}, "console"),
        ({"metrics": {"key": "met"}}, {}, "metrics"),
        (BUDGETS, {}, "budgets"),
        (KEYS | BUDGETS, KEYS, "budgets"),
    ],
)
def test_reload_may_not_open(old: dict[str, Any], new: dict[str, Any], place: str) -> None:
    """All keys, the last key of the console or all budgets cannot vanish by a reload."""
    problems = forbidden_changes(settings(**old), settings(**new))

    assert place in [problem.place for problem in problems]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {}),
        ({}, KEYS | BUDGETS | ADMIN | CONSOLE),
        (KEYS, {"keys": [{"name": "other", "key": "m"}]}),
        (KEYS | ADMIN, KEYS),
        (KEYS | CONSOLE, KEYS),
        (BUDGETS, {"budgets": []}),
        (BUDGETS, {"budgets": [{"name": "week", "window": "7d", "tokens": 1}]}),
    ],
)
def test_reload_may_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Everything else takes effect: other keys, no admin, other budgets, or none that says so."""
    assert forbidden_changes(settings(**old), settings(**new)) == []


def test_no_beginning_of_a_file_opens_the_gateway() -> None:
    """However many lines of a file have been written, a reload leaves keys, console and budgets in force."""
    whole = settings(**(ADMIN | BUDGETS | CONSOLE | KEYS))
    order = ("models", "admin", "console", "keys", "budgets")
    sections = {"models": {"tiny": {"family": "qwen3", "replicas": [{"url": "http://a"}]}}}
    sections |= ADMIN | CONSOLE | KEYS | BUDGETS
    taken: list[Settings] = []
    for first in range(len(order)):
        rotated = [*order[first:], *order[:first]]
        lines = yaml.safe_dump({name: sections[name] for name in rotated}, sort_keys=False).splitlines(True)
        for count in range(len(lines) + 1):
            try:
                new = parse("".join(lines[:count]), {})
            except ConfigError:
                continue
            if not forbidden_changes(whole, new):
                taken.append(new)

    assert taken
    assert all(new.keys and new.budgets and not new.console_is_open for new in taken)


def test_changes_are_named() -> None:
    """The log says which entries are new, gone or different, and names only some of many."""
    old = settings(**KEYS, **BUDGETS, price=0.1)
    keys = [{"name": "web", "key": "other"}, {"name": "new", "key": "n"}]
    new = settings(keys=keys, **BUDGETS, price=0.2, rules=[{"name": "r", "floor": "short"}])
    many = settings(keys=[{"name": f"k{i}", "key": f"k{i}"} for i in range(100)])

    assert describe_changes(old, new) == "price, rules (+r), keys (+new -app ~web)"
    assert describe_changes(old, old) == "no setting changed"
    assert describe_changes(settings(), many) == "keys (+k0 +k1 +k2 +k3 +k4 +95 more)"
    assert "other" not in describe_changes(old, new)
