"""Writes docs/results.md from the figures. No measured number on the page is typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_model.report.aims import aims
from router_model.report.summary import Summary, calibration, in_points, table

_METHOD = """\
Methods never see the prompts that they are scored on. The first table and all those below 600 prompts are
cross-validated in five folds, pooled, once for each seed; of the others a fifth is held out, another one
for each seed. Every method gives estimates or decisions at a price; the price falls from infinity to zero,
and each price yields mean tokens and mean accuracy from the measured outcomes of the chosen tiers.
Neighbouring prices are mixed at random, so a curve is linear between its points.

* **Best fixed mix**: the convex hull of the fixed tiers, what a router without any knowledge of the prompt
  can get.
* **Extra budget**: the cheapest tier spends 0 %, the dearest 100 %. The five budgets are 10, 25, 50, 75
  and 90 %.
* **Tokens saved**: at the accuracy that the best mix has at the middle budget. Negative means more tokens
  than the mix.
* **AIQ gain**: mean accuracy of the curve's concave hull over the budgets (AIQ of RouterBench) less the
  mix's.
* **APGR**: mean share of the gap between the cheapest and the dearest tier that is recovered (RouteLLM,
  over tokens); left out where the two are as good as equal. A random mix of two tiers has 0.5.
* **Oracle gap**: share of the way from the mix to the oracle, middle budget. *Split-sample* oracles choose
  on all samples of a cell but one and score on that one. *Clairvoyant* oracles choose and score on the
  same single sample: they know luck in advance, and no router can reach them.
* A method that knows nothing can look worse than the mix in cross-validation: the fold that was unlucky to
  be tested on was lucky for those trained without it, and one price is set for all folds.
* **Intervals**: 95 %, percentile bootstrap over prompts and seeds, the same resamples for all methods.
  Bold: above zero.
* **ECE**: expected calibration error in points, ten bins of equal size. It is never negative, so its
  intervals lie high.
"""


def page(results: Mapping[str, Any], folder: str, headline: Mapping[str, Any] | None = None) -> str:
    """The whole page. folder: where the figures are. headline: what `make headline` measured."""
    summaries: Mapping[str, Summary] = results["settings"]
    shipped = results["shipped"]
    parts = [
        "# Results\n",
        f"How well the router head spends tokens, beside everything simpler. Shipped: **{shipped}**.\n",
        (
            f"Made by `{results.get('command', 'thinkmeter results')}` in {results['minutes']:g} minutes"
            f" on {results.get('machine', 'an unnamed machine')}; {results['seeds']} seeds,"
            f" {results['draws']} resamples."
            f" All figures, with more digits: [`results.json`]({folder}/results.json).\n"
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
        "## What did not work, and what is as good\n",
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
            "Much of what can be known about a pooled table is which data set a prompt is from, so each is"
            " measured apart:"
            " *alone* are the same decisions against that data set's own mixes, *never seen* are heads"
            " fitted to the"
            f" other data set only.\n\n![Each data set apart]({folder}/apart.svg)\n"
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
        "The tiny reasoner asked k times at one tier, the most frequent answer wins; beside it the router"
        " and the best"
        " mix at the same tokens. Points over one sample of that tier.\n"
    )
    if bound:
        yield (
            "The table holds shares of right answers, not the answers. So voting is shown at its best: as"
            " if no two"
            " wrong answers ever agreed. Real voting can only gain less.\n"
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
        f"Not from a table: {headline['questions']:,} new questions answered through the gateway by the tiny"
        f" reasoner in {headline['engine']}, under a price set beforehand for each budget."
        " Right answers in %, all at the tokens that adaptive used; the oracle knows luck in advance."
        " How, and the paper's own"
        " figures beside it: [the headline](headline.md), `make headline`.\n"
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
        f"Expected calibration error by tier, before → after calibration where a method has such a"
        f" step.\n\n![Predicted and true]({folder}/reliability.svg)\n"
    )
    yield calibration(whole, names)


def _verdicts(summaries: Mapping[str, Summary], shipped: str) -> Iterator[str]:
    """One line per method: where the shipped one is surely ahead, where behind, and where neither is sure."""
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
        f"By AIQ, is {shipped} better than the method, with a paired interval that leaves out zero?\n\n"
        + "\n".join(lines)
        + "\n"
    )
    losing = [
        f"{each['title']} {in_points(each['methods'][shipped]['measures']['gain_middle'])}"
        for each in summaries.values()
        if (each["methods"][shipped]["measures"]["gain_middle"][2] or 1) < 0
    ]
    if losing:
        yield f"Where {shipped} loses to the mix at the middle budget: {'; '.join(losing)}.\n"


def _places(ahead: list[str], behind: list[str], unclear: list[str]) -> Iterator[str]:
    for word, names in (("beaten on", ahead), ("**better** on", behind), ("no difference shown on", unclear)):
        if names:
            yield f"{word} {', '.join(names)}"
