"""The record of one routing decision: the tier, the reason, and every input."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Reason = Literal[
    "price",  # the best value at today's price
    "abstained",  # the best value judged by length: the prompt is unlike the head's training data
    "pinned",  # the client named the tier
    "explored",  # drawn at random, to learn how the other tiers do
    "only_tier",  # the model has one tier
    "client_ceiling",  # a ceiling of the client, the key or a rule excluded the best value
    "key_ceiling",
    "rule_ceiling",
    "model_floor",  # a floor of the model, the key or a rule excluded the best value
    "key_floor",
    "rule_floor",
    "rule_tier",  # a rule fixes the tier
    "budget",  # a budget had no room for more
]
"""Why a tier was chosen. The set is closed."""


class Decision(Struct, frozen=True):
    """The decision for one request, with all its inputs, so that it can be replayed."""

    id: str
    model: str
    tier: str
    reason: Reason
    rule: str | None
    """The rule behind the reason, if there is one."""
    requested: str
    """The tier that the client pins or allows at most; `adaptive` if it leaves the choice to the gateway."""
    eligible: tuple[str, ...]
    thinking: int
    """Reasoning tokens granted."""
    cap: int | None
    """Completion tokens granted, reasoning included; None if there is no limit."""
    difficulty: float
    correct: dict[str, float]
    """P(right) by tier, as the head estimates it."""
    tokens: dict[str, float]
    """Expected completion tokens by tier, as the head estimates them."""
    price: float
    """Probability of a right answer that 1,000 tokens must buy."""
    propensity: float
    """Probability that this request gets this tier, exploration and limiter included."""
    versions: dict[str, str]
    wanted: str | None = None
    """The tier before a budget shortened the request; None if none did."""
