"""Tiers: what the client's limits leaves of each, and how one is written into a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from gateway.config.models import EFFORTS, Family, Model, Tier
from gateway.openai_api.requests import ChatTemplate, ClientLimits, Fields, effort_rank, encode
from router_model.predictor import TierLength

_ALIASES = ("reasoning", "thinking", "thinking_token_budget", "reasoning_effort", "max_tokens")
"""Fields that state a limits in some dialect; replaced by the one dialect the backend understands."""

_TEMPLATE = "chat_template_kwargs"
_TEMPLATE_ALIASES = frozenset(ChatTemplate.__struct_fields__)

_UNCAPPED = 1 << 40  # room for the answer of a tier that sets no cap: more than any model can fill

_JsonObject = msgspec.json.Decoder(Fields)


@dataclass(frozen=True, slots=True)
class Length:
    """What is asked of the backend: reasoning tokens, and completion tokens in all (None: no cap)."""

    thinking: int
    max_tokens: int | None


class TierLadder:
    """The tiers of one model, cheapest first, ready to be applied to requests."""

    def __init__(self, tiers: dict[str, Tier], family: Family, *, sends_thinking_budget: bool) -> None:
        self.names = tuple(tiers)
        self.tiers = tuple(tiers.values())
        self.ranks = tuple(effort_rank(tier.effort or "none") for tier in self.tiers)
        self.lengths = tuple(
            TierLength(name, tier.thinking, tier.answer or 4096) for name, tier in tiers.items()
        )
        self._family = family
        self.efforts = tuple(map(self._effort, self.tiers))
        self._sends_thinking_budget = sends_thinking_budget
        self.enforces_thinking_budget = sends_thinking_budget and "$budget" in str(family.thinking)
        self._overlays = lru_cache(maxsize=1024)(self._render)

    @classmethod
    def of(cls, model: Model, tiers: dict[str, Tier], family: Family) -> TierLadder:
        return cls(tiers, family, sends_thinking_budget=model.thinking_budget)

    @property
    def changes_requests(self) -> bool:
        """False for a model without reasoning: one tier, nothing to add, no cap."""
        only, family = self.tiers[0], self._family
        adds = only.overlay or family.no_thinking or family.thinking
        return len(self.tiers) > 1 or only.answer is not None or bool(adds)

    def index(self, name: str) -> int:
        """Position of a tier; a model with one tier takes every name for it."""
        return self.names.index(name) if len(self.names) > 1 else 0

    def highest(self, limits: ClientLimits) -> int:
        """The highest tier the client's limits allows; efforts between two tiers round down."""
        top = len(self.tiers) - 1
        if limits.effort is not None:
            most = effort_rank(limits.effort)
            top = max((i for i, rank in enumerate(self.ranks) if rank <= most), default=0)
        if limits.thinking is not None:
            within = max(
                (i for i, tier in enumerate(self.tiers) if tier.thinking <= limits.thinking), default=0
            )
            if self.enforces_thinking_budget and self.tiers[within].thinking < limits.thinking:
                within += 1  # the next tier, cut to the limits, lies between the two
            top = min(top, within)
        return top

    def length(
        self, index: int, limits: ClientLimits, guaranteed: int = 0, context: int | None = None
    ) -> Length:
        """Tokens of a tier within the client's limits; `guaranteed` reasoning tokens outrank the limits.

        Where the cap is too small for reasoning and answer, up to half of it is kept for the answer, and
        reasoning shrinks to the rest: thinking that is cut before the answer is worth nothing. Under a
        guarantee the client's cap holds for the answer alone. Nothing exceeds `context`.
        """
        tier = self.tiers[index]
        answer = _UNCAPPED if tier.answer is None else tier.answer
        guaranteed = min(guaranteed, tier.thinking)
        thinking = tier.thinking if limits.thinking is None else min(tier.thinking, limits.thinking)
        full = max(thinking, guaranteed) + answer
        cap = full if limits.max_tokens is None else min(full, limits.max_tokens)
        if guaranteed:
            cap = min(full, max(cap, guaranteed + min(cap, answer)))
        if context is not None:
            cap = min(cap, context)
        room = min(answer, (cap + 1) // 2)
        uncapped = tier.answer is None and limits.max_tokens is None
        return Length(min(max(min(thinking, cap - room), guaranteed), cap), None if uncapped else cap)

    def apply(self, fields: Fields, tier: str, length: Length) -> Fields:
        """The request's fields with the tier written in; everything else keeps the client's bytes."""
        if not self.changes_requests:
            return fields
        applied = {name: value for name, value in fields.items() if name not in _ALIASES}
        for name, value in self._overlays(self.index(tier), length.thinking).items():
            applied[name] = value if isinstance(value, Raw) else self._merge(name, applied.get(name), value)
        if length.max_tokens is not None:
            applied["max_completion_tokens"] = Raw(b"%d" % length.max_tokens)
        return applied

    @staticmethod
    def clamp(fields: Fields, length: Length) -> Fields:
        """A legacy completion's fields: there is no chat template, so only `max_tokens` can be held."""
        if length.max_tokens is None or "max_tokens" not in fields:
            return fields
        return fields | {"max_tokens": Raw(b"%d" % length.max_tokens)}

    @staticmethod
    def _merge(name: str, theirs: Raw | None, ours: Fields) -> Raw:
        if theirs is None or not bytes(theirs).startswith(b"{"):
            return Raw(encode(ours))
        stale = _TEMPLATE_ALIASES if name == _TEMPLATE else ()
        kept = {key: value for key, value in _JsonObject.decode(theirs).items() if key not in stale}
        return Raw(encode(kept | ours))

    def _render(self, index: int, thinking: int) -> dict[str, Raw | Fields]:
        tier, family = self.tiers[index], self._family
        switched_off = thinking == 0 and family.no_thinking is not None
        values = {"$effort": self._effort(tier)} | (
            {"$budget": max(thinking, 1)} if self._sends_thinking_budget else {}
        )
        overlay = _fill((family.no_thinking or {}) if switched_off else family.thinking, values)
        if not self._sends_thinking_budget:
            overlay.pop("thinking_token_budget", None)
        for name, value in tier.overlay.items():
            ours = overlay.get(name)
            overlay[name] = ours | value if isinstance(ours, dict) and isinstance(value, dict) else value
        return {
            name: {key: Raw(encode(inner)) for key, inner in value.items()}
            if isinstance(value, dict)
            else Raw(encode(value))
            for name, value in overlay.items()
        }

    def _effort(self, tier: Tier) -> str:
        """The tier's effort in the family's own scale, rounded down, or its weakest."""
        known: Sequence[str] = self._family.efforts or EFFORTS
        below = [effort for effort in known if effort_rank(effort) <= effort_rank(tier.effort or "none")]
        return below[-1] if below else known[0]


def _fill(template: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The template with its placeholders replaced; fields whose placeholder has no value are left out."""
    return {
        name: _fill(value, values) if isinstance(value, dict) else values.get(str(value), value)
        for name, value in template.items()
        if not str(value).startswith("$") or value in values
    }
