"""The decision: rules bound the tiers, then the price picks one. Pure: time and randomness never enter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.config.access import Key
from gateway.config.models import Model
from gateway.config.rules import Rule
from gateway.openai_api.requests import ClientLimits
from gateway.routing.decision import Decision, Reason
from gateway.routing.exploration import Draw, explore
from gateway.routing.tiers import TierLadder
from router_model.allocation import best_tier
from router_model.predictor import Prediction


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit on the tier's position, and who set it."""

    index: int
    reason: Reason
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """All limits of one request. `fixed` outranks `floor`, `floor` outranks `ceiling` and the pin."""

    ceiling: Bound
    floor: Bound | None = None
    fixed: Bound | None = None
    pin: int | None = None

    @property
    def guarantee(self) -> int | None:
        """The tier whose reasoning tokens no limits of the client may take away."""
        bound = self.fixed or self.floor
        return bound.index if bound else None


class NamedBound(NamedTuple):
    """A bound as the configuration states it: by the name of a tier."""

    tier: str | None
    """None sets no bound."""
    reason: Reason
    rule: str | None = None
    """The rule that sets it, where one does."""


def collect_bounds(
    ladder: TierLadder,
    *,
    model: Model,
    key: Key | None,
    rules: list[Rule],
    limits: ClientLimits,
    pin: str | None,
) -> Bounds:
    """Collect the limits set by the model, the key, the matching rules and the client."""
    floors: list[NamedBound] = [NamedBound(model.floor, "model_floor")]
    ceilings: list[NamedBound] = []
    if key:
        floors.append(NamedBound(key.floor, "key_floor"))
        ceilings.append(NamedBound(key.ceiling, "key_ceiling"))
    floors += [NamedBound(rule.floor, "rule_floor", rule.name) for rule in rules]
    ceilings += [NamedBound(rule.ceiling, "rule_ceiling", rule.name) for rule in rules]
    fixed: list[NamedBound] = [NamedBound(rule.tier, "rule_tier", rule.name) for rule in rules]
    return Bounds(
        ceiling=min(
            [Bound(ladder.highest(limits), "client_ceiling"), *_named(ladder, ceilings)],
            key=lambda bound: bound.index,
        ),
        floor=max(_named(ladder, floors), key=lambda bound: bound.index, default=None),
        fixed=next(_named(ladder, fixed), None),
        pin=None if pin is None else ladder.index(pin),
    )


def _named(ladder: TierLadder, limits: Iterable[NamedBound]) -> Iterator[Bound]:
    return (Bound(ladder.index(tier), reason, rule) for tier, reason, rule in limits if tier is not None)


@dataclass(frozen=True, slots=True)
class Choice:
    """A tier's position, why, by which rule, and the positions it was chosen from."""

    index: int
    reason: Reason
    rule: str | None
    eligible: range
    draw: Draw | None = None
    """How chance took part, where it did."""


def explore_choice(choice: Choice, epsilon: float, uniform: float) -> Choice:
    """The choice, or with probability ε any eligible tier; `uniform` is a random number in [0, 1)."""
    if not epsilon or len(choice.eligible) == 1:
        return choice
    draw = explore(choice.index, choice.eligible, epsilon, uniform)
    if draw.tier == choice.index:
        return replace(choice, draw=draw)
    return Choice(draw.tier, "explored", None, choice.eligible, draw)


def choose(bounds: Bounds, prediction: Prediction, price: float) -> Choice:
    """The eligible tier of highest value (`allocation.value`), the cheaper one on a tie.

    Tokens go where the *gain* in correctness pays, so a hopeless prompt gets as few as a trivial one.
    """
    count = len(prediction.correct)
    if bounds.fixed:
        return Choice(bounds.fixed.index, "rule_tier", bounds.fixed.rule, _only(bounds.fixed.index))
    if count == 1:
        return Choice(0, "only_tier", None, _only(0))
    low = bounds.floor.index if bounds.floor else 0
    high = max(bounds.ceiling.index, low)
    if bounds.pin is None:
        wanted = best_tier(prediction.correct, prediction.tokens, price)
        eligible = range(low, high + 1)
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
    return Choice(index, "abstained" if prediction.abstains else "price", None, eligible)


def _only(index: int) -> range:
    return range(index, index + 1)


def _requested(ladder: TierLadder, bounds: Bounds, limits: ClientLimits) -> str:
    """The tier the client named or allowed at most; "adaptive" when it left the choice to us."""
    if bounds.pin is not None:
        return ladder.names[bounds.pin]
    if limits.effort is None and limits.thinking is None:
        return "adaptive"
    return ladder.names[ladder.highest(limits)]


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
    """Record a choice with all it was made from, and the length it comes to.

    context: tokens the backend can hold; it refuses a cap above that, so no cap exceeds it.
    """
    guaranteed = 0 if bounds.guarantee is None else ladder.tiers[bounds.guarantee].thinking
    length = ladder.length(choice.index, limits, guaranteed, context)
    return Decision(
        id=decision_id,
        model=model,
        tier=ladder.names[choice.index],
        reason=choice.reason,
        rule=choice.rule,
        requested=_requested(ladder, bounds, limits),
        eligible=ladder.names[choice.eligible.start : choice.eligible.stop],
        thinking=length.thinking,
        cap=length.max_tokens,
        difficulty=prediction.difficulty,
        correct=dict(zip(ladder.names, prediction.correct, strict=True)),
        tokens=dict(zip(ladder.names, prediction.tokens, strict=True)),
        price=price,
        propensity=choice.draw.probabilities[choice.index] if choice.draw else 1.0,
        versions=versions,
    )
