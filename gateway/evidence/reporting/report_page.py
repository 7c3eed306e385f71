"""The report as one HTML page. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from shlex import quote

from gateway.evidence.html import bullets, document, html_table
from gateway.evidence.reporting.plots import days_plot, intervals_plot
from gateway.evidence.reporting.summary import SavingsReport
from gateway.evidence.reporting.wording import (
    ReportTable,
    about_minimums,
    budget_table,
    evidence_table,
    group_name,
    groups_table,
    happening_lines,
    headline,
    left_out_table,
    report_sentences,
    right_table,
    savings_table,
    shown_moment,
)


def report_page(report: SavingsReport, *, config: str, costs: str, program: str) -> str:
    """The page as HTML.

    config: the name of the configuration file.
    costs: its section `costs` as JSON.
    program: Python that recomputes the figures.
    """
    parts = [
        f"<h1>{escape(headline(report))}</h1>",
        *(f"<p>{escape(each)}</p>" for each in report_sentences(report)),
        *_table(savings_table(report)),
        _savings_plot(report),
        *_table(right_table(report.whole.right)),
        _right_plot(report),
        *(_table(groups_table(report)) if report.groups else ()),
        *_over_time(report),
        "<h2>Minimums</h2>",
        f"<p>{escape(about_minimums(report))}</p>",
        "<h2>Drift and promotions</h2>",
        bullets(
            [*happening_lines("Promotions", report.promotions), *happening_lines("Alarms", report.alarms)]
        ),
        *_table(evidence_table(report)),
        *_table(left_out_table(report)),
        "<h2>How to read this</h2>",
        bullets(_NOTES),
        *_recomputing(report, config, costs, program),
    ]
    return document(headline(report), parts)


_NOTES = (
    "Intervals hold with 95 %. They count conversations, because requests of one conversation are alike.",
    "Requests are those whose figure is known, held out + adaptive, with the number of conversations.",
    "Saved is the mean of held-out requests less that of adaptive ones. A minus means: more was used.",
    "Arms count as they were drawn: a request that a budget shortened stays in its arm.",
    "The total is the saving per request, times the adaptive requests whose tokens are known.",
    "Tokens are completion tokens, reasoning included, as the backend counted them.",
    "Money and GPU hours are tokens times the configured costs: what they are worth, not what was paid.",
)


def _table(table: ReportTable) -> Iterator[str]:
    yield f"<h2>{escape(table.title)}</h2>"
    yield html_table(table.columns, table.rows)


def _savings_plot(report: SavingsReport) -> str:
    whole, money = report.whole, report.currency
    kinds = (("tokens", whole.tokens), (money, whole.money), ("GPU hours", whole.gpu_hours))
    rows = [(name, saving.share) for name, saving in kinds if saving and saving.share]
    rows += [(group_name(each), each.tokens.share) for each in report.groups if each.tokens.share]
    caption = "Saved share with 95 % intervals, right of the line if less was used."
    return intervals_plot(caption + (f" Below: tokens by {report.by}." if report.groups else ""), rows)


def _right_plot(report: SavingsReport) -> str:
    named = [("all", report.whole), *((group_name(each), each) for each in report.groups)]
    rows = [(name, each.right.difference) for name, each in named if each.right.difference]
    caption = "Share of right answers, adaptive less held out, with 95 % intervals."
    return intervals_plot(caption, rows)


def _over_time(report: SavingsReport) -> Iterator[str]:
    days = report.days
    table = budget_table(report)
    yield f"<h2>{escape(table.title)}</h2>"
    price = "Price, the probability of a right answer that 1,000 tokens must buy. Bars: highest. Line: mean."
    yield days_plot(price, days, lambda day: day.highest_price, lambda day: day.price)
    yield days_plot("Completion tokens of all requests.", days, lambda day: day.completion_tokens)
    caption = "Requests that a budget shortened (bars), and that ended with status 429 (line)."
    yield days_plot(caption, days, lambda day: day.shortened, lambda day: day.refused)
    yield html_table(table.columns, table.rows)


def _recomputing(report: SavingsReport, config: str, costs: str, program: str) -> Iterator[str]:
    period = f"--since {shown_moment(report.since)} --until {shown_moment(report.until)}"
    by = f" --by {report.by}" if report.by else ""
    file = quote(config)
    commands = (
        f"thinkmeter evidence export {file} {period} > decisions.jsonl\n"
        f"thinkmeter evidence export {file} --table feedback > feedback.jsonl\n"
        f"echo {quote(costs)} > costs.json\n"
        f"python3 recompute.py decisions.jsonl feedback.jsonl --costs costs.json{by}"
    )
    yield "<h2>How to recompute each figure</h2>"
    yield (
        "<p>Export the rows of the period, and run the program below on them. It needs nothing but Python,"
        " and shares no code with the report. Rows that were deleted since then are missing.</p>"
    )
    yield f"<pre>{escape(commands)}</pre>"
    yield f"<details><summary>recompute.py</summary><pre>{escape(program)}</pre></details>"
