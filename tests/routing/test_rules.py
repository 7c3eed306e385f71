"""Which rules match a request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.rules import Rule, When
from gateway.routing.rules import Facts, RuleBook
from tests.making import chat

FACTS = Facts(
    "team-a",
    "tiny",
    {b"x-importance": b"high"},
    chat("please PROVE it", tools=[{}], metadata={"job": "billing", "n": 1}),
)


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"key": ["team-b", "team-a"]}, True),
        ({"key": ["team-b"]}, False),
        ({"key": []}, False),
        ({"model": ["tiny"]}, True),
        ({"model": ["huge"]}, False),
        ({"header": {"X-Importance": "high"}}, True),
        ({"header": {"X-Importance": "high", "x-other": "1"}}, False),
        ({"header": {"X-Importance": "HIGH"}}, False),
        ({"metadata": {"job": "billing"}}, True),
        ({"metadata": {"job": "billing", "n": "1"}}, False),
        ({"prompt": "(?i)prove"}, True),
        ({"prompt": "prove"}, False),
        ({"tools": True}, True),
        ({"tools": False}, False),
        ({"key": ["team-a"], "prompt": "nowhere"}, False),
    ],
)
def test_rule_matches(when: dict[str, Any], holds: bool) -> None:
    """A rule matches when all its conditions hold; values are compared exactly."""
    rule = Rule(name="r", when=When(**when), floor="long")

    assert RuleBook([rule]).matching(FACTS) == ([rule] if holds else [])


def test_rules_keep_the_order_of_the_file() -> None:
    """All matching rules are found, in the order of the file."""
    rules = [Rule(name=name, floor="long") for name in ("b", "a", "c")]

    assert RuleBook(rules).matching(FACTS) == rules


def test_no_metadata_and_no_key() -> None:
    """A request without a key and metadata matches no rule with a condition on either."""
    rules = [Rule(name="k", when=When(key=["a"]), tier="long")]
    rules.append(Rule(name="m", when=When(metadata={"a": "b"}), tier="long"))

    assert RuleBook(rules).matching(Facts(None, "tiny", {}, chat())) == []
