"""Writes docs/results.md from the figures. No measured number on the page is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_model.report import aims, sections
from router_model.report.settings import KINDS
from router_model.report.summary import Summary, calibration, in_points, table

_METHOD = """\
Methods never see the prompts on which they are scored. Tables of fewer than 600 prompts, and the one with
two caps, are cross-validated in five folds, pooled, once per seed. From larger tables a fifth is held out, a
different one per seed. Every method gives estimates or decisions at a price. The price falls from infinity to
zero, and each price yields mean tokens and mean accuracy from the measured outcomes of the chosen tiers.
Neighbouring prices are mixed at random, so a curve is linear between its points.

* **Best fixed mix**: the upper convex hull of all fixed rungs of a table. It is the best that can be reached
  without any knowledge of the prompt, with hindsight. Where a table holds answers or thoughts that were cut,
  it contains one `max_tokens` for everybody at lengths between the measured ones: a run of L tokens costs
  min(L, N) at cap N, and is right if it ends before N and is right in full (a run that is cut stays as right
  as at the next shorter measured cap).
* **Extra budget**: the cheapest tier uses 0 %, the most expensive 100 %. The five budgets are 10, 25, 50,
  75 and 90 %.
* **Tokens saved**: at the accuracy of the best mix at the middle budget. Negative means more tokens than
  the mix.
* **AIQ gain**: mean accuracy of the curve's concave hull over the budgets (AIQ of RouterBench) minus the
  mix's.
* **Less chance**: the hull of a noisy curve lies above the curve, so even a method that knows nothing seems
  to gain. All gains are therefore reported less the mean gain of the same decisions, dealt out to the
  prompts at random. A method whose permuted decisions lose is not credited for that. The column *by chance*
  says what was taken from the AIQ gain.
* **p**: the larger one of two p-values, that the AIQ gain is above that of permuted decisions and that it is
  above zero in resampled experiments; corrected for all claims at once (Holm).
* In cross-validation, a method without any information can look worse than the mix: when the test fold has
  worse outcomes than average, the folds used for training have better ones, and one price is set for all
  folds.
* **Intervals**: 95 %, percentile bootstrap over prompts and seeds, with the same resamples for all
  methods. Bold means above zero; only p is corrected for the number of claims.
* **ECE**: expected calibration error in points, in ten bins of equal size. It is never negative, so its
  intervals lie high.
"""


def page(
    results: Mapping[str, Any],
    folder: str,
    replays: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The whole page. folder: where the figures are. replays: models that were never measured."""
    summaries: Mapping[str, Summary] = results["settings"]
    shipped = results["shipped"]
    parts = [
        "# Results\n",
        (
            "How many more answers are right, at equal tokens, if the router head chooses the length or the"
            " model for each prompt, instead of the best fixed mix that needs no router? Outcomes"
            f" are measured, decisions are replayed. Shipped: **{shipped}**.\n"
        ),
        "## In short\n",
        aims.message(summaries, shipped),
        (
            "Points over the best fixed mix at 25, 50 and 75 % of the extra budget and over all budgets"
            " (AIQ), less what chance gains, with 95 % intervals; p is corrected for all claims:\n"
        ),
        sections.overview(summaries, shipped),
        f"![Accuracy against tokens]({folder}/curves.svg)\n",
        "## Aims\n",
        aims.verdict_table(aims.aims(summaries, shipped)),
        (
            "Earlier aims on the tables of output caps were levels of a length predictor against a mix of two"
            " caps. They are replaced: one cap for everybody has most of that gain without a router.\n"
        ),
        *sections.families(summaries, shipped),
        *sections.rivals(results.get("rivals", {}), summaries),
        *sections.ibpo(summaries, shipped),
        "## The way to the oracle\n",
        sections.oracles(summaries, shipped),
        *sections.learning(results.get("learning", {})),
        *sections.never_measured(replays),
        "## End to end\n",
        (
            "[The headline](headline.md) measures the whole path: the tiny reasoner on a real vLLM, behind"
            " the gateway, at prices that were set in advance.\n"
        ),
        "## How it was measured\n",
        _METHOD,
        (
            f"Measured by `{results.get('command', 'thinkmeter results')}` in {results['minutes']:g} minutes"
            f" on {results.get('machine', 'an unnamed machine')}, with {results['seeds']} seeds and"
            f" {results['draws']} resamples."
            f" [`results.json`]({folder}/results.json) has all figures with more digits.\n"
        ),
        *_settings(summaries, shipped, folder),
        *_calibration(summaries, shipped, folder),
        f"## Every method compared with {shipped}\n",
        *_verdicts(summaries, shipped),
    ]
    return "\n".join(parts).rstrip() + "\n"


