"""The bounds that the model, the key, the rules and the client set on a request's rung. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.access import Key
from gateway.config.models import Model
from gateway.config.rules import Rule
from gateway.openai_api.requests import ClientLimits
from gateway.routing.decision import Reason
from gateway.routing.tiers import TierLadder


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
    raised: bool = False,
) -> Bounds:
    """Collect the bounds set by the model, the key, the matching rules and the client; keep the tightest.

    A condition of a rule is often the client's to fulfil, such as a word in the prompt. So the key's ceiling
    lowers every floor and fixed tier that is not explicitly above keys.

    raised: the model's floor is one tier higher than configured, or the longest.
    """
    top = len(ladder.rungs) - 1
    wall = top if key is None or key.ceiling is None else ladder.index(key.ceiling)

    def bound(tier: str | None, reason: Reason, rule: str | None = None, most: int = top) -> list[Bound]:
        """A bound as configured, by the name of a tier; none where the configuration names no tier."""
        return [] if tier is None else [Bound(min(ladder.index(tier), most), reason, rule)]

    floors = bound(model.floor, "model_floor", most=wall)
    if raised:
        floors.append(Bound(min(ladder.named_above(model.floor), wall), "drift_floor"))
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
