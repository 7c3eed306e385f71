"""Finds the operator's rules that match a request. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.config.rules import Rule, When
from gateway.openai_api.requests import Request


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions of a rule are compared with."""

    key: str | None
    model: str
    headers: Mapping[bytes, bytes]
    request: Request


class RuleBook:
    """The operator's rules, with their regular expressions compiled."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = [(rule, re.compile(rule.when.prompt) if rule.when.prompt else None) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matching(self, facts: Facts) -> list[Rule]:
        """The rules whose conditions all hold, in the order of the configuration file."""
        return [rule for rule, pattern in self._rules if _holds(rule.when, pattern, facts)]


def _holds(when: When, pattern: re.Pattern[str] | None, facts: Facts) -> bool:
    if when.key is not None and facts.key not in when.key:
        return False
    if when.model is not None and facts.model not in when.model:
        return False
    if when.tools is not None and facts.request.tools is not when.tools:
        return False
    if when.header is not None and not all(
        facts.headers.get(name.lower().encode()) == value.encode() for name, value in when.header.items()
    ):
        return False
    metadata: Mapping[str, Any] = facts.request.metadata or {}
    if when.metadata is not None and any(metadata.get(n) != v for n, v in when.metadata.items()):
        return False
    return pattern is None or pattern.search(facts.request.conversation) is not None
