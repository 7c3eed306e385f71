"""What a request may spend, what was reserved for it, and what is settled. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct, field

from gateway.budget.limits import Limit, duration, rate_limit_headers, span
from gateway.config.budgets import FailurePolicy
from gateway.errors import InsufficientQuota, TokensExceeded
from gateway.http.headers import Headers
from gateway.openai_api.usage import TokenUsage
from gateway.store.commands import ReserveCommand, ReserveReply, Window

_MOST = 10**12  # tokens; larger counts come from a broken backend and would overflow the sums in Redis

Claim = tuple[tuple[str, int], ...]
"""Tokens that one request may spend beyond its reservation, by window."""

LONG = 3600
"""Seconds. A spent budget with a window this long is a quota, not a rate: clients must not retry."""


class TierDemand(NamedTuple):
    """Completion tokens per choice of one tier."""

    max_tokens: int
    """The most it may generate."""
    likely: int | None = None
    """95th percentile; None if unknown."""
    expected: int = 0
    """Average."""


class Demand(Struct, frozen=True):
    """What a request may spend."""

    tiers: tuple[TierDemand, ...]
    """The rung that is wanted, then the cheaper ones that it may be shortened to."""
    longest: int = 0
    """The most completion tokens per choice that the request could have wanted."""
    choices: int = 1
    """Completions that the request asks for."""
    prompt: int = 0
    """Upper bound of the prompt's tokens."""
    minimum: int = 1
    """Completion tokens per choice below which the cheapest tier is not cut."""
    soft: bool = True
    """Cut it below `minimum` if even an empty window could not hold that much."""
    strict: bool = False
    """Reserve all that it may spend, under `reserve: p95` too."""

    @property
    def largest(self) -> int:
        """The most tokens that could have been reserved."""
        return self.prompt + self.choices * max(self.longest, self.tiers[0].max_tokens)

    def fixed(self, limit: Limit) -> int:
        """Tokens that the budget counts however short the completion is."""
        return self.prompt if limit.budget.count == "total" else 0

    def amount(self, limit: Limit, tier: TierDemand, clamp: int = 0) -> int:
        """Tokens to reserve for a tier, or for a tier cut to `clamp` completion tokens per choice."""
        most = self.most(limit, tier, clamp)
        if self.strict or limit.budget.reserve == "strict" or tier.likely is None:
            return most
        return min(self.fixed(limit) + self.choices * tier.likely, most)

    def _amounts(self, limit: Limit) -> tuple[int, ...]:
        """Tokens to reserve for each tier."""
        fixed, choices = self.fixed(limit), self.choices
        if self.strict or limit.budget.reserve == "strict":
            return tuple([fixed + choices * most for most, _, _ in self.tiers])
        return tuple(
            [
                fixed + choices * (most if likely is None or likely > most else likely)
                for most, likely, _ in self.tiers
            ]
        )

    def most(self, limit: Limit, tier: TierDemand, clamp: int = 0) -> int:
        """Tokens that a tier may spend, whatever is reserved for it."""
        return self.fixed(limit) + self.choices * min(clamp or tier.max_tokens, tier.max_tokens)

    @property
    def exposure(self) -> int:
        """The most tokens that the request may spend beyond what `reserve: p95` reserves."""
        if self.strict:
            return 0
        return self.choices * max(
            [0 if likely is None else max(most - likely, 0) for most, likely, _ in self.tiers]
        )

    def fits(self, limits: tuple[Limit, ...], tier: TierDemand, rooms: Sequence[int]) -> bool:
        """Whether a tier fits into windows with so much room, as the script decides it."""
        amounts = (self.amount(limit, tier) for limit in limits)
        return all(not tokens or tokens <= room for tokens, room in zip(amounts, rooms, strict=True))

    def command(self, limits: tuple[Limit, ...], *, again: bool = False) -> ReserveCommand:
        """The command that reserves tokens. again: the request was refused before; do not count it twice."""
        columns: dict[tuple[str, str], tuple[int, ...]] = {}
        for limit in limits:
            rule = limit.budget.count, limit.budget.reserve
            if rule not in columns:  # budgets that count alike want the same amounts
                columns[rule] = self._amounts(limit)
        return ReserveCommand(
            tuple([limit.window for limit in limits]),
            tuple([self.fixed(limit) for limit in limits]),
            tuple([columns[limit.budget.count, limit.budget.reserve] for limit in limits]),
            self.choices,
            self.minimum,
            self.soft,
            0 if again else 1,
        )


