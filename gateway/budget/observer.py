"""What the budget reports: the state of its windows, and events for the metrics. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

BudgetOutcome = Literal["granted", "shortened", "queued", "refused"]


@dataclass(frozen=True, slots=True)
class WindowView:
    """One window of one budget at the moment it was read."""

    budget: str
    scope: str
    holder: str
    """The key, team or model whose tokens are counted; `*` for a global budget."""
    window: float
    """Length in seconds."""
    cap: int
    """Tokens allowed in the window: the configured number or the one set by an admin, plus top-ups."""
    configured: int
    """Tokens allowed in the window according to the configuration file."""
    settled: int
    """Tokens spent by finished requests."""
    reserved: int
    """Tokens reserved for running requests."""
    stale: int
    """The part of `reserved` whose lease has expired: its gateway may be dead."""
    reset: float
    """Seconds until none of the settled tokens count any more."""
    requests: int
    """Requests since the window was first used."""
    limited: int
    """The part of `requests` that was shortened or refused here."""
    price: float | None
    """Price for this holder now, per 1,000 tokens; None while it has none."""
    budget_price: float | None
    """The highest price among the holders of this budget, as of the last update."""
    at_bound: bool | None
    """Whether a higher `budget_price` would change nothing; None while there is no price."""

    @property
    def remaining(self) -> int:
        return max(self.cap - self.settled - self.reserved, 0)


def window_label(view: WindowView) -> str:
    """The window's length in seconds as text, such as `60`; the label of its metrics."""
    return f"{view.window:.15g}"


@dataclass(frozen=True, slots=True)
class WindowSurvey:
    """All windows of a configuration at one moment, with details of the most used."""

    windows: Sequence[WindowView] = ()
    """Of each budget the windows that are closest to their limit, in the order of the configuration."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Holders that are not among `windows`, by the budget's name."""
    stale: Mapping[str, int] = field(default_factory=dict)
    """Tokens behind expired leases of all holders, by the budget's name."""


class BudgetObserver(Protocol):
    """Is called by the budget as it works; the metrics implement it."""

    def decided(self, budget: str, outcome: BudgetOutcome) -> None:
        """A request under a budget was granted, shortened, queued or refused."""

    def fell_back(self, policy: str) -> None:
        """A request was decided without Redis, by this `when_redis_fails`."""

    def overran(self, budget: str, tokens: int) -> None:
        """A request spent more than was reserved for it."""

    def priced(self, budget: str, price: float, *, at_bound: bool) -> None:
        """A budget has a new price; `at_bound` while a higher one would change nothing."""

    def unpriced(self, budget: str) -> None:
        """A budget is no longer used and has no price any more."""

    def windows_read(self, survey: WindowSurvey, *, up: bool | None, undelivered: int) -> None:
        """All windows were read.

        up: None if Redis is not in use. undelivered: journal entries that Redis has not confirmed.
        """

    def redis_called(self, operation: str, seconds: float | None) -> None:
        """A Redis operation has ended after `seconds`; None if it failed."""


class NullObserver:
    """Ignores everything."""

    def decided(self, budget: str, outcome: BudgetOutcome) -> None: ...

    def fell_back(self, policy: str) -> None: ...

    def overran(self, budget: str, tokens: int) -> None: ...

    def priced(self, budget: str, price: float, *, at_bound: bool) -> None: ...

    def unpriced(self, budget: str) -> None: ...

    def windows_read(self, survey: WindowSurvey, *, up: bool | None, undelivered: int) -> None: ...

    def redis_called(self, operation: str, seconds: float | None) -> None: ...
