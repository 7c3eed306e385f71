"""Chooses a rung: bounds limit the choice, then the price decides. No I/O, no clock, no randomness."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from gateway.routing.bounds import Bounds
from gateway.routing.decision import Decision, Reason, Rungs
from gateway.routing.exploration import Draw, explore
from gateway.routing.outline import Outline
from router_model.allocation import best_tier
from router_model.predictor import Prediction


class Choice(Struct, frozen=True):
    """A chosen rung, before it is recorded as a decision."""

    index: int
    """Position of the rung on the ladder."""
    reason: Reason
    rule: str | None
    """The rule behind the reason, if there is one."""
    eligible: range
    """Positions that the rung was chosen from."""
    draw: Draw | None = None
    """The random draw, if exploration was on."""


def explore_choice(choice: Choice, epsilon: float, uniform: float) -> Choice:
    """Replace the choice by any eligible rung with probability ε.

    uniform: a random number in [0, 1).
    """
    if not epsilon or len(choice.eligible) == 1:
        return choice
    draw = explore(choice.index, choice.eligible, epsilon, uniform)
    if draw.rung == choice.index:
        return replace(choice, draw=draw)
    return Choice(draw.rung, "explored", None, choice.eligible, draw)


def choose(bounds: Bounds, prediction: Prediction, price: float) -> Choice:
    """Choose the eligible rung with the highest value (`allocation.value`), the cheaper one on a tie.

    What counts is the *gain* in P(right), so a hopeless prompt gets as few tokens as a trivial one.
    """
    count = len(prediction.correct)
    if bounds.fixed:
        return Choice(bounds.fixed.index, bounds.fixed.reason, bounds.fixed.rule, _only(bounds.fixed.index))
    if count == 1:
        return Choice(0, "only_tier", None, _only(0))
    low = bounds.floor.index if bounds.floor else 0
    high = max(bounds.ceiling.index, low)
    if bounds.pin is None:
        wanted = best_tier(prediction.correct, prediction.tokens, price)
        eligible = range(low, high + 1)
        index = wanted  # the best of all, if eligible, is the best of the eligible
        if wanted not in eligible:
            index = best_tier(prediction.correct, prediction.tokens, price, eligible)
    else:
        wanted = bounds.pin
        index = min(max(wanted, low), high)
        eligible = _only(index)
    if bounds.floor and index > min(wanted, bounds.ceiling.index):
        return Choice(index, bounds.floor.reason, bounds.floor.rule, eligible)
    if index < wanted:
        return Choice(index, bounds.ceiling.reason, bounds.ceiling.rule, eligible)
    if bounds.pin is not None:
        return Choice(index, "pinned", None, eligible)
    reason: Reason = "prior" if prediction.prior else "abstained" if prediction.abstains else "price"
    return Choice(index, reason, None, eligible)


def fixed_to(choice: Choice, index: int, reason: Reason) -> Choice:
    """The rung of a fixed policy in place of a choice, as far as the bounds allow it."""
    eligible = choice.eligible
    return Choice(min(max(index, eligible.start), eligible.stop - 1), reason, None, eligible)


def _only(index: int) -> range:
    return range(index, index + 1)


def build_decision(
    outline: Outline,
    prediction: Prediction,
    price: float,
    *,
    choice: Choice,
    decision_id: str,
    model: str,
    versions: dict[str, str],
    arm: str | None = None,
    compared: bool = False,
) -> Decision:
    """Record a choice with its inputs and the resulting length."""
    ladder, index, eligible = outline.ladder, choice.index, choice.eligible
    tier, names, length = outline.chosen(index, eligible)
    correct, tokens = prediction.correct, prediction.tokens
    return Decision(  # by position, as 20 arguments by name take 3 µs
        decision_id,
        model,
        tier,
        choice.reason,
        choice.rule,
        outline.requested,
        names,
        length.thinking,
        length.max_tokens,
        prediction.difficulty,
        ladder.by_tier(correct),
        ladder.by_tier(tokens),
        price,
        choice.draw.probabilities[index] if choice.draw else 1.0,
        versions,
        index,
        correct[index],
        tokens[index],
        Rungs(ladder.thinking, correct, tokens, ladder.named, eligible.start, eligible.stop - 1),
        None,
        None,
        arm,
        compared,
    )
