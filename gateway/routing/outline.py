"""What a request may get, as far as its prompt does not decide it. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from gateway.config.budgets import Reservations
from gateway.openai_api.requests import ClientLimits
from gateway.routing.bounds import Bounds
from gateway.routing.tiers import Length, TierLadder


class Chosen(NamedTuple):
    """What the record of a decision says about a rung that was chosen."""

    tier: str
    """The named tier at or below it."""
    eligible: tuple[str, ...]
    """The named tiers among the rungs that it was chosen from."""
    length: Length


class Terms(NamedTuple):
    """What a budget must know of a request that wants one rung, apart from the head's estimates."""

    span: range
    """Positions of the rungs that the request could have got, by choice, by chance or by a budget."""
    candidates: tuple[int, ...]
    """The rungs that a budget may grant, the wanted one first."""
    most: tuple[int, ...]
    """The most completion tokens of each candidate."""
    longest: int
    """The most completion tokens of any rung in the span."""
    minimum: int
    """Completion tokens below which the last candidate is not cut."""
    soft: bool
    """Nothing is guaranteed, so it may be cut below that if even an empty window could not hold as much."""


class Outline:
    """The lengths of all rungs within the bounds and limits of a request.

    Requests that are alike share one, and what was worked out for the first serves all others.
    """

    __slots__ = (
        *("_chosen", "_fitting", "_lengths", "_terms", "bounds", "context", "guaranteed", "ladder"),
        *("limits", "requested", "room", "whole"),
    )

    def __init__(
        self,
        ladder: TierLadder,
        bounds: Bounds,
        limits: ClientLimits,
        context: int | None,
        room: int | None = None,
    ) -> None:
        """context: the model's context length. The backend refuses a larger token limit, so none is sent.

        room: completion tokens that the context leaves beside the prompt; None while nobody had to find out.
        """
        self.ladder, self.bounds, self.limits = ladder, bounds, limits
        self.context, self.room = context, room
        guarantee = bounds.guarantee
        self.guaranteed = 0 if guarantee is None else ladder.thinking[guarantee]
        """Reasoning tokens that a floor or a fixed tier promises, so that no budget may take them away."""
        theirs = (limits.max_tokens or 0) + self.guaranteed if ladder.unlimited else 0
        self.whole = max(ladder.whole, limits.min_tokens, theirs)
        """Completion tokens in which every rung has its full length; see `TierLadder.whole`."""
        self.requested = _requested(ladder, bounds, limits)
        """The tier that the client pins or allows at most; "adaptive" if it leaves the choice to us."""
        self._chosen: dict[tuple[int, range], Chosen] = {}
        self._lengths: dict[int, Length] = {}
        self._fitting: dict[int, int] = {}
        self._terms: dict[tuple[int, int, int, int], Terms] = {}

    def within(self, room: int) -> Outline:
        """The same with so much room beside the prompt."""
        return Outline(self.ladder, self.bounds, self.limits, self.context, room)

    def length(self, index: int) -> Length:
        """How many tokens a rung may use."""
        length = self._lengths.get(index)
        if length is None:
            length = self.ladder.length(index, self.limits, self.guaranteed, self.context, self.room)
            self._lengths[index] = length
        return length

    def chosen(self, index: int, eligible: range) -> Chosen:
        """A rung that was chosen from these."""
        found = self._chosen.get((index, eligible))
        if found is None:
            ladder = self.ladder
            found = Chosen(ladder.tier_at(index), ladder.names_in(eligible), self.length(index))
            self._chosen[index, eligible] = found
        return found

    def fitting(self, index: int) -> int:
        """The rung itself, or if the context has no room for its thinking, the longest tier that has.

        Where the backend takes a thinking budget, that is shortened instead. Elsewhere a thought as long as
        the tier's would leave no room for the answer. A floor does not help: what does not fit does not fit.
        """
        if self.room is None or self.ladder.enforces_thinking_budget:
            return index
        if index not in self._fitting:
            lower = [at for at in reversed(self.ladder.named) if at < index]
            fit = (at for at in (index, *lower) if self._fits(at))
            self._fitting[index] = next(fit, self.ladder.named[0])
        return self._fitting[index]

    def _fits(self, index: int) -> bool:
        """Whether the room is no reason to think less."""
        whole = self.ladder.length(index, self.limits, self.guaranteed, self.context)
        return self.length(index).thinking >= whole.thinking

    def max_tokens(self, index: int, longest_answer: int) -> int:
        """The most completion tokens that a rung may generate."""
        length = self.length(index)
        if length.max_tokens is not None:
            return length.max_tokens
        most = length.thinking + longest_answer
        return min(most, self.room or self.context or most)

    def kept(self, index: int) -> int:
        """Guaranteed reasoning tokens of a rung, as far as the context has room for them."""
        kept = min(self.guaranteed, self.ladder.thinking[index])
        return kept if self.room is None else min(kept, self.length(index).thinking)

    def span(self, wanted: int, stop: int) -> range:
        """Positions of the rungs that the request could have got, by choice, by chance or by a budget.

        stop: the end of the eligible ones.
        """
        if self.bounds.fixed:
            return range(wanted, wanted + 1)
        low = self.fitting(self.bounds.floor.index) if self.bounds.floor else 0
        return range(min(low, wanted), max(wanted + 1, stop))

    def candidates(self, wanted: int, lowest: int) -> tuple[int, ...]:
        """The rungs that a budget may grant if this one is wanted: itself, then the named tiers below.

        Only named tiers, because a message to Redis holds the amounts of every candidate in every window.
        If the context has no room for the wanted rung, the first one that it has room for takes its place.
        """
        wanted = self.fitting(wanted)
        below = (index for index in reversed(self.ladder.named) if lowest <= index < wanted)
        return (wanted, *(index for index in below if self.fitting(index) == index))

    def terms(self, wanted: int, stop: int, reservations: Reservations) -> Terms:
        """The terms of a request that wants this rung. stop: the end of the eligible ones."""
        asked = wanted, stop, reservations.longest_answer, reservations.shortest_answer
        found = self._terms.get(asked)
        return found or self._terms.setdefault(asked, self._worked_out(*asked))

    def _worked_out(self, wanted: int, stop: int, longest_answer: int, shortest_answer: int) -> Terms:
        span = self.span(wanted, stop)
        candidates = self.candidates(wanted, span.start)
        most = tuple(self.max_tokens(index, longest_answer) for index in candidates)
        kept = self.kept(candidates[-1])
        longest = self.max_tokens(span.stop - 1, longest_answer)
        return Terms(span, candidates, most, longest, min(kept + shortest_answer, most[-1]), not kept)


def _requested(ladder: TierLadder, bounds: Bounds, limits: ClientLimits) -> str:
    if bounds.pin is not None:
        return ladder.tier_at(bounds.pin)
    if limits.effort is None and limits.thinking is None:
        return "adaptive"
    return ladder.tier_at(ladder.highest(limits))
