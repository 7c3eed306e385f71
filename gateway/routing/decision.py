"""The record of one routing decision: the rung, its tier, the reason, and every input."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gateway.http.headers import Headers

Reason = Literal[
    "price",  # the best value at today's price
    "prior",  # the best value for reasoning models in general: this model was never measured
    "abstained",  # the best value judged by length: the prompt is unlike the head's training data
    "pinned",  # the client named the tier
    "explored",  # drawn at random, to learn how the other tiers do
    "only_tier",  # the model has one tier
    "client_ceiling",  # a ceiling of the client, the key or a rule excluded the best value
    "key_ceiling",
    "rule_ceiling",
    "model_floor",  # a floor of the model, the key or a rule excluded the best value
    "drift_floor",  # the same, of a model whose answers are wrong more often than the head says
    "key_floor",
    "rule_floor",
    "rule_tier",  # a rule fixes the tier
    "budget",  # a budget had no room for more
    "uncertified",  # the safest tier, as no price is certified to keep the promise of quality
    "holdout",  # the fixed policy, for those who are held out
    "context",  # the model's context had no room for more beside the prompt
]
"""Why a tier was chosen. The set is closed."""


class Rungs(Struct, frozen=True):
    """The head's estimates for every rung of the model's ladder, shortest first.

    With the price they are all that the choice was made from, so it can be replayed at any price.
    """

    thinking: tuple[int, ...]
    """Reasoning tokens."""
    correct: tuple[float, ...]
    """P(right)."""
    tokens: tuple[float, ...]
    """Expected completion tokens."""
    named: tuple[int, ...]
    """Positions of the rungs that are named tiers."""
    lowest: int
    """Position of the shortest eligible rung."""
    highest: int
    """Position of the longest eligible rung."""


class Decision(Struct, frozen=True):
    """The decision for one request, with all its inputs, so that it can be replayed."""

    id: str
    model: str
    tier: str
    """The named tier at or below the chosen rung."""
    reason: Reason
    rule: str | None
    """The rule behind the reason, if there is one."""
    requested: str
    """The tier that the client pins or allows at most; `adaptive` if it leaves the choice to the gateway."""
    eligible: tuple[str, ...]
    """The named tiers among the eligible rungs."""
    thinking: int
    """Reasoning tokens granted: those of the rung, or fewer if a limit cuts it."""
    cap: int | None
    """Completion tokens granted, reasoning included; None if there is no limit."""
    difficulty: float
    correct: dict[str, float]
    """P(right) by named tier, as the head estimates it."""
    tokens: dict[str, float]
    """Expected completion tokens by named tier, as the head estimates them."""
    price: float
    """Probability of a right answer that 1,000 tokens must buy."""
    propensity: float
    """Probability that this request gets this rung, exploration and limiter included."""
    versions: dict[str, str]
    rung: int
    """Position of the chosen rung on the model's ladder."""
    rung_correct: float
    """P(right) at the chosen rung."""
    rung_tokens: float
    """Expected completion tokens at the chosen rung."""
    rungs: Rungs
    wanted: str | None = None
    """The tier before a budget or the context shortened the request; None if neither did."""
    wanted_rung: int | None = None
    """Position of the rung before a budget or the context shortened the request; None if neither did."""
    arm: str | None = None
    """`adaptive`, or `holdout` for the fixed policy; None where both arms would get the same rung."""
    compared: bool = False
    """A hold-out is configured, so that the client is told its arm."""

    def headers(self, *, budget_sent: bool) -> Headers:
        """Response headers about the decision. budget_sent: the backend was told the thinking budget."""
        notes = [(b"x-thinkmeter-degraded-from", self.wanted.encode())] if self.wanted else []
        if self.thinking and not budget_sent:
            notes.append((b"x-thinkmeter-thinking-budget-sent", b"no"))
        if self.compared and self.arm:
            notes.append((b"x-thinkmeter-arm", self.arm.encode()))
        return [
            *notes,
            (b"x-thinkmeter-tier", self.tier.encode()),
            (b"x-thinkmeter-tier-requested", self.requested.encode()),
            (b"x-thinkmeter-reason", self.reason.encode()),
            (b"x-thinkmeter-difficulty", b"%.3f" % self.difficulty),
            (b"x-thinkmeter-thinking-budget", b"%d" % self.thinking),
            (b"x-thinkmeter-decision-id", self.id.encode()),
        ]
