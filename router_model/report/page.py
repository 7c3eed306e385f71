"""Writes docs/results.md from the figures. No measured number on the page is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_model.report.aims import aims
from router_model.report.summary import Summary, calibration, in_points, table

_METHOD = """\
Methods never see the prompts on which they are scored. The first table, and all tables of fewer than 600
prompts, are cross-validated in five folds, pooled, once per seed. From the other tables a fifth is held
out, a different one per seed. Every method gives estimates or decisions at a price. The price falls from
infinity to zero, and each price yields mean tokens and mean accuracy from the measured outcomes of the
chosen tiers. Neighbouring prices are mixed at random, so a curve is linear between its points.

* **Best fixed mix**: the upper convex hull of the fixed tiers. It is the best that a router can reach
  without any knowledge of the prompt.
* **Extra budget**: the cheapest tier uses 0 %, the most expensive 100 %. The five budgets are 10, 25, 50,
  75 and 90 %.
* **Tokens saved**: at the accuracy of the best mix at the middle budget. Negative means more tokens than
  the mix.
* **AIQ gain**: mean accuracy of the curve's concave hull over the budgets (AIQ of RouterBench) minus the
  mix's.
* **APGR**: mean share of the gap between the cheapest and the most expensive tier that is recovered
  (RouteLLM, over tokens); omitted where the two are nearly equal. A random mix of two tiers has 0.5.
* **Oracle gap**: share of the way from the mix to the oracle at the middle budget. *Split-sample* oracles
  choose on all samples of a cell except one, and score on that one. *Clairvoyant* oracles choose and
  score on the same single sample. They know chance outcomes in advance, so no router can reach them.
* In cross-validation, a method without any information can look worse than the mix: when the test fold has
  worse outcomes than average, the folds used for training have better ones, and one price is set for all
  folds.
* **Intervals**: 95 %, percentile bootstrap over prompts and seeds, with the same resamples for all
  methods. Bold means above zero.
* **ECE**: expected calibration error in points, in ten bins of equal size. It is never negative, so its
  intervals lie high.
"""


def page(results: Mapping[str, Any], folder: str, headline: Mapping[str, Any] | None = None) -> str:
    """The whole page. folder: where the figures are. headline: what `make headline` measured."""
    summaries: Mapping[str, Summary] = results["settings"]
    shipped = results["shipped"]
    parts = [
        "# Results\n",
        f"How well the router head spends tokens, compared with simpler methods. Shipped: **{shipped}**.\n",
        (
            f"Measured by `{results.get('command', 'thinkmeter results')}` in {results['minutes']:g} minutes"
            f" on {results.get('machine', 'an unnamed machine')}, with {results['seeds']} seeds and"
            f" {results['draws']} resamples."
            f" [`results.json`]({folder}/results.json) has all figures with more digits.\n"
        ),
        f"![Accuracy against tokens]({folder}/curves.svg)\n",
        "## In short\n",
        *aims(summaries, shipped, results.get("voting", [])),
        "## How it was measured\n",
        _METHOD,
        *_settings(summaries, shipped, folder),
        *_voting(results.get("voting"), bound=results.get("voting_is_bound", False)),
        *(_headline(headline) if headline else ()),
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
    yield "## Gains over the best fixed mix\n"
    yield f"Points over the mix at equal tokens.\n\n![Gain at the middle budget]({folder}/gains.svg)\n"
    if any("-" in key for key in summaries):
        yield (
            "In a pooled table, a method can gain much just by recognising which data set a prompt is from."
            " So each data set is also measured separately. *Alone* compares the same decisions with that"
            " data set's own mixes. *Never seen* uses methods fitted only to the other data set."
            f"\n\n![Each data set separately]({folder}/apart.svg)\n"
        )
    for summary in summaries.values():
        yield f"### {summary['title']}\n"
        yield f"{summary['note']} {_description(summary)}\n"
        yield table(summary, shipped)


def _voting(contests: Sequence[Mapping[str, Any]] | None, *, bound: bool) -> Iterator[str]:
    if not contests:
        return
    yield "## Against self-consistency\n"
    yield (
        "Self-consistency asks the tiny reasoner k times at one tier and takes the most frequent answer. The"
        " router and the best mix are shown at the same tokens. The figures are points over a single sample"
        " of that tier.\n"
    )
    if bound:
        yield (
            "The table holds shares of right answers, not the answers themselves. The figures for voting"
            " are therefore upper bounds: they assume that no two wrong answers agree.\n"
        )
    lines = ["| tier × votes | tokens | one sample | voting | mix | router | router − voting |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    lines += [
        f"| {contest['tier']} × {contest['votes']} | {contest['tokens']:.0f}"
        f" | {100 * contest['single']:.1f} % |"
        f" {in_points(contest['voting'])} | {in_points(contest['mix'])} | {in_points(contest['routing'])} |"
        f" {in_points(contest['more'])} |"
        for contest in contests
    ]
    yield "\n".join(lines) + "\n"


def _headline(headline: Mapping[str, Any]) -> Iterator[str]:
    yield "## End to end\n"
    yield (
        f"Here the tiny reasoner in {headline['engine']} answered {headline['questions']:,} new questions"
        " through the gateway, at a price that was set in advance for each budget. The cells are right"
        " answers in %; all methods use as many tokens as adaptive did. The oracle knows chance outcomes in"
        " advance. [The headline](headline.md) has the method and a comparison with the paper;"
        " `make headline` reproduces it.\n"
    )
    ways = {"adaptive": "adaptive", "best_mix": "best fixed mix"}
    ways |= {"self_consistency": "self-consistency", "oracle": "oracle"}
    lines = [f"| budget, tokens | used | {' | '.join(ways.values())} | adaptive − mix |"]
    lines.append("|--:|--:|--:|--:|--:|--:|--:|")
    for row in headline["budgets"]:
        cells = [
            f"{100 * share['accuracy']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"
            for share in (row[way] for way in ways)
        ]
        over = row["over_mix"]
        gain = in_points((over["gain"], over["low"], over["high"]))
        budget = f"{row['budget']:.1f} ({row['times_direct']:.1f}×)"
        lines.append(f"| {budget} | {row['adaptive']['tokens']:.1f} | {' | '.join(cells)} | {gain} |")
    yield "\n".join(lines) + "\n"


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
