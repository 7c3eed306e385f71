"""The report: what was saved, how right it was, how it went, what was left out. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from gateway.config.costs import CostSettings
from gateway.evidence.quality import ADAPTIVE, HOLDOUT
from gateway.evidence.reporting.cells import (
    ArmCell,
    ConfigCell,
    DayCell,
    Grouping,
    Happening,
    ReportCells,
    ReportedAmount,
)
from gateway.evidence.reporting.estimates import (
    NOTHING,
    RightAgainst,
    Saving,
    right_of,
    saving_of,
    shares_differ,
)
from gateway.evidence.reporting.periods import compared_configs


class Compared(Struct, frozen=True):
    """The two arms, of all requests or of one group."""

    group: str | None
    """The name of the key, team or model; None for all, and for requests without one."""
    tokens: Saving
    """Completion tokens."""
    money: Saving | None
    """None if no costs are configured."""
    gpu_hours: Saving | None
    right: RightAgainst


class EvidenceSize(Struct, frozen=True):
    """How much one arm rests on."""

    arm: str
    requests: int
    conversations: int
    counted: int
    """Requests whose completion tokens are known."""
    judged: int
    """Requests with feedback."""
    failed: int
    """Status 400 and above."""


class ReportedDay(Struct, frozen=True):
    """One day of UTC, of all requests."""

    day: int
    """Days since 1970."""
    requests: int
    completion_tokens: int
    price: float
    """The mean over requests."""
    highest_price: float
    shortened: int
    """Requests that a budget shortened."""
    refused: int
    """Requests that ended with status 429."""


class Minimums(Struct, frozen=True):
    """What became of requests with a minimum, which are those that somebody called important."""

    requests: int
    refused: int
    """Status 429."""
    failed: int
    """Other errors."""
    below: int
    """Got less than the minimum."""


class LeftOut(Struct, frozen=True):
    """Requests that a comparison leaves out."""

    requests: int
    why: str


class SavingsReport(Struct, frozen=True):
    """Everything on the page."""

    since: float
    until: float
    currency: str
    requests: int
    """Of the period, compared or not."""
    evidence: list[EvidenceSize]
    """Of both arms, the adaptive one first."""
    configs: int
    """Configurations under which both arms had requests."""
    share_changed: bool
    """The held-out share differs between them, so that the arms have requests of different times."""
    whole: Compared
    by: Grouping | None
    groups: list[Compared]
    days: list[ReportedDay]
    minimums: Minimums
    left_out: list[LeftOut]
    promotions: list[Happening] | None
    """None if the store has no log of them."""
    alarms: list[Happening] | None


def summarise_report(cells: ReportCells, costs: CostSettings, by: Grouping | None = None) -> SavingsReport:
    """Put the sums of a period together."""
    compared = set(compared_configs(cells.configs))
    ours = [cell for cell in cells.configs if cell.config in compared]
    arms = [_size(arm, ours, cells.whole) for arm in (ADAPTIVE, HOLDOUT)]
    shares = [
        (_of(ours, config, ADAPTIVE).conversations, _of(ours, config, HOLDOUT).conversations)
        for config in sorted(compared)
    ]
    names = dict.fromkeys(cell.group for cell in cells.groups)
    return SavingsReport(
        cells.since,
        cells.until,
        costs.currency,
        sum(cell.requests for cell in cells.configs),
        arms,
        len(compared),
        shares_differ(shares),
        _compared(None, cells.whole, costs),
        by,
        [_compared(name, [cell for cell in cells.groups if cell.group == name], costs) for name in names],
        list(map(_day, cells.days)),
        Minimums(
            *(
                sum(getattr(cell, name) for cell in cells.days)
                for name in ("floored", "floored_refused", "floored_failed", "below")
            )
        ),
        list(_left_out(cells.configs, compared, costs)),
        cells.promotions,
        cells.alarms,
    )


def _of(cells: Iterable[ConfigCell], config: str, arm: str) -> ConfigCell:
    return next(cell for cell in cells if (cell.config, cell.arm) == (config, arm))


def _size(arm: str, configs: Iterable[ConfigCell], whole: Iterable[ArmCell]) -> EvidenceSize:
    found = [cell for cell in configs if cell.arm == arm]
    requests, *others = (
        sum(getattr(cell, name) for cell in found) for name in ("requests", "counted", "judged", "failed")
    )
    conversations = sum(cell.conversations for cell in whole if cell.arm == arm)
    return EvidenceSize(arm, requests, conversations, *others)


def _compared(group: str | None, cells: Sequence[ArmCell], costs: CostSettings) -> Compared:
    arms = {cell.arm: cell.sums for cell in cells}

    def saved(name: ReportedAmount) -> Saving:
        ours, theirs = (arms.get(arm, {}).get(name, NOTHING) for arm in (ADAPTIVE, HOLDOUT))
        return saving_of(ours, theirs)

    return Compared(
        group,
        saved("tokens"),
        saved("money") if _has_money(costs) else None,
        saved("gpu_hours") if any(each.gpu_hours for each in costs.models.values()) else None,
        right_of(*(arms.get(arm, {}).get("score", NOTHING) for arm in (ADAPTIVE, HOLDOUT))),
    )


def _has_money(costs: CostSettings) -> bool:
    return any(
        each.prompt or each.completion or each.gpu_hours * costs.gpu_hour for each in costs.models.values()
    )


def _day(cell: DayCell) -> ReportedDay:
    return ReportedDay(
        cell.day,
        cell.requests,
        cell.completion_tokens,
        cell.price / cell.requests,
        *(cell.highest_price, cell.shortened, cell.refused),
    )


def _left_out(cells: Sequence[ConfigCell], compared: set[str], costs: CostSettings) -> Iterable[LeftOut]:
    arms = (ADAPTIVE, HOLDOUT)
    inside = [cell for cell in cells if cell.config in compared and cell.arm in arms]
    outside = sum(cell.requests for cell in cells if cell.config not in compared and cell.arm in arms)
    found = [
        (
            sum(cell.requests for cell in cells if cell.arm not in arms),
            "their bounds left one rung, so that both arms would have got the same",
        ),
        (outside, "no request was held out under the configuration of that time"),
        *(
            (
                sum(cell.requests - cell.counted for cell in inside if cell.arm == arm),
                f"the completion tokens are unknown (refused, failed or cut), {name}",
            )
            for arm, name in ((ADAPTIVE, "adaptive"), (HOLDOUT, "held out"))
        ),
    ]
    if costs.models:
        why = "the model has no `costs`; left out of money and GPU hours only"
        found.append((sum(cell.uncosted for cell in inside), why))
    return [LeftOut(requests, why) for requests, why in found if requests]
