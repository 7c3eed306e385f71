"""Which budgets apply to a request, and how limits are written in headers and messages. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gateway.config.access import Key
from gateway.config.budgets import Budget
from gateway.config.settings import Settings
from gateway.http.headers import Headers
from gateway.store.commands import Window, window


class Limit(NamedTuple):
    """One budget as it applies to one holder."""

    budget: Budget
    holder: str
    """The key, team or model whose tokens are counted; `*` for a global budget."""
    window: Window

    def __str__(self) -> str:
        who = "" if self.budget.scope == "global" else f" of {self.budget.scope} {self.holder!r}"
        return f"budget {self.budget.name!r}{who}"


class BudgetLimits:
    """The limits of all holders under one configuration. Immutable."""

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
        """By the names of the budget and the holder."""
        self._budgets = settings.budgets
        self._by_request: dict[tuple[str | None, str], tuple[Limit, ...]] = {}
        """A cache of what `of` returns, by the names of the key and the model."""

    @property
    def configured(self) -> bool:
        """Whether there is any budget, even one without holders."""
        return bool(self._budgets)

    def of(self, key: Key | None, model: str) -> tuple[Limit, ...]:
        """The limits that apply to a request with this key for this model."""
        names = (key.name if key else None, model)
        if names not in self._by_request:
            self._by_request[names] = tuple(self._find(key, model))
        return self._by_request[names]

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


def rate_limit_headers(limit: Limit, *, cap: int, room: int, reset_ms: int) -> Headers:
    """OpenAI's rate-limit headers, and the name of the budget that they describe."""
    return [
        (b"x-ratelimit-limit-tokens", b"%d" % cap),
        (b"x-ratelimit-remaining-tokens", b"%d" % room),
        (b"x-ratelimit-reset-tokens", duration(reset_ms).encode()),
        (b"x-thinkmeter-budget", limit.budget.name.encode()),
    ]


def span(seconds: float) -> str:
    """The length of a window as the configuration writes it: 90s, 1m, 24h, 30d."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % length == 0 and (unit != "d" or seconds > length):
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.15g}s"


def duration(milliseconds: int) -> str:
    """A time as OpenAI writes it: 250ms, 1s, 6m0s, 24h0m0s. Parts of a second are rounded up."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = -(-milliseconds // 1000)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours}h{minutes}m{seconds % 60}s"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"