def short_page(summaries: Sequence[Summary], methods: Sequence[str]) -> str:
    """A page on single heads, without other methods."""
    parts = ["# Report\n", "![Accuracy against tokens](curves.svg)\n"]
    for summary, method in zip(summaries, methods, strict=True):
        parts += [f"## {summary['title']}\n", f"{_description(summary)}\n", table(summary, method)]
        parts += ["Expected calibration error, points:\n", calibration([summary], [method])]
    return "\n".join([*parts, "## How it was measured\n", _METHOD])


def _description(summary: Summary) -> str:
    tiers = ", ".join(
        f"{tier['name']} {100 * tier['accuracy']:.1f} % at {tier['tokens']:.0f}" for tier in summary["tiers"]
    )
    return (
        f"{summary['prompts']:,} prompts, {summary['setting']}, {summary['oracle']} oracle. Tiers: {tiers}"
        f" tokens."
    )


def _settings(summaries: Mapping[str, Summary], shipped: str, folder: str) -> Iterator[str]:
    yield "## All methods, table by table\n"
    yield (
        "Points over the fixed mix at equal tokens, less chance.\n\n"
        f"![At the middle budget]({folder}/gains.svg)\n"
    )
    for kind, name in KINDS.items():
        views = [each for each in summaries.values() if each["kind"] == kind]
        if not views:
            continue
        yield f"### {name}\n"
        if kind == "length":
            yield _LENGTH
        for summary in views:
            yield f"#### {summary['title']}\n"
            yield f"{summary['note']} {_description(summary)}\n"
            yield table(summary, shipped)


_LENGTH = """\
These tables hold one answer per prompt, without thinking, cut at several caps: tokens are min(L, cap), and an
answer that was cut is almost always wrong. Choosing a cap is predicting the length of the answer, and says
nothing about thinking. One cap for everybody is in the fixed mix. In a pooled table, a method can gain much
just by recognising which data set a prompt is from, so each data set is also measured separately. *Alone*
compares the same decisions with that data set's own mixes. *Never seen* uses methods fitted only to the other
data set.
"""


def _calibration(summaries: Mapping[str, Summary], shipped: str, folder: str) -> Iterator[str]:
    whole = [summary for key, summary in summaries.items() if "-" not in key]
    wanted = [shipped, "outcome regression", "kNN"]
    names = [name for name in dict.fromkeys(wanted) if name in whole[0]["methods"]]
    yield "## Calibration\n"
    yield (
        "Expected calibration error of each tier in points. Where a method has a calibration step, the"
        f" figures are before → after it.\n\n![Predicted and true]({folder}/reliability.svg)\n"
    )
    yield calibration(whole, names)


def _verdicts(summaries: Mapping[str, Summary], shipped: str) -> Iterator[str]:
    """One line per method: on which tables the shipped one is clearly better, worse, or neither."""
    whole = [each for key, each in summaries.items() if "-" not in key]
    lines = []
    for name in whole[0]["methods"]:
        if name == shipped:
            continue
        ahead: list[str] = []
        behind: list[str] = []
        open_: list[str] = []
        for summary in whole:
            if name not in summary["methods"]:
                continue
            _, low, high = summary["methods"][name]["ahead"]["aiq_gain"]
            where = (
                ahead if low is not None and low > 0 else behind if high is not None and high < 0 else open_
            )
            where.append(summary["title"])
        lines.append(f"* {name}: " + "; ".join(_places(ahead, behind, open_)) + ".")
    yield (
        f"Methods are compared with {shipped} by AIQ gain. A difference counts if its paired interval"
        " excludes zero.\n\n" + "\n".join(lines) + "\n"
    )
    losing = [
        f"{each['title']} {in_points(each['methods'][shipped]['measures']['gain_middle'])}"
        for each in summaries.values()
        if (each["methods"][shipped]["measures"]["gain_middle"][2] or 1) < 0
    ]
    if losing:
        yield f"At the middle budget, {shipped} loses to the mix on {'; '.join(losing)}.\n"


def _places(ahead: list[str], behind: list[str], unclear: list[str]) -> Iterator[str]:
    for word, names in (("worse on", ahead), ("**better** on", behind), ("no clear difference on", unclear)):
        if names:
            yield f"{word} {', '.join(f'*{name}*' for name in names)}"
