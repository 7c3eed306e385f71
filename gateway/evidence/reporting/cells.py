"""What the report is made from: sums over the rows of the store. No I/O."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gateway.evidence.reporting.estimates import ClusterSums

Grouping = Literal["key", "team", "model"]
GROUPINGS: tuple[Grouping, ...] = ("key", "team", "model")
ReportedAmount = Literal["tokens", "money", "gpu_hours", "score"]
"""What is added up of a request: completion tokens, money, GPU hours, and the mean score of its feedback."""


class ConfigCell(Struct, frozen=True):
    """The requests of one arm under one configuration."""

    config: str
    arm: str
    requests: int
    conversations: int
    """One under several configurations counts for each."""
    counted: int
    """Requests whose completion tokens are known."""
    judged: int
    """Requests with feedback."""
    failed: int
    """Status 400 and above."""
    uncosted: int
    """Requests whose tokens are known, of models without costs."""


class ArmCell(Struct, frozen=True):
    """The sums of one arm, of all requests or of those of one group."""

    group: str | None
    """The name of the key, team or model; None for requests without one."""
    arm: str
    conversations: int
    sums: dict[ReportedAmount, ClusterSums]


class DayCell(Struct, frozen=True):
    """One day of UTC, of all requests, compared or not."""

    day: int
    """Days since 1970."""
    requests: int
    completion_tokens: int
    price: float
    """The sum of the prices."""
    highest_price: float
    shortened: int
    """Requests that a budget shortened."""
    refused: int
    """Requests that a budget refused, or a replica that asked to slow down: status 429."""
    floored: int
    """Requests with a minimum: of the model, the key, a rule or the client's pin."""
    floored_refused: int
    floored_failed: int
    """Of the requests with a minimum: other errors, status 400 and above."""
    below: int
    """Requests that got less than their minimum."""


class Happening(Struct, frozen=True):
    """Something that was done or noticed, beside the requests."""

    at: float
    what: str


class ReportCells(Struct, frozen=True):
    """All that was read for one period."""

    since: float
    until: float
    configs: list[ConfigCell]
    whole: list[ArmCell]
    """Both arms, of configurations with a hold-out."""
    groups: list[ArmCell]
    days: list[DayCell]
    promotions: list[Happening] | None
    """None if the store has no log of them."""
    alarms: list[Happening] | None
