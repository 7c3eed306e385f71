"""What the head is meant to do, and whether the figures show it. All claims are corrected together (Holm)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from router_model.evaluation.metrics import holm
from router_model.report.settings import KINDS
from router_model.report.summary import Summary, in_points

LEVEL = 0.05
"""A claim is shown if its corrected p-value is below this."""
CONTROL = "farel"
"""The table on which nothing can be learnt."""
WITHDRAWN = "mix-within-gsm8k"
"""The view for which an earlier page claimed a gain that is within chance."""
LENGTH = "prompt length"

Adjusted = dict[str, float]
"""Corrected p-values by view."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim: what was measured and whether it was reached."""

    aim: str
    measured: str
    verdict: str


def main_views(summaries: Mapping[str, Summary]) -> list[str]:
    """The views of whole tables, in the order of the page."""
    order = list(KINDS)
    whole = [key for key in summaries if "-" not in key]
    return sorted(whole, key=lambda key: order.index(summaries[key]["kind"]))


def adjusted(summaries: Mapping[str, Summary], shipped: str) -> Adjusted:
    """p-values that the head's AIQ gain is above the mix and above chance, for all claims at once.

    The control is no claim.
    """
    keys = [key for key in (*main_views(summaries), WITHDRAWN) if key in summaries and key != CONTROL]
    own = {key: summaries[key]["methods"][shipped].get("p_value") for key in keys}
    known = {key: value for key, value in own.items() if value is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def aims(summaries: Mapping[str, Summary], shipped: str) -> list[Verdict]:
    """Every aim: gains on each table, unseen families no worse than prompt length, no loss on the control."""
    found = adjusted(summaries, shipped)
    verdicts = [_gains(summaries[key], shipped, sure) for key, sure in found.items()]
    verdicts += [_unseen(summary, shipped) for key, summary in summaries.items() if key.endswith("-families")]
    if CONTROL in summaries:
        gain = summaries[CONTROL]["methods"][shipped]["measures"]["gain_middle"]
        lost = gain[2] is not None and gain[2] < 0
        text = f"{summaries[CONTROL]['title']}: no loss at half the extra budget"
        verdicts.append(Verdict(text, in_points(gain), "**missed**" if lost else "reached"))
    return verdicts


def _gains(summary: Summary, shipped: str, sure: float) -> Verdict:
    gain = summary["methods"][shipped]["measures"]["aiq_gain"]
    lost = gain[2] is not None and gain[2] < 0
    verdict = "reached" if sure < LEVEL and gain[0] > 0 else "**missed**" if lost else "not shown"
    return Verdict(
        f"{summary['title']}: above the fixed mix", f"{in_points(gain, 2)}, p = {p_value(sure)}", verdict
    )


def _unseen(summary: Summary, shipped: str) -> Verdict:
    """Two demands: at least what prompt length gains, and at least nothing."""
    gain = summary["methods"][shipped]["measures"]["aiq_gain"]
    over = summary["methods"][LENGTH]["ahead"]["aiq_gain"]
    reached = gain[0] >= 0 and over[0] >= 0
    lost = any(bounds[2] is not None and bounds[2] < 0 for bounds in (gain, over))
    return Verdict(
        f"{summary['title']}: no worse than the mix and than {LENGTH}",
        f"{in_points(gain, 2)}; over {LENGTH} {in_points(over, 2)}",
        "reached" if reached else "**missed**" if lost else "not shown",
    )


def p_value(sure: float) -> str:
    """Two digits, or that it is smaller."""
    return "< 0.01" if sure < 0.01 else f"{sure:.2f}"


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Markdown, one row per aim."""
    lines = ["| aim | AIQ gain, points | |", "|---|---|---|"]
    lines += [f"| {one.aim} | {one.measured} | {one.verdict} |" for one in verdicts]
    return "\n".join(lines) + "\n"


def message(summaries: Mapping[str, Summary], shipped: str) -> str:
    """The findings in a few sentences, from the figures alone."""
    return "".join(_findings(summaries, shipped))


def _findings(summaries: Mapping[str, Summary], shipped: str) -> Iterator[str]:
    found = adjusted(summaries, shipped)
    groups: dict[str, list[str]] = {"shown": [], "open": [], "behind": []}
    for key in main_views(summaries):
        summary, sure = summaries[key], found.get(key, 1.0)
        gain = summary["methods"][shipped]["measures"]["aiq_gain"]
        behind = gain[2] is not None and gain[2] < 0
        group = "shown" if sure < LEVEL and gain[0] > 0 else "behind" if behind else "open"
        groups[group].append(f"{summary['title']} ({100 * gain[0]:+.1f})")
    texts = {
        "shown": "**Better than the best fixed mix beyond chance** on",
        "open": "**No gain shown** on",
        "behind": "**Worse than the best fixed mix** on",
    }
    yield from (f"* {texts[group]} {', '.join(names)}.\n" for group, names in groups.items() if names)
    yield from _against_simple(summaries)
    yield from _families(summaries, shipped)
    if withdrawn := summaries.get(WITHDRAWN):
        own = withdrawn["methods"][shipped]["measures"]["aiq_gain"]
        yield (
            "* **Withdrawn:** an earlier page claimed a gain on GSM8K alone, over a mix of two caps. Less"
            f" chance, and with one cap for all in the mix, the head has {in_points(own, 2)} there.\n"
        )


def _against_simple(summaries: Mapping[str, Summary]) -> Iterator[str]:
    """On how many tables a simpler method is as good."""
    ahead, behind, even = 0, 0, 0
    for key in main_views(summaries):
        methods = summaries[key]["methods"]
        simple = [name for name in methods if name in SIMPLE]
        if not simple:
            continue
        best = max(simple, key=lambda name: methods[name]["measures"]["aiq_gain"][0])
        _, low, high = methods[best]["ahead"]["aiq_gain"]
        ahead += low is not None and low > 0
        behind += high is not None and high < 0
        even += not ((low is not None and low > 0) or (high is not None and high < 0))
    if ahead + behind + even:
        yield (
            f"* **Against the best simple method of each table**, chosen afterwards ({', '.join(SIMPLE)}),"
            f" the head is clearly better on {ahead}, clearly worse on {behind}, and neither on {even}.\n"
        )


SIMPLE = (
    "prompt length", "keywords", "data set identity", "kNN", "TF-IDF ridge", "outcome regression",
    "matrix factorisation", "gradient boosting",
)  # fmt: skip
"""Methods that are not ours."""


def _families(summaries: Mapping[str, Summary], shipped: str) -> Iterator[str]:
    pairs = []
    for key, summary in summaries.items():
        whole = summaries.get(key.removesuffix("-families"))
        if key.endswith("-families") and whole:
            known, unseen = (each["methods"][shipped]["measures"]["aiq_gain"][0] for each in (whole, summary))
            pairs.append(f"{whole['title']} {100 * known:+.1f} → {100 * unseen:+.1f}")
    if pairs:
        yield (
            "* **On families of prompts that it never saw**, AIQ gains change so (known → unseen families):"
            f" {'; '.join(pairs)}.\n"
        )
