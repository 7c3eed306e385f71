"""`thinkmeter evaluate --replay`: measured outcomes through the gateway's own policy, at every price."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gateway.cli.heads import fail
from gateway.cli.terminal import err, out
from router_model.training.outcomes import OutcomeError, read_table

if TYPE_CHECKING:
    from gateway.simulation.price_sweep import PriceSweep
    from router_model.head import Head

ReplayOption = Annotated[
    bool,
    typer.Option(
        "--replay",
        help="Replay the tables through the gateway's policy at every price, as for a model that the head was"
        " not measured on; needs --rungs.",
    ),
]
RungsOption = Annotated[
    str | None,
    typer.Option(metavar="TIER=TOKENS,...", help="The thinking budgets of the tiers, 0 for none."),
]
OwnOption = Annotated[
    int,
    typer.Option(min=0, help="With --replay: calibrate on so many of the prompts and replay the others."),
]


def replay_tables(  # noqa: PLR0917
    head: Head,
    paths: Sequence[Path],
    budgets: Mapping[str, float],
    own: int,
    seed: int,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Replay each table and print the points, or one JSON object.

    own: number of prompts that the head is calibrated on first.
    """
    from gateway.simulation.replays import with_evidence
    from router_model.training.prior import Ladder

    try:
        ladders = [Ladder(read_table(path, partial=True), budgets) for path in paths]
        swept = [with_evidence(head, ladder, own, seed) for ladder in ladders]
    except OutcomeError as error:
        fail(error)
    records = [each.record() for each in swept]
    if as_json:
        typer.echo(json.dumps(records[0] if len(records) == 1 else {"tables": records}))
        return
    for each in swept:
        _show(each)


def _show(swept: PriceSweep) -> None:
    title = f"{swept.table}: {swept.prompts:,} prompts, expected over used tokens {swept.token_ratio:.2f}"
    table = Table("price", "tokens", "right", "fixed at equal tokens", "gain", title=title)
    last: Any = None
    for point in swept.points:
        if last is None or (point.tokens, point.accuracy) != last:
            line = swept.line(point.tokens)
            table.add_row(
                f"{point.price:.4g}", f"{point.tokens:.1f}", f"{point.accuracy:.1%}", f"{line:.1%}",
                f"{100 * (point.accuracy - line):+.1f}",
            )  # fmt: skip
        last = point.tokens, point.accuracy
    out.print(table)
    err.print(
        f"worst {100 * -swept.loss:+.1f} points; at the default price"
        f" {-swept.default_loss:+.3f} in value against the best fixed tier",
        highlight=False,
    )