class Outcome(Struct, frozen=True):
    """What happened to a request that had tokens reserved, as the pipeline reports it."""

    usage: TokenUsage = field(default_factory=TokenUsage)
    """Token usage, as far as it is known."""
    streamed: bool = False
    """The response was a stream, so its tokens were counted on the way."""
    unseen: int = 0
    """Reasoning tokens that the backend may have spent without sending them."""
    held: int = 0
    """Tokens that the backend may have spent since its last count, until it noticed that it was left."""
    silent: bool = False
    """The count of a stream says nothing about what the backend has spent."""
    attempts: int = 0
    """Backends that were sent the request; with 0 nothing can have been spent."""
    answered: bool = False
    """A backend began to respond, so tokens were spent even if an error followed."""


_NOTHING_DONE = Outcome()


class Reservation(Struct, eq=False):
    """Tokens reserved for one request."""

    id: str
    limits: tuple[Limit, ...]
    demand: Demand
    tier: int
    """Position in `demand.tiers` of the tier that was granted."""
    clamp: int = 0
    """Completion tokens per choice that the tier was cut to; 0 if it was not cut."""
    reply: ReserveReply | None = None
    """The decision of Redis; None if the fallback decided."""
    fallback: FailurePolicy | None = None
    """The `when_redis_fails` that decided; None if Redis did."""
    waited: float = 0.0
    """Seconds in the queue."""
    local: Sequence[int] = ()
    """Tokens reserved in the local window of each limit, under the fallback `degrade`."""
    granted: tuple[int, ...] | None = None
    """Tokens reserved under each limit, if they are known already."""
    claim: Claim = ()
    begun: float = 0.0
    """The monotonic time from which the tokens are held."""
    outcome: Outcome = _NOTHING_DONE
    """Set before `Ledger.end`; decides what is settled."""
    progress: Callable[[], int] | None = None
    """Returns the completion tokens that a stream has spent so far, -1 if unknown; None without a stream."""

    @property
    def capped(self) -> bool:
        """Whether the request to the backend must be capped, because a budget counts what it may spend."""
        return self.fallback != "open"

    @property
    def max_tokens(self) -> int:
        """The most completion tokens per choice."""
        return self.clamp or self.demand.tiers[self.tier].max_tokens

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple([limit.window for limit in self.limits])

    @property
    def shortened(self) -> bool:
        """Whether the budget granted less than the request wanted."""
        return self.tier > 0 or self.clamp > 0

    def amounts(self) -> Sequence[int]:
        """Tokens reserved under each limit."""
        if self.granted is not None:
            return self.granted
        tier = self.demand.tiers[self.tier]
        return [self.demand.amount(limit, tier, self.clamp) for limit in self.limits]

    def headers(self) -> Headers:
        """Response headers about the budget."""
        if self.fallback:
            return [(b"x-thinkmeter-budget-fallback", self.fallback.encode())]
        if not self.reply:
            return []
        reply = self.reply
        headers = rate_limit_headers(
            self.limits[reply.tightest - 1], cap=reply.cap, room=reply.room, reset_ms=reply.reset
        )
        if self.waited:
            headers.append((b"x-thinkmeter-queued-ms", b"%d" % (self.waited * 1000)))
        return headers

    @property
    def most(self) -> int:
        """The most completion tokens of all choices."""
        return self.demand.choices * self.max_tokens

    def renewal(self) -> list[tuple[int, int]]:
        """(tokens reserved, tokens spent so far or -1 if unknown) under each limit.

        A stream that has spent more than `reserve: p95` expected now reserves all that it may spend. What may
        have been spent unseen is an estimate, so the sum is bounded by that: if this gateway dies, it is what
        the reservation counts as.
        """
        passed = min(self.progress(), self.most) if self.progress else -1
        tier, renewed = self.demand.tiers[self.tier], []
        for limit, amount in zip(self.limits, self.amounts(), strict=True):
            spent = self.demand.fixed(limit) + passed if passed >= 0 else -1
            raised = self.demand.most(limit, tier, self.clamp) if spent > amount else amount
            renewed.append((raised, spent))
        return renewed

    def spent(self, *, refused: bool, unreadable: bool = False) -> list[tuple[int, int]]:
        """(tokens spent, tokens expected) under each limit, according to the outcome.

        What the backend did not report is counted on the safe side: a prompt at its upper bound, a whole
        response at all that it may have spent, and a stream by `_counted`.

        refused: the backend returned an error, so it spent nothing unless it had begun to respond.
        unreadable: it responded with something that says nothing about what it spent.
        """
        outcome = self.outcome
        free = (refused and not outcome.answered) or not outcome.attempts
        prompt = outcome.usage.prompt
        if prompt is None:
            prompt = 0 if free else self.demand.prompt
        completion = 0 if free and outcome.usage.completion is None else self._counted()
        if unreadable and not free:
            completion = max(completion, self.most)
        expected = self.demand.choices * self.demand.tiers[self.tier].expected
        numbers = []
        for limit in self.limits:
            counted = prompt if limit.budget.count == "total" else 0
            tokens = min(counted + completion, _MOST)
            numbers.append((tokens, 0 if free else counted + expected))
        return numbers

    def _counted(self) -> int:
        """Completion tokens spent: as the backend reported them, or else an upper bound if there is one.

        A stream that ended early counts what passed and what its client could hide, or all that it may have
        spent if what passed says nothing about that.
        """
        outcome, usage = self.outcome, self.outcome.usage
        passed = usage.completion
        if passed is not None and (usage.source == "backend" or not outcome.streamed):
            return passed
        if not outcome.streamed or outcome.silent:
            return max(self.most, passed or 0)
        seen = max(passed or 0, usage.deltas + outcome.unseen) + outcome.held
        return max(min(seen, self.most), passed or 0)


