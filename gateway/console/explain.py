"""Explains a decision: why this tier, and at which price another one would be chosen. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from gateway.routing.decision import Decision
from router_model.allocation import best_tier

_BECAUSE = {
    "price": "{tier} is worth most at this price.",
    "pinned": "The client pinned {tier}.",
    "only_tier": "The model has no other tier.",
    "client_ceiling": "The client allows no more than {tier}; a longer tier was worth more.",
    "key_ceiling": "The client's key allows no more than {tier}; a longer tier was worth more.",
    "rule_ceiling": "Rule {rule} allows no more than {tier}; a longer tier was worth more.",
    "model_floor": "{tier} is the model's guaranteed minimum; a shorter tier would have been chosen.",
    "key_floor": "{tier} is the key's guaranteed minimum; a shorter tier would have been chosen.",
    "rule_floor": "Rule {rule} guarantees {tier}; a shorter tier would have been chosen.",
    "rule_tier": "Rule {rule} fixes {tier}.",
    "budget": "The token budget had no room for a longer tier than {tier}.",
    "abstained": "The prompt is unlike the head's training data; judged by its length, {tier} is worth most.",
    "explored": "{tier} was drawn at random, to learn how other tiers do.",
}


class PriceRange(Struct, frozen=True):
    """A range of prices in which one tier has the highest value. Where two ranges meet, both have it."""

    tier: str
    low: float
    high: float | None
    """None if the range has no upper end."""


class Explanation(Struct, frozen=True):
    """Why a tier was chosen, and what would change the choice."""

    because: str
    """Why this tier, in one sentence."""
    longer: str
    """What it would take to get a longer tier, in one sentence."""
    ranges: tuple[PriceRange, ...]
    """The tier with the highest value at each price, from price 0 up."""
    next_tier: str | None
    """The tier of the range below the price of the decision; None if there is none."""
    next_price: float | None
    """The price at or below which `next_tier` would be chosen."""


def best(
    tiers: Sequence[str], correct: Mapping[str, float], tokens: Mapping[str, float], price: float
) -> str:
    """The tier with the highest value, the first of `tiers` on a tie."""
    return tiers[best_tier([correct[tier] for tier in tiers], [tokens[tier] for tier in tiers], price)]


def price_ranges(
    tiers: Sequence[str], correct: Mapping[str, float], tokens: Mapping[str, float]
) -> tuple[PriceRange, ...]:
    """The tier with the highest value at each price λ ≥ 0, from price 0 up.

    The value of a tier is a line in λ: p̂ − λ·ĉ/1000. Two lines cross at λ = 1000·(p̂ᵢ − p̂ⱼ)/(ĉᵢ − ĉⱼ), and
    between two neighbouring crossings the best tier does not change.
    """
    crossings = {
        1000 * (correct[one] - correct[other]) / (tokens[one] - tokens[other])
        for one in tiers
        for other in tiers
        if tokens[one] > tokens[other] and correct[one] > correct[other]
    }
    edges = [0.0, *sorted(crossings)]
    ranges: list[PriceRange] = []
    for low, high in [*pairwise(edges), (edges[-1], None)]:
        tier = best(tiers, correct, tokens, low + 1.0 if high is None else (low + high) / 2)
        if ranges and ranges[-1].tier == tier:
            ranges[-1] = PriceRange(tier, ranges[-1].low, high)
        else:
            ranges.append(PriceRange(tier, low, high))
    return tuple(ranges)


def explain(decision: Decision) -> Explanation:
    """Explain a decision in words and prices."""
    names = tuple(decision.correct)
    tiers = decision.eligible if len(decision.eligible) > 1 else names
    ranges = price_ranges(tiers, decision.correct, decision.tokens)
    reached = [span for span in ranges if span.high is not None and span.high <= decision.price]
    following = reached[-1] if reached else None
    because = _BECAUSE.get(decision.reason, "{tier} was chosen.")
    return Explanation(
        because=because.format(tier=decision.tier, rule=decision.rule),
        longer=_longer(decision, tiers, following),
        ranges=ranges,
        next_tier=following.tier if following else None,
        next_price=following.high if following else None,
    )


def _longer(decision: Decision, tiers: Sequence[str], following: PriceRange | None) -> str:
    names = tuple(decision.correct)
    if decision.tier == names[-1]:
        return "There is no longer tier."
    reason: str = decision.reason
    if reason in ("pinned", "rule_tier", "abstained", "explored"):
        free = best(tiers, decision.correct, decision.tokens, decision.price)
        return f"By value alone, {free} would be chosen at this price."
    if reason.endswith("_ceiling"):
        free = best(names, decision.correct, decision.tokens, decision.price)
        return f"Without the ceiling, {free} would be chosen at this price."
    if reason == "budget":
        return (
            "A longer tier needs room in the budget: wait until tokens leave the window, or raise the limit."
        )
    if following is None or names.index(following.tier) < names.index(decision.tier):
        return "No price would buy a longer tier: the head expects no gain from one."
    return f"{following.tier} would be chosen at a price of {following.high:.3g} or less."
