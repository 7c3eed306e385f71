"""Chooses a rung: bounds limit the choice, then the price decides. No I/O, no clock, no randomness."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.config.access import Key
from gateway.config.models import Model
from gateway.config.rules import Rule
from gateway.openai_api.requests import ClientLimits
from gateway.routing.decision import Decision, Reason, Rungs
from gateway.routing.exploration import Draw, explore
from gateway.routing.tiers import TierLadder
from router_model.allocation import best_tier
from router_model.predictor import Prediction


@dataclass(frozen=True, slots=True)
class Bound:
    """One bound on the rung, and where it comes from."""

    index: int
    """Position of the rung on the ladder."""
    reason: Reason
    """The reason of a decision that this bound changes."""
    rule: str | None = None
    """The rule that sets it, if one does."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """All bounds of one request. `fixed` outranks `floor`, and `floor` outranks `ceiling` and `pin`.

    None is above the ceiling of the client's key, unless a rule with `over_keys` sets it.
    """

    ceiling: Bound
    floor: Bound | None = None
    fixed: Bound | None = None
    pin: int | None = None
    allowed: int | None = None
    """The highest rung that the key and the rules allow, whatever the client asks for; None for any."""

    @property
    def guarantee(self) -> int | None:
        """The rung whose reasoning tokens are promised, whatever the client's limits are."""
        bound = self.fixed or self.floor
        return bound.index if bound else None


def collect_bounds(
    ladder: TierLadder,
    *,
    model: Model,
    key: Key | None,
    rules: list[Rule],
    limits: ClientLimits,
    pin: str | None,
) -> Bounds:
    """Collect the bounds set by the model, the key, the matching rules and the client; keep the tightest.

    A condition of a rule is often the client's to fulfil, such as a word in the prompt. So the key's ceiling
    lowers every floor and fixed tier that is not explicitly above keys.
    """
    top = len(ladder.rungs) - 1
    wall = top if key is None or key.ceiling is None else ladder.index(key.ceiling)

    def bound(tier: str | None, reason: Reason, rule: str | None = None, most: int = top) -> list[Bound]:
        """A bound as configured, by the name of a tier; none where the configuration names no tier."""
        return [] if tier is None else [Bound(min(ladder.index(tier), most), reason, rule)]

    floors = bound(model.floor, "model_floor", most=wall)
    ceilings = [Bound(ladder.highest(limits), "client_ceiling")]
    fixed: list[Bound] = []
    if key:
        floors += bound(key.floor, "key_floor", most=wall)
        ceilings += bound(key.ceiling, "key_ceiling")
    allowed = wall
    for rule in rules:
        if rule.ceiling:
            allowed = min(allowed, ladder.index(rule.ceiling))
        most = top if rule.over_keys else wall
        floors += bound(rule.floor, "rule_floor", rule.name, most)
        ceilings += bound(rule.ceiling, "rule_ceiling", rule.name)
        if rule.tier and ladder.index(rule.tier) > most:
            fixed.append(Bound(most, "key_ceiling"))
        else:
            fixed += bound(rule.tier, "rule_tier", rule.name)
    return Bounds(
        ceiling=min(ceilings, key=lambda bound: bound.index),
        floor=max(floors, key=lambda bound: bound.index, default=None),
        fixed=fixed[0] if fixed else None,
        pin=None if pin is None else ladder.index(pin),
        allowed=allowed,
    )


@dataclass(frozen=True, slots=True)
class Choice:
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


def _only(index: int) -> range:
    return range(index, index + 1)


def _requested(ladder: TierLadder, bounds: Bounds, limits: ClientLimits) -> str:
    """The tier that the client pins or allows at most; "adaptive" if it leaves the choice to the gateway."""
    if bounds.pin is not None:
        return ladder.tier_at(bounds.pin)
    if limits.effort is None and limits.thinking is None:
        return "adaptive"
    return ladder.tier_at(ladder.highest(limits))


def build_decision(
    ladder: TierLadder,
    bounds: Bounds,
    limits: ClientLimits,
    prediction: Prediction,
    price: float,
    *,
    choice: Choice,
    decision_id: str,
    model: str,
    context: int | None,
    versions: dict[str, str],
) -> Decision:
    """Record a choice with its inputs and the resulting length.

    context: the model's context length. The backend refuses a larger token limit, so none is ever sent.
    """
    guaranteed = 0 if bounds.guarantee is None else ladder.thinking[bounds.guarantee]
    index, eligible = choice.index, choice.eligible
    length = ladder.length(index, limits, guaranteed, context)
    return Decision(
        id=decision_id,
        model=model,
        tier=ladder.tier_at(index),
        reason=choice.reason,
        rule=choice.rule,
        requested=_requested(ladder, bounds, limits),
        eligible=ladder.names_in(eligible),
        thinking=length.thinking,
        cap=length.max_tokens,
        difficulty=prediction.difficulty,
        correct=ladder.by_tier(prediction.correct),
        tokens=ladder.by_tier(prediction.tokens),
        price=price,
        propensity=choice.draw.probabilities[index] if choice.draw else 1.0,
        versions=versions,
        rung=index,
        rung_correct=prediction.correct[index],
        rung_tokens=prediction.tokens[index],
        rungs=Rungs(
            thinking=ladder.thinking,
            correct=prediction.correct,
            tokens=prediction.tokens,
            named=ladder.named,
            lowest=eligible.start,
            highest=eligible.stop - 1,
        ),
    )
