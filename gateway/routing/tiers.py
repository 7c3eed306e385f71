"""The tiers of a model: how many tokens each may use, and how one is written into a request. No I/O."""

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
"""Fields in which clients limit reasoning or length. They are replaced by those the backend understands."""

_TEMPLATE = "chat_template_kwargs"
_TEMPLATE_ALIASES = frozenset(ChatTemplate.__struct_fields__)

_UNLIMITED = 1 << 40  # answer tokens of a tier with `answer: null`: more than any model can generate

_JsonObject = msgspec.json.Decoder(Fields)


@dataclass(frozen=True, slots=True)
class Length:
    """How long a response may get."""

    thinking: int
    """Reasoning tokens."""
    max_tokens: int | None
    """Completion tokens, reasoning included; None for no limit."""


class TierLadder:
    """The tiers of one model, cheapest first."""

    def __init__(self, tiers: dict[str, Tier], family: Family, *, sends_thinking_budget: bool) -> None:
        self.names = tuple(tiers)
        self.tiers = tuple(tiers.values())
        self.ranks = tuple(effort_rank(tier.effort or "none") for tier in self.tiers)
        self.lengths = tuple(
            TierLength(name, tier.thinking, tier.answer or 4096) for name, tier in tiers.items()
        )
        """The tiers as the head sees them."""
        self._family = family
        self.efforts = tuple(map(self._effort, self.tiers))
        """The effort that each tier is sent as, in the family's own scale."""
        self._sends_thinking_budget = sends_thinking_budget
        self.enforces_thinking_budget = sends_thinking_budget and "$budget" in str(family.thinking)
        """Whether requests carry a thinking budget in tokens, so that any length between two tiers works."""
        self._overlays = lru_cache(maxsize=1024)(self._render)

    @classmethod
    def of(cls, model: Model, tiers: dict[str, Tier], family: Family) -> TierLadder:
        return cls(tiers, family, sends_thinking_budget=model.thinking_budget)

    @property
    def changes_requests(self) -> bool:
        """False for a model without reasoning: it has one tier that adds no fields and no token limit."""
        only, family = self.tiers[0], self._family
        adds = only.overlay or family.no_thinking or family.thinking
        return len(self.tiers) > 1 or only.answer is not None or bool(adds)

    def index(self, name: str) -> int:
        """Position of a tier. In a model with one tier, every name means that tier."""
        return self.names.index(name) if len(self.names) > 1 else 0

    def highest(self, limits: ClientLimits) -> int:
        """The highest tier that the client's limits allow; an effort between two tiers rounds down."""
        top = len(self.tiers) - 1
        if limits.effort is not None:
            most = effort_rank(limits.effort)
            top = max((i for i, rank in enumerate(self.ranks) if rank <= most), default=0)
        if limits.thinking is not None:
            within = max(
                (i for i, tier in enumerate(self.tiers) if tier.thinking <= limits.thinking), default=0
            )
            if self.enforces_thinking_budget and self.tiers[within].thinking < limits.thinking:
                # With tiers of 400 and 800 tokens, a limit of 500 allows the tier of 800, cut to 500.
                within += 1
            top = min(top, within)
        return top

    def length(
        self, index: int, limits: ClientLimits, guaranteed: int = 0, context: int | None = None
    ) -> Length:
        """How many tokens a tier may use within the client's limits.

        If `max_tokens` is too small for reasoning and answer, the answer keeps its size, up to half of
        `max_tokens`, and reasoning gets the rest: reasoning that leaves no room for an answer is wasted.
        `guaranteed` reasoning tokens outrank the client's limits; its `max_tokens` then bounds the answer
        alone. Nothing exceeds `context`. For example, a tier with `thinking: 400` and `answer: 100` gets:

            client's max_tokens   guaranteed   thinking   max_tokens
            none                           0        400          500
            300                            0        200          300   the answer keeps its 100
            100                            0         50          100   half for each
            60                           200        200          260   60 for the answer
        """
        tier = self.tiers[index]
        answer = _UNLIMITED if tier.answer is None else tier.answer
        guaranteed = min(guaranteed, tier.thinking)
        thinking = tier.thinking if limits.thinking is None else min(tier.thinking, limits.thinking)
        full = max(thinking, guaranteed) + answer
        max_tokens = full if limits.max_tokens is None else min(full, limits.max_tokens)
        if guaranteed:
            max_tokens = min(full, max(max_tokens, guaranteed + min(max_tokens, answer)))
        if context is not None:
            max_tokens = min(max_tokens, context)
        for_answer = min(answer, (max_tokens + 1) // 2)
        thinking = min(max(min(thinking, max_tokens - for_answer), guaranteed), max_tokens)
        unlimited = tier.answer is None and limits.max_tokens is None
        return Length(thinking, None if unlimited else max_tokens)

    def apply(self, fields: Fields, tier: str, length: Length) -> Fields:
        """The request's fields with the tier written into them; all other fields keep the client's bytes."""
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
        """The fields of a legacy completion. It has no chat template, so only `max_tokens` can be limited."""
        if length.max_tokens is None or "max_tokens" not in fields:
            return fields
        return fields | {"max_tokens": Raw(b"%d" % length.max_tokens)}

    @staticmethod
    def _merge(name: str, theirs: Raw | None, ours: Fields) -> Raw:
        """Our keys merged over the client's object; anything that is not an object is replaced."""
        if theirs is None or not bytes(theirs).startswith(b"{"):
            return Raw(encode(ours))
        # The client may send `thinking: true` where the family uses `enable_thinking`. A template could obey
        # it in spite of the decision, so drop every known name for thinking.
        stale = _TEMPLATE_ALIASES if name == _TEMPLATE else ()
        kept = {key: value for key, value in _JsonObject.decode(theirs).items() if key not in stale}
        return Raw(encode(kept | ours))

    def _render(self, index: int, thinking: int) -> dict[str, Raw | Fields]:
        """The fields that a tier adds to a request: the family's template, then the tier's own overlay.

        For example, for `short` of a Qwen3 model: {"chat_template_kwargs": {"enable_thinking": true},
        "thinking_token_budget": 1024}.
        """
        tier, family = self.tiers[index], self._family
        switched_off = thinking == 0 and family.no_thinking is not None
        # A model that cannot switch thinking off gets the smallest budget, 1.
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
        """The tier's effort, rounded down to one that the family knows, or the family's weakest."""
        known: Sequence[str] = self._family.efforts or EFFORTS
        below = [effort for effort in known if effort_rank(effort) <= effort_rank(tier.effort or "none")]
        return below[-1] if below else known[0]


def _fill(template: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Replace the placeholders of a family's template; drop fields whose placeholder has no value.

    For example, {"thinking_token_budget": "$budget"} becomes {"thinking_token_budget": 1024}.
    """
    return {
        name: _fill(value, values) if isinstance(value, dict) else values.get(str(value), value)
        for name, value in template.items()
        if not str(value).startswith("$") or value in values
    }
