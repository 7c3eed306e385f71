"""Tiers without a thinking budget: for answers that must parse, and for backends that refuse one. No I/O.

vLLM may force the end of a thought into the arguments of a tool call that the model began inside the thought
(vLLM issue 44676). So requests with tools or a schema get no thinking budget, unless the model's
`budget_with_tools` allows it. Other backends refuse budgets in any request.
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.config.models import Family, Model, Tier
from gateway.openai_api.requests import ClientLimits
from gateway.routing.tiers import Length, TierLadder


class ConstrainedLadder(TierLadder):
    """The named tiers of a model, without thinking budgets.

    Nothing ends a thought then but the token limit, and a thought that reaches it leaves no answer. So a tier
    thinks only if its limit is generous; else thinking is off:

    - Tiers that differ in the effort they are sent think as they are told.
    - Other tiers think if they think at least as much as they answer: a shorter thought cannot be had.
    - No tier thinks if the client's `max_tokens`, the context, the prompt or a budget cuts it.
    - A guarantee holds in any case. A family that cannot switch thinking off thinks in any case.
    """

    def __init__(self, tiers: dict[str, Tier], family: Family, *, sends_zero_budget: bool = True) -> None:
        """sends_zero_budget: a budget of 0 is sent, as it takes effect before a tool call can begin."""
        super().__init__(tiers, family, sends_thinking_budget=False)
        self.sends_zero_budget = sends_zero_budget
        told = "$effort" in str(family.thinking)
        efforts = {effort for effort, tier in zip(self.efforts, self.tiers, strict=True) if tier.thinking}
        self._paced = told and len(efforts) > 1

    def length(
        self,
        index: int,
        limits: ClientLimits,
        guaranteed: int = 0,
        context: int | None = None,
        room: int | None = None,
    ) -> Length:
        """How many tokens a tier may use within the client's limits, without thinking if it would be cut."""
        length = super().length(index, limits, guaranteed, context, room)
        promised = min(guaranteed, self.rungs[index].thinking)
        if promised or self._family.no_thinking is None or self._has_room(index, length):
            return length
        return super().length(index, replace(limits, thinking=0), 0, context, room)

    def _has_room(self, index: int, length: Length) -> bool:
        rung = self.rungs[index]
        brief = not self._paced and rung.answer is not None and rung.thinking < rung.answer
        return length.thinking >= rung.thinking and not brief


def constrained_ladder(model: Model, ladder: TierLadder, family: Family) -> ConstrainedLadder | None:
    """The ladder for requests with tools or a schema; None if these are sent what all others are."""
    return None if model.budget_with_tools else _without_budgets(ladder, family, sends_zero_budget=True)


def unbudgeted_ladder(ladder: TierLadder, family: Family) -> ConstrainedLadder | None:
    """The ladder for backends that refuse thinking budgets; None if it has none that could be refused."""
    return _without_budgets(ladder, family, sends_zero_budget=False)


def _without_budgets(
    ladder: TierLadder, family: Family, *, sends_zero_budget: bool
) -> ConstrainedLadder | None:
    if not ladder.forces_thinking_budget:
        return None
    tiers = dict(zip(ladder.names, ladder.tiers, strict=True))
    return ConstrainedLadder(tiers, family, sends_zero_budget=sends_zero_budget)
