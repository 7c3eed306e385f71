"""Explains a decision: why this rung, and at which price another one would be chosen. No I/O."""

from __future__ import annotations

from bisect import bisect_right

from msgspec import Struct

from gateway.routing.decision import Decision
from router_model.allocation import best_tier, hull, steps

_BECAUSE = {
    "price": "{tier} is worth most at this price.",
    "pinned": "The client pinned {tier}.",
    "only_tier": "The model has no other tier.",
    "client_ceiling": "The client allows no more than {tier}; a longer tier was worth more.",
    "key_ceiling": "The client's key allows no more than {tier}; a longer tier was worth more.",
    "rule_ceiling": "Rule {rule} allows no more than {tier}; a longer tier was worth more.",
    "uncertified": "{tier} is the safest tier; no price is certified yet to keep the promise of quality.",
    "model_floor": "{tier} is the model's guaranteed minimum; a shorter tier would have been chosen.",
    "drift_floor": "{tier} is the minimum while the model is wrong more often than the head says.",
    "key_floor": "{tier} is the key's guaranteed minimum; a shorter tier would have been chosen.",
    "rule_floor": "Rule {rule} guarantees {tier}; a shorter tier would have been chosen.",
    "rule_tier": "Rule {rule} fixes {tier}.",
    "budget": "The token budget had no room for a longer tier than {tier}.",
    "context": "The model's context has no room beside the prompt for a longer tier than {tier}.",
    "prior": "The model was never measured; for reasoning models in general {tier} is worth most.",
    "abstained": "The prompt is unlike the head's training data; judged by its length, {tier} is worth most.",
    "holdout": "Held out, to compare with: {tier} is the fixed tier, or the nearest that is allowed.",
    "explored": "{tier} was drawn at random, to learn how other tiers do.",
}
_NEEDS = {
    "budget": "A longer tier needs room in the budget: wait until tokens leave the window, or raise "
    "the limit.",
    "context": "A longer tier needs a shorter prompt, or a model with a longer context.",
}
"""What a longer tier needs, where something had no room for it."""


class PriceRange(Struct, frozen=True):
    """A range of prices in which one rung has the highest value. Where two ranges meet, both have it."""

    rung: int
    """Position on the ladder."""
    tier: str
    """The named tier at or below the rung."""
    thinking: int
    """Thinking tokens of the rung."""
    low: float
    high: float | None
    """None if the range has no upper end."""


class Explanation(Struct, frozen=True):
    """Why a rung was chosen, and what would change the choice."""

    because: str
    """Why this tier, in one sentence."""
    longer: str
    """What it would take to get more thinking, in one sentence."""
    ranges: tuple[PriceRange, ...]
    """The rung with the highest value at each price, from price 0 up."""
    next_tier: str | None
    """The tier of the range below the price of the decision; None if there is none."""
    next_thinking: int | None
    """Thinking tokens of that range's rung."""
    next_price: float | None
    """The price at or below which that rung would be chosen."""


def price_ranges(decision: Decision) -> tuple[PriceRange, ...]:
    """The rung with the highest value at each price λ ≥ 0, from price 0 up, among those to choose from.

    Those are the eligible rungs, or all of them if only one is eligible. The value of a rung is a line in λ:
    p̂ − λ·ĉ/1000. The highest lines are the corners of the upper concave hull of (ĉ, p̂), and two neighbouring
    corners have the same value at λ = 1000·(p̂ᵢ − p̂ⱼ)/(ĉᵢ − ĉⱼ).
    """
    among = _choices(decision)
    correct, tokens = decision.rungs.correct[among], decision.rungs.tokens[among]
    corners = [among.start + corner for corner in reversed(hull(correct, tokens))]
    crossings = [slope for slope, _ in reversed(steps(correct, tokens))]
    edges = [0.0, *crossings]
    highs = [*crossings, None]
    return tuple(
        PriceRange(rung, _tier(decision, rung), decision.rungs.thinking[rung], low, high)
        for rung, low, high in zip(corners, edges, highs, strict=True)
    )


def explain(decision: Decision) -> Explanation:
    """Explain a decision in words and prices."""
    ranges = price_ranges(decision)
    reached = [span for span in ranges if span.high is not None and span.high <= decision.price]
    following = reached[-1] if reached else None
    because = _BECAUSE.get(decision.reason, "{tier} was chosen.")
    return Explanation(
        because=because.format(tier=_words(decision, decision.rung), rule=decision.rule),
        longer=_longer(decision, following),
        ranges=ranges,
        next_tier=following.tier if following else None,
        next_thinking=following.thinking if following else None,
        next_price=following.high if following else None,
    )


def _choices(decision: Decision) -> slice:
    """The eligible rungs; all of them if only one is eligible."""
    rungs = decision.rungs
    if rungs.lowest == rungs.highest:
        return slice(0, len(rungs.thinking))
    return slice(rungs.lowest, rungs.highest + 1)


def _best(decision: Decision, among: slice) -> str:
    """The rung with the highest value at the price of the decision, in words."""
    rungs = decision.rungs
    positions = range(among.start, among.stop)
    return _words(decision, best_tier(rungs.correct, rungs.tokens, decision.price, positions))


def _tier(decision: Decision, rung: int) -> str:
    """The named tier at or below a rung."""
    return tuple(decision.correct)[bisect_right(decision.rungs.named, rung) - 1]


def _words(decision: Decision, rung: int) -> str:
    """A rung in words: "short", or "short with 1,448 thinking tokens" for one between two tiers."""
    rungs, tier = decision.rungs, _tier(decision, rung)
    return tier if rung in rungs.named else f"{tier} with {rungs.thinking[rung]:,} thinking tokens"


def _longer(decision: Decision, following: PriceRange | None) -> str:
    everything = slice(0, len(decision.rungs.thinking))
    if decision.rung == everything.stop - 1:
        return "There is no longer tier."
    reason: str = decision.reason
    if reason in ("pinned", "rule_tier", "abstained", "explored", "holdout"):
        return f"By value alone, {_best(decision, _choices(decision))} would be chosen at this price."
    if reason.endswith("_ceiling"):
        return f"Without the ceiling, {_best(decision, everything)} would be chosen at this price."
    if reason in _NEEDS:
        return _NEEDS[reason]
    if following is None or following.rung < decision.rung:
        return "No price would buy more thinking: the head expects no gain from it."
    return f"{_words(decision, following.rung)} would be chosen at a price of {following.high:.3g} or less."
