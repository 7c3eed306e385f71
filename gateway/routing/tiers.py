"""The ladder of a model: how many tokens each rung may use, and how one is written into a request. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from gateway.config.models import EFFORTS, Family, Model, Tier
from gateway.openai_api.requests import ClientLimits, Fields, effort_rank, encode
from gateway.openai_api.wishes import ChatTemplate
from gateway.routing.overlays import filled, places_of
from gateway.routing.rungs import build_rungs
from router_model.predictor import TierLength

_ALIASES = frozenset((
    *("reasoning", "thinking", "thinking_token_budget", "reasoning_effort", "max_tokens"),
    *("enable_thinking", "thinking_budget"),
))  # fmt: skip
"""Fields in which clients limit reasoning or length. They are replaced by those the backend understands."""

_TEMPLATE = "chat_template_kwargs"
_TEMPLATE_ALIASES = frozenset(ChatTemplate.__struct_fields__)
"""Template variables for thinking, under the names of all families. A template may fail on a foreign word."""

_UNLIMITED = 1 << 40  # answer tokens of a tier with `answer: null`: more than any model can generate

_JsonObject = msgspec.json.Decoder(Fields)
_NULL = Raw(b"null")


class Length(NamedTuple):
    """How long a response may get."""

    thinking: int
    """Reasoning tokens."""
    max_tokens: int | None
    """Completion tokens, reasoning included; None for no limit."""


class TierLadder:
    """The rungs of one model, cheapest first: its named tiers, and thinking budgets between them."""

    def __init__(
        self, tiers: dict[str, Tier], family: Family, *, sends_thinking_budget: bool, rungs: int | None = None
    ) -> None:
        """rungs: how many rungs to make, if the family takes a number; None for the named tiers alone."""
        self.names = tuple(tiers)
        self.tiers = tuple(tiers.values())
        """The named tiers."""
        self.ranks = tuple(effort_rank(tier.effort or "none") for tier in self.tiers)
        self._family = family
        self.efforts = tuple(map(self._effort, self.tiers))
        """The effort that each tier is sent as, in the family's own scale."""
        self.enforces_thinking_budget = sends_thinking_budget and "$budget" in str(family.thinking)
        """Whether requests carry a thinking budget in tokens, so that any length between two tiers works."""
        budgets = places_of("$budget", family.thinking) if sends_thinking_budget else ()
        self.budget_fields = frozenset(budgets)
        """Where requests carry the thinking budget."""
        self._sends_thinking_budget = self.sends_zero_budget = sends_thinking_budget
        """Whether a family may switch thinking off by a budget of 0, so that no thought begins."""
        self.rungs = build_rungs(self.tiers, (rungs or 0) if self._differs_in_numbers else 0)
        self.named = tuple(at for at, rung in enumerate(self.rungs) if rung.named)
        """The rungs that are named tiers: one position for each name."""
        self._of_named: Callable[[Sequence[float]], Sequence[float]] = (
            itemgetter(*self.named) if len(self.named) > 1 else itemgetter(slice(1))
        )
        """Picks the values of the named tiers from those of all rungs."""
        self.thinking = tuple(rung.thinking for rung in self.rungs)
        """Reasoning tokens of every rung."""
        self.lengths = tuple(
            TierLength(self.names[rung.tier] if rung.named else None, rung.thinking, rung.answer or 4096)
            for rung in self.rungs
        )
        """The rungs as the head sees them."""
        self.whole = max(rung.thinking + (rung.answer or rung.thinking) for rung in self.rungs)
        """Completion tokens in which every rung has its whole thinking and its answer.

        An answer without a limit gets as much as the thinking.
        """
        self.unlimited = any(rung.answer is None for rung in self.rungs)
        """Whether the answer of a rung has no limit but the client's."""
        adds = self.tiers[0].overlay or family.no_thinking or family.thinking
        self.changes_requests = len(self.tiers) > 1 or self.tiers[0].answer is not None or bool(adds)
        """False for a model without reasoning: it has one tier that adds no fields and no token limit."""
        self.named_lengths = tuple(self.lengths[at] for at in self.named)
        self._overlays = lru_cache(maxsize=1024)(self._render)

    @classmethod
    def of(cls, model: Model, tiers: dict[str, Tier], family: Family) -> TierLadder:
        return cls(tiers, family, sends_thinking_budget=model.thinking_budget, rungs=model.rungs)

    @property
    def forces_thinking_budget(self) -> bool:
        """Whether the backend ends a thought at a budget, and not the model, told of it by its template."""
        forcing = {name: value for name, value in self._family.thinking.items() if name != _TEMPLATE}
        return self._sends_thinking_budget and "$budget" in str(forcing)

    @property
    def _differs_in_numbers(self) -> bool:
        """Whether the thinking tiers differ in their budgets alone, so that a budget between two is one too.

        Not so if the family is told an effort and the tiers differ in it, or if a tier has its own overlay.
        """
        tells_effort = "$effort" in str(self._family.thinking)
        words = {
            (effort if tells_effort else "", str(tier.overlay))
            for tier, effort in zip(self.tiers, self.efforts, strict=True)
            if tier.thinking
        }
        return self.enforces_thinking_budget and len(words) == 1

    def thinks(self, thinking: int) -> bool:
        """Whether the model may think with so many reasoning tokens.

        Only a template can switch thinking off for sure. A budget of 0 may be ignored.
        """
        family = self._family
        template_switches = bool((family.no_thinking or {}).keys() - {"thinking_token_budget"})
        return thinking > 0 or (bool(family.thinking) and not template_switches)

    def index(self, name: str) -> int:
        """Position of a named tier's rung. In a model with one tier, every name means that tier."""
        return self.named[self.names.index(name)] if len(self.names) > 1 else 0

    def named_above(self, name: str | None) -> int:
        """Position of the named tier above this one, or above the cheapest; the longest has none above."""
        rank = self.names.index(name) if name is not None and len(self.names) > 1 else 0
        return self.named[min(rank + 1, len(self.named) - 1)]

    def tier_at(self, index: int) -> str:
        """The name by which a rung goes: that of the named tier at or below it."""
        return self.names[self.rungs[index].tier]

    def names_in(self, span: range) -> tuple[str, ...]:
        """The names by which the rungs of a span go, each once."""
        first, last = self.rungs[span.start], self.rungs[span.stop - 1]
        return self.names[first.tier : last.tier + 1]

    def by_tier(self, values: Sequence[float]) -> dict[str, float]:
        """The values of the named tiers, by name, of values of all rungs."""
        return dict(zip(self.names, self._of_named(values), strict=True))

    def highest(self, limits: ClientLimits) -> int:
        """The highest rung that the client's limits allow; an effort between two tiers rounds down."""
        top = len(self.rungs) - 1
        if limits.effort is not None:
            most = effort_rank(limits.effort)
            ranks = zip(self.named, self.ranks, strict=True)
            top = max((at for at, rank in ranks if rank <= most), default=0)
        if limits.thinking is not None:
            within = max(bisect_right(self.thinking, limits.thinking) - 1, 0)
            if self.enforces_thinking_budget and self.thinking[within] < limits.thinking:
                # With rungs of 400 and 504 tokens, a limit of 500 allows the rung of 504, cut to 500.
                within += 1
            top = min(top, within)
        return top

    def longest(self, index: int) -> int:
        """The most completion tokens of the rungs up to this one."""
        return max(
            rung.thinking + (_UNLIMITED if rung.answer is None else rung.answer)
            for rung in self.rungs[: index + 1]
        )

    def length(
        self,
        index: int,
        limits: ClientLimits,
        guaranteed: int = 0,
        context: int | None = None,
        room: int | None = None,
    ) -> Length:
        """How many tokens a rung may use within the client's limits.

        If `max_tokens` is too small for reasoning and answer, the answer keeps its size, up to half of
        `max_tokens`, and reasoning gets the rest: reasoning that leaves no room for an answer is wasted.
        A tier's `max_tokens` rises to the client's `min_tokens`, within the same limits.
        `guaranteed` reasoning tokens outrank the client's limits; its `max_tokens` then bounds the answer
        alone. Nothing exceeds `context`. For example, a rung with `thinking: 400` and `answer: 100` gets:

            client's max_tokens   guaranteed   thinking   max_tokens
            none                           0        400          500
            300                            0        200          300   the answer keeps its 100
            100                            0         50          100   half for each
            60                           200        200          260   60 for the answer

        room: completion tokens that the context leaves beside the prompt; None if all of it. It outranks a
        guarantee: the answer keeps its size, up to half of the room. With room for 300, the rung gets
        `thinking: 200, max_tokens: 300`. Only a `max_tokens` of the client's own may exceed the room. The
        backend then refuses it or lowers it, as it would without the gateway.
        """
        rung = self.rungs[index]
        answer = _UNLIMITED if rung.answer is None else rung.answer
        guaranteed = min(guaranteed, rung.thinking)
        thinking = rung.thinking if limits.thinking is None else min(rung.thinking, limits.thinking)
        full = max(max(thinking, guaranteed) + answer, limits.min_tokens)
        max_tokens = full if limits.max_tokens is None else min(full, limits.max_tokens)
        if guaranteed:
            max_tokens = min(full, max(max_tokens, guaranteed + min(max_tokens, answer)))
        if context is not None:
            max_tokens = min(max_tokens, context)
        sent = max_tokens
        if room is not None and room < max_tokens:
            sent = max_tokens if max_tokens == limits.max_tokens else room
            max_tokens = room
            guaranteed = min(guaranteed, room - min(answer, (room + 1) // 2))
        for_answer = min(answer, (max_tokens + 1) // 2)
        thinking = min(max(min(thinking, max_tokens - for_answer), guaranteed), max_tokens)
        unlimited = rung.answer is None and limits.max_tokens is None
        return Length(thinking, None if unlimited else sent)

    def apply(self, fields: Fields, index: int, length: Length) -> Fields:
        """The request's fields with a rung written into them; all other fields keep the client's bytes."""
        if not self.changes_requests:
            return fields
        applied = {name: value for name, value in fields.items() if name not in _ALIASES}
        overlay = self._overlays(self.rungs[index].sent_as, length.thinking)
        if _TEMPLATE in applied and _TEMPLATE not in overlay:
            _drop_words(applied)
        for name, (alone, keys) in overlay.items():
            theirs = applied.get(name) if keys is not None else None
            applied[name] = alone if theirs is None or keys is None else self._merge(name, theirs, keys)
        if length.max_tokens is not None:
            applied["max_completion_tokens"] = Raw(b"%d" % length.max_tokens)
        return applied

    @staticmethod
    def clamp(fields: Fields, length: Length) -> Fields:
        """The fields of a legacy completion. It has no chat template, so only `max_tokens` can be limited."""
        if length.max_tokens is None or fields.get("max_tokens", _NULL) == _NULL:
            return fields
        return fields | {"max_tokens": Raw(b"%d" % length.max_tokens)}

    @staticmethod
    def _merge(name: str, theirs: Raw, ours: Fields) -> Raw:
        """Our keys merged over the client's object; anything that is not an object is replaced."""
        if not bytes(theirs).startswith(b"{"):
            return Raw(encode(ours))
        # The client may send `thinking: true` where the family uses `enable_thinking`. A template could obey
        # it in spite of the decision, so drop every known name for thinking.
        stale = _TEMPLATE_ALIASES if name == _TEMPLATE else ()
        kept = {key: value for key, value in _JsonObject.decode(theirs).items() if key not in stale}
        return Raw(encode(kept | ours))

    def _render(self, index: int, thinking: int) -> dict[str, tuple[Raw, Fields | None]]:
        """The fields that a tier adds to a request: the family's template, then the tier's own overlay.

        Each as it is sent, and the keys of an object, which are merged over the client's.

        For example, for `short` of a Qwen3 model: {"chat_template_kwargs": {"enable_thinking": true},
        "thinking_token_budget": 1024}.
        """
        tier, family = self.tiers[index], self._family
        switched_off = thinking == 0 and family.no_thinking is not None
        # A model that cannot switch thinking off gets the smallest budget, 1.
        values = {"$effort": self._effort(tier)} | (
            {"$budget": max(thinking, 1)} if self._sends_thinking_budget else {}
        )
        overlay = filled((family.no_thinking or {}) if switched_off else family.thinking, values)
        if not self._sends_thinking_budget and not (switched_off and self.sends_zero_budget):
            overlay.pop("thinking_token_budget", None)
        for name, value in tier.overlay.items():
            ours = overlay.get(name)
            overlay[name] = ours | value if isinstance(ours, dict) and isinstance(value, dict) else value
        return {name: (Raw(encode(value)), _members(value)) for name, value in overlay.items()}

    def _effort(self, tier: Tier) -> str:
        """The tier's effort, rounded down to one that the family knows, or the family's weakest."""
        known: Sequence[str] = self._family.efforts or EFFORTS
        below = [effort for effort in known if effort_rank(effort) <= effort_rank(tier.effort or "none")]
        return below[-1] if below else known[0]


def _members(value: Any) -> Fields | None:
    """The encoded members of an object; None of any other value."""
    return {key: Raw(encode(inner)) for key, inner in value.items()} if isinstance(value, dict) else None


def _drop_words(fields: Fields) -> None:
    """Remove the client's template variables for thinking, where the family has none of its own.

    An object that is left empty is removed: vLLM refuses any for Mistral's tokenizers.
    """
    theirs = fields[_TEMPLATE]
    if not bytes(theirs).startswith(b"{"):
        return
    variables = _JsonObject.decode(theirs)
    kept = {name: value for name, value in variables.items() if name not in _TEMPLATE_ALIASES}
    if len(kept) == len(variables):
        return
    if kept:
        fields[_TEMPLATE] = Raw(encode(kept))
    else:
        del fields[_TEMPLATE]
