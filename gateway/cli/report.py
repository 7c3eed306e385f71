"""The command `report`."""

from __future__ import annotations

import math
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.cli.evidence import evidence_store
from gateway.cli.terminal import ConfigArgument, err, load_settings, out

if TYPE_CHECKING:
    from gateway.evidence.reporting.summary import SavingsReport
    from gateway.evidence.reporting.wording import ReportTable

commands = typer.Typer()


@commands.command("report")
def report_savings(
    config: ConfigArgument,
    *,
    days: Annotated[float, typer.Option(min=0.01, max=3_650, help="Length of the period, up to now.")] = 30,
    by: Annotated[Literal["key", "team", "model"] | None, typer.Option(help="Also by each of these.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write one page of HTML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what was saved against the hold-out, how right it was, and on how much evidence that rests."""
    import msgspec

    from gateway.evidence.reporting.reading import read_report
    from gateway.evidence.reporting.summary import summarise_report

    costs = load_settings(config).costs
    until = math.floor(time.time())  # whole seconds, so that an export can name them
    with evidence_store(config) as engine:
        cells = read_report(engine, until - math.floor(days * 86_400), until, costs, by)
    report = summarise_report(cells, costs, by)
    if html is not None:
        _write(html, report, config, costs.model_dump_json())
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=1))
    else:
        _print(report)


def _write(path: Path, report: SavingsReport, config: Path, costs: str) -> None:
    from gateway.evidence.reporting.report_page import report_page
    from router_model.files import replace_file

    program = files("gateway.evidence.reporting").joinpath("recompute.py").read_text("utf-8")
    page = report_page(report, config=config.name, costs=costs, program=program)
    try:
        replace_file(path, page.encode())
    except OSError as error:
        err.print(f"cannot write {path}: {error.strerror or error}")
        raise typer.Exit(1) from None
    err.print(f"{path}: {len(page):,} characters", soft_wrap=True)


def _print(report: SavingsReport) -> None:
    from gateway.evidence.reporting import wording

    out.print(wording.headline(report), style="bold")
    for sentence in wording.report_sentences(report):
        out.print(sentence, highlight=False)
    tables = [wording.savings_table(report), wording.right_table(report.whole.right)]
    tables += [wording.groups_table(report)] if report.groups else []
    for table in (*tables, wording.budget_table(report)):
        out.print(_rich(table))
    out.print(wording.about_minimums(report), highlight=False)
    for name, found in (("Promotions", report.promotions), ("Alarms", report.alarms)):
        for line in wording.happening_lines(name, found):
            out.print(line, highlight=False)
    for table in (wording.evidence_table(report), wording.left_out_table(report)):
        out.print(_rich(table))


def _rich(table: ReportTable) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(*table.columns, title=table.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in table.rows:
        shown.add_row(*row)
    return shown
