"""What the budget reports about itself: the state of its windows, and events worth counting. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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
    """Tokens set aside for running requests."""
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


def stale_tokens(views: Iterable[WindowView]) -> dict[str, int]:
    """Tokens behind expired leases, by the budget's name."""
    tokens: dict[str, int] = {}
    for view in views:
        tokens[view.budget] = tokens.get(view.budget, 0) + view.stale
    return tokens
