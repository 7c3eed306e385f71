"""What a request may spend, what was set aside for it, and what it spent. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.config.access import Key
from gateway.config.budgets import Budget, Policy
from gateway.config.settings import Settings
from gateway.errors import InsufficientQuota, TokensExceeded
from gateway.http.headers import Headers
from gateway.openai_api.stream import Tally
from gateway.store import Ask, Grant
from gateway.window import Window, window

_MOST = 10**12  # no answer has more tokens: a number that a broken backend makes up must not break the sums

LONG = 3600
"""Seconds from which on a spent budget is a matter of quota, not of rate: clients must not retry."""


RUNNING_WAIT = 1000
"""Milliseconds that reserve.lua says to wait where only what running requests hold is in the way."""


class Limit(NamedTuple):
    """One budget of one holder."""

    budget: Budget
    holder: str
    window: Window

    def __str__(self) -> str:
        who = "" if self.budget.scope == "global" else f" of {self.budget.scope} {self.holder!r}"
        return f"budget {self.budget.name!r}{who}"


class Budgets:
    """The limits of every holder; immutable."""

    def __init__(self, settings: Settings) -> None:
        prefix = f"{{{settings.redis.prefix}}}"
        self.limits = {
            (budget.name, holder): Limit(
                budget, holder, window(prefix, budget.name, budget.window, holder, budget.tokens)
            )
            for budget in settings.budgets
            for holder in settings.holders(budget.scope)
            if budget.match is None or holder in budget.match
        }
        self._budgets = settings.budgets
        self._known: dict[tuple[str | None, str], tuple[Limit, ...]] = {}

    @property
    def configured(self) -> bool:
        """Whether there is any budget, even one without holders."""
        return bool(self._budgets)

    def of(self, key: Key | None, model: str) -> tuple[Limit, ...]:
        """The limits that hold for a request."""
        at = (key.name if key else None, model)
        if at not in self._known:
            self._known[at] = tuple(self._find(key, model))
        return self._known[at]

    def _find(self, key: Key | None, model: str) -> Iterator[Limit]:
        holders = {
            "global": "*",
            "key": key.name if key else "",
            "team": key.team if key else "",
            "model": model,
        }
        for budget in self._budgets:
            if limit := self.limits.get((budget.name, holders[budget.scope] or "")):
                yield limit


class Step(NamedTuple):
    """A tier that may be granted: completion tokens of one choice.

    cap: the most it may use. likely: what 95 of 100 like it use, None where nobody knows.
    expected: what it uses on average.
    """

    cap: int
    likely: int | None = None
    expected: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What a request may spend: `steps` dearest first, of which `wanted` (from 0) is tried first.

    prompt: no fewer tokens than the prompt has. minimum: completion tokens of one choice below which it is
    not cut; `soft`: a budget smaller than that may cut it to all it has.
    """

    steps: tuple[Step, ...]
    wanted: int = 0
    choices: int = 1
    prompt: int = 0
    minimum: int = 1
    soft: bool = True

    @property
    def largest(self) -> int:
        """The most tokens that may be set aside for it."""
        return self.prompt + self.choices * self.steps[0].cap

    def fixed(self, limit: Limit) -> int:
        return self.prompt if limit.budget.count == "total" else 0

    def amount(self, limit: Limit, step: Step, clamp: int = 0) -> int:
        """Tokens to set aside for a step, or for a step cut to a clamp."""
        likely = step.cap if limit.budget.reserve == "strict" or step.likely is None else step.likely
        each = min(likely, clamp or step.cap, step.cap)
        return self.fixed(limit) + self.choices * each

    def ask(self, limits: tuple[Limit, ...], *, again: bool = False) -> Ask:
        return Ask(
            windows=tuple(limit.window for limit in limits),
            fixed=tuple(self.fixed(limit) for limit in limits),
            amounts=tuple(tuple(self.amount(limit, step) for limit in limits) for step in self.steps),
            wanted=self.wanted + 1,
            choices=self.choices,
            minimum=self.minimum,
            soft=self.soft,
            arrivals=0 if again else 1,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to a request that had tokens set aside, as its caller reports it."""

    usage: Tally = field(default_factory=Tally)
    """Token usage, as far as it is known."""
    streamed: bool = False
    """The response was a stream, so its tokens were counted as they passed."""
    unseen: int = 0
    """Reasoning tokens that the backend may have spent without sending them."""
    attempts: int = 0
    """Backends that were sent the request; with 0 nothing can have been spent."""
    answered: bool = False
    """A backend began to respond, so tokens were spent even if an error followed."""


@dataclass(slots=True, eq=False)
class Reservation:
    """Tokens set aside for one request. step: position granted; clamp: completion tokens of one choice, 0
    where the step is whole. fallback: the policy that decided, as Redis did not."""

    id: str
    limits: tuple[Limit, ...]
    need: Need
    step: int
    clamp: int = 0
    grant: Grant | None = None
    fallback: Policy | None = None
    waited: float = 0.0
    local: list[int] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    """Set by the caller before it leaves `Ledger.hold`; decides what is settled."""
    progress: Callable[[], int] | None = None
    """Completion tokens of one stream so far, where the caller can tell."""

    @property
    def strict(self) -> bool:
        """Whether what is set aside must bound what is asked of the backend."""
        return self.fallback != "open" and any(limit.budget.reserve == "strict" for limit in self.limits)

    @property
    def cap(self) -> int:
        """Completion tokens of one choice, at most."""
        return self.clamp or self.need.steps[self.step].cap

    def amounts(self) -> list[int]:
        step = self.need.steps[self.step]
        return [self.need.amount(limit, step, self.clamp) for limit in self.limits]

    def shortened(self) -> bool:
        return self.step != self.need.wanted or self.clamp > 0

    def headers(self) -> Headers:
        """What the client is told."""
        if self.fallback:
            return [(b"x-thinkmeter-budget-fallback", self.fallback.encode())]
        if not self.grant:
            return []
        grant = self.grant
        headers = rate_limits(self.limits[grant.tightest - 1], grant.cap, grant.room, grant.reset)
        if self.waited:
            headers.append((b"x-thinkmeter-queued-ms", b"%d" % (self.waited * 1000)))
        return headers

    def renewal(self) -> list[tuple[int, int]]:
        """(amount reserved, tokens spent so far) of each limit; -1 tokens while unknown."""
        passed = self.progress() if self.progress else -1
        return [
            (amount, self.need.fixed(limit) + passed if passed >= 0 else -1)
            for limit, amount in zip(self.limits, self.amounts(), strict=True)
        ]

    def spent(self, *, refused: bool) -> list[tuple[int, int]]:
        """(tokens spent, tokens expected) of each limit, according to the outcome.

        refused: the backend answered with an error and spent nothing. What the backend did not report is
        counted on the safe side: a prompt at its upper bound, a whole response at all that was reserved, and
        a stream at the tokens that passed plus `outcome.unseen`.
        """
        outcome, usage = self.outcome, self.outcome.usage
        free = (refused and not outcome.answered) or not outcome.attempts
        expected = self.need.choices * self.need.steps[self.step].expected
        completion = usage.completion
        if completion is None and (free or outcome.streamed):
            completion = 0
        if completion is not None and usage.source != "backend" and not free:
            completion = max(completion, usage.deltas + outcome.unseen)
        prompt = usage.prompt if usage.prompt is not None else 0 if free else self.need.prompt
        numbers = []
        for limit, amount in zip(self.limits, self.amounts(), strict=True):
            counted = prompt if limit.budget.count == "total" else 0
            tokens = amount if completion is None else counted + completion
            numbers.append((min(tokens, _MOST), 0 if free else counted + expected))
        return numbers


def refusal(limit: Limit, grant: Grant, need: Need) -> TokensExceeded:
    """Why a request was refused: the budget, its numbers, and when it frees.

    A long budget is spent only once its tokens are: what running requests have set aside may come back soon.
    """
    spent, reserved, cap = grant.blocker_settled, grant.blocker_reserved, grant.blocker_cap
    numbers = (
        f"The {limit} has {spent:,} tokens spent and {reserved:,} reserved of {cap:,} in "
        f"{span(limit.budget.window)}"
    )
    room = max(cap - spent - reserved, 0)
    if grant.wait < 0:
        prompt = need.fixed(limit)
        with_prompt = f" with a prompt of up to {prompt:,} tokens" if prompt else ""
        return InsufficientQuota(
            f"{numbers}: it can never hold this request{with_prompt}; ask for fewer tokens",
            retry_after=None,
            limits=rate_limits(limit, cap, room, 0),
        )
    running = reserved and grant.wait <= RUNNING_WAIT
    kind = InsufficientQuota if limit.budget.window >= LONG and not running else TokensExceeded
    return kind(
        f"{numbers}; there may be room in {duration(grant.wait)}",
        retry_after=max(grant.wait, 1) / 1000,
        limits=rate_limits(limit, cap, room, grant.wait),
    )


def rate_limits(limit: Limit, cap: int, room: int, reset_ms: int) -> Headers:
    """OpenAI's rate-limit headers, as of the moment of the decision."""
    return [
        (b"x-ratelimit-limit-tokens", b"%d" % cap),
        (b"x-ratelimit-remaining-tokens", b"%d" % room),
        (b"x-ratelimit-reset-tokens", duration(reset_ms).encode()),
        (b"x-thinkmeter-budget", limit.budget.name.encode()),
    ]


def span(seconds: float) -> str:
    """The length of a window as the configuration has it: 90s, 1m, 24h, 30d."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % length == 0 and (unit != "d" or seconds > length):
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.15g}s"


def duration(milliseconds: int) -> str:
    """A time as OpenAI writes it: 250ms, 1s, 6m0s, 24h0m0s."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = -(-milliseconds // 1000)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours}h{minutes}m{seconds % 60}s"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"
