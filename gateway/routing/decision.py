"""The record of one decision: the tier, the reason, and everything it was made from."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Reason = Literal[
    "price",  # the best value at today's price
    "abstained",  # the best value on average: the prompt is unlike all that the head was trained on
    "pinned",  # the client named the tier
    "explored",  # drawn at random, so that the estimates stay honest
    "only_tier",  # the model has no other
    "client_ceiling",  # the best value lay above what the client allows
    "key_ceiling",
    "rule_ceiling",
    "model_floor",  # the best value lay below the guaranteed minimum
    "key_floor",
    "rule_floor",
    "rule_tier",  # a rule fixes it
    "budget",  # no window had room for more
]
"""Why a tier was chosen: a closed set."""


class Decision(Struct, frozen=True):
    """What was decided for one request, and everything it was decided from; logged, replayable.

    correct, tokens: estimates by tier. price: probability of a right answer that 1,000 tokens must buy.
    propensity: probability with which this tier was drawn from the eligible ones.
    thinking: reasoning tokens granted; cap: completion tokens in all, None where no cap is set.
    wanted: the tier before a budget had no room for it, or not for all of it; None where it had.
    """

    id: str
    model: str
    tier: str
    reason: Reason
    rule: str | None
    requested: str
    eligible: tuple[str, ...]
    thinking: int
    cap: int | None
    difficulty: float
    correct: dict[str, float]
    tokens: dict[str, float]
    price: float
    propensity: float
    versions: dict[str, str]
    wanted: str | None = None