def budget_error(limit: Limit, reply: ReserveReply, demand: Demand) -> TokensExceeded:
    """The error for a refused request: which budget, its numbers, and when there may be room.

    A long window is a spent quota only if spent tokens are in the way. Running requests may give back theirs
    soon.
    """
    spent, reserved, cap = reply.blocker_settled, reply.blocker_reserved, reply.blocker_cap
    numbers = (
        f"The {limit} has {spent:,} tokens spent and {reserved:,} reserved of {cap:,} in "
        f"{span(limit.budget.window)}"
    )
    room = max(cap - spent - reserved, 0)
    if reply.wait < 0:
        prompt = demand.fixed(limit)
        with_prompt = f" with a prompt of up to {prompt:,} tokens" if prompt else ""
        return InsufficientQuota(
            f"{numbers}: it can never hold this request{with_prompt}; ask for fewer tokens",
            retry_after=None,
            limits=rate_limit_headers(limit, cap=cap, room=room, reset_ms=0),
        )
    is_quota = limit.budget.window >= LONG and not reply.only_running
    kind = InsufficientQuota if is_quota else TokensExceeded
    return kind(
        f"{numbers}; there may be room in {duration(reply.wait)}",
        retry_after=max(reply.wait, 1) / 1000,
        limits=rate_limit_headers(limit, cap=cap, room=room, reset_ms=reply.wait),
    )
