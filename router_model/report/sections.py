"""Sections of the page: overview, rivals, IBPO, unseen families, oracle, evidence, models never measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_model.evaluation.metrics import BUDGETS
from router_model.report.aims import LENGTH, adjusted, main_views, p_value
from router_model.report.settings import KINDS
from router_model.report.summary import Summary, as_markdown, in_points

_SHOWN = ("lean", "middle", "ample")


def overview(summaries: Mapping[str, Summary], shipped: str) -> str:
    """One row per table: the head's gains over the fixed mix."""
    sure = adjusted(summaries, shipped)
    head = ["table", "prompts", "mix at 50 %", *(f"{BUDGETS[name]:.0%}" for name in _SHOWN)]
    rows, kind = [], ""
    for key in main_views(summaries):
        summary = summaries[key]
        if summary["kind"] != kind:
            kind = summary["kind"]
            rows.append([f"***{KINDS[kind]}***", *[""] * (len(head) + 1)])
        measures = summary["methods"][shipped]["measures"]
        rows.append(
            [
                summary["title"], f"{summary['prompts']:,}", f"{100 * summary['mix']['middle']:.1f} %",
                *(in_points(measures[f"gain_{name}"]) for name in _SHOWN),
                in_points(measures["aiq_gain"], 2), p_value(sure[key]) if key in sure else "control",
            ]
        )  # fmt: skip
    return as_markdown([*head, "AIQ gain", "p"], rows)


def rivals(found: Mapping[str, Mapping[str, Any]], summaries: Mapping[str, Summary]) -> Iterator[str]:
    """Against ways that ask more than once."""
    if not found:
        return
    yield "## Rivals that ask more than once\n"
    yield (
        "Self-consistency takes the most frequent of k answers of a tier. Adaptive consistency stops asking"
        " when the majority is settled (Aggarwal et al., 2023). Two drafts (DART) answer directly twice, and"
        " think only if the drafts disagree. *Direct, then think* thinks if the direct answer did not finish"
        " within 512 tokens. All of their options join the fixed tiers, and the best mix is the rival. Each"
        " cell has its points over the fixed mix, then the router's points over the rival.\n"
    )
    rows = [
        [
            f"{summaries[key]['title']}: {name}",
            *(f"{in_points(one['rival'])} / {in_points(one['router'])}" for one in rival["budgets"].values()),
        ]
        for key, ways in found.items()
        for name, rival in ways.items()
    ]
    yield as_markdown(["rival", *(f"{extra:.0%}" for extra in BUDGETS.values())], rows)
    yield from _points(found, summaries)
    if any("upper bound" in name for ways in found.values() for name in ways):
        yield (
            "*Upper bound*: the table holds shares of right answers, not the answers. Voting is taken to be"
            " as good as it can be: no two wrong answers agree.\n"
        )


def _points(found: Mapping[str, Mapping[str, Any]], summaries: Mapping[str, Summary]) -> Iterator[str]:
    rows = [
        [summaries[key]["title"], f"{name}, {option['name']}" if option["name"] not in name else name,
         f"{option['tokens']:,.0f}", f"{100 * option['accuracy']:.1f} %"]
        for key, ways in found.items()
        for name, rival in ways.items()
        for option in rival["options"]
    ]  # fmt: skip
    if rows:
        rows += [
            [summaries[key]["title"], f"tier {tier['name']}", f"{tier['tokens']:,.0f}",
             f"{100 * tier['accuracy']:.1f} %"]
            for key, ways in found.items()
            if any(rival["options"] for rival in ways.values())
            for tier in summaries[key]["tiers"]
        ]  # fmt: skip
        yield "What single options reach, beside the tiers:\n"
        yield as_markdown(["table", "option", "tokens", "right"], sorted(rows, key=lambda row: row[0]))
        yield (
            "The table with drafts says how many of four direct answers are right, not what they are. So it"
            " cannot tell whether two wrong drafts agree, and both extremes are shown.\n"
        )


def ibpo(summaries: Mapping[str, Summary], shipped: str) -> Iterator[str]:
    """IBPO as published, in all its forms."""
    main = [summaries[key] for key in main_views(summaries)]
    forms = [name for name in main[0]["methods"] if name.startswith("IBPO, as published")]
    if not forms:
        return
    yield "## IBPO as published\n"
    yield (
        "The published form limits the *share* of long answers, learns from single outcomes, and answers long"
        " where P(long) > ½, at any price. It cannot spend a given budget, so by itself it is scored at"
        " budgets that it does not use. Its fair forms are *mixed* with the fixed tiers, which any operator"
        " can do, and *ranked* by P(long), which can spend any budget. AIQ gains:\n"
    )
    columns = [*forms, shipped]
    rows = [
        [each["title"], *(in_points(each["methods"][name]["measures"]["aiq_gain"], 2) for name in columns)]
        for each in main
    ]
    yield as_markdown(["table", *columns], rows)
    for name in forms[1:]:
        above = [
            each["title"] for each in main if (each["methods"][name]["measures"]["aiq_gain"][1] or 0) > 0
        ]
        yield (
            f"* {name.removeprefix('IBPO, as published, ').capitalize()}:"
            f" {'above the mix on ' + ', '.join(above) + '; elsewhere' if above else 'everywhere'}"
            " no better than the mix.\n"
        )


def families(summaries: Mapping[str, Summary], shipped: str) -> Iterator[str]:
    """What is left of the gains on kinds of prompts that no method was fitted to."""
    views = {key: summary for key, summary in summaries.items() if key.endswith("-families")}
    if not views:
        return
    yield "## Families of prompts that were never seen\n"
    yield (
        "Cross-validation over single prompts interpolates within the families that a table consists of. Here"
        " whole groups of categories are left out, and methods are fitted to the others. AIQ gains, and the"
        f" {shipped}'s gains at 25, 50 and 75 %:\n"
    )
    names = list(next(iter(views.values()))["methods"])
    rows = []
    for key, summary in views.items():
        whole = summaries.get(key.removesuffix("-families"))
        known = whole["methods"][shipped]["measures"]["aiq_gain"] if whole else [None, None, None]
        own = summary["methods"][shipped]["measures"]
        gains = [in_points(summary["methods"][name]["measures"]["aiq_gain"], 2) for name in names]
        at = " ".join(f"{100 * own[f'gain_{name}'][0]:+.1f}" for name in _SHOWN)
        rows.append([summary["title"].partition(",")[0] if whole is None else whole["title"],
                     in_points(known, 2), *gains, at])  # fmt: skip
    yield as_markdown(
        ["table", f"{shipped}, known", *(f"{name}, unseen" for name in names), "25 50 75 %"], rows
    )
    yield f"At least {LENGTH} must be reached, because the length of a prompt is always known.\n"


def oracles(summaries: Mapping[str, Summary], shipped: str) -> str:
    """How much of the way to the oracle is gone, at every budget."""
    rows = []
    for key in main_views(summaries):
        summary = summaries[key]
        if summary["kind"] == "length":
            continue
        gaps = [summary["methods"][shipped]["measures"][f"gap_{name}"] for name in BUDGETS]
        cells = ["–" if gap[0] is None else _percent(gap) for gap in gaps]
        rows.append([summary["title"], summary["oracle"], *cells])
    text = (
        "Share of the way from the fixed mix to the oracle. A *clairvoyant* oracle chooses and scores on the"
        " same single sample: it knows chance outcomes in advance, and no router can reach it. An *informed*"
        f" oracle knows all samples of a prompt except the one it is scored on, and the {shipped}'s estimate,"
        " which counts as two samples. A dash: mix and oracle are less than a point apart. Tables of output"
        " caps are left out: their mix contains caps that neither oracle nor router may choose.\n\n"
    )
    return text + as_markdown(["table", "oracle", *(f"{extra:.0%}" for extra in BUDGETS.values())], rows)


def _percent(bounds: Sequence[float | None]) -> str:
    value, low, high = (None if one is None else 100 * one for one in bounds)
    return f"{value:.0f} %" if low is None or high is None else f"{value:.0f} % ({low:.0f} to {high:.0f})"


def learning(curves: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """How much evidence `calibrate` needs."""
    if not curves:
        return
    yield "## How much evidence calibration needs\n"
    yield (
        "`thinkmeter calibrate` adds a model to an included head. Here it sees a few prompts of a table that"
        " the head knows nothing of, and is measured on all the others, with other prompts for each seed.\n"
    )
    for curve in curves.values():
        yield f"{curve['title']}, head `{curve['head']}`, {curve['prompts']:,} prompts:\n"
        rows = [
            [
                f"{point['prompts']}", f"{point['samples']}",
                *(in_points(point[f"gain_{name}"]) for name in _SHOWN), in_points(point["aiq_gain"], 2),
            ]
            for point in curve["points"]
        ]  # fmt: skip
        yield as_markdown(
            ["prompts", "samples each", *(f"{BUDGETS[n]:.0%}" for n in _SHOWN), "AIQ gain"], rows
        )


def never_measured(rows: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    """Models without outcomes of their own, or with few: replays through the gateway's decisions.

    rows: `table`, `own` prompts calibrated on, `prompts` replayed, the `fixed` tiers, tokens and accuracy at
    the `default` price, `default_loss`, `loss`, `gain` and `token_ratio`.
    """
    if not rows:
        return
    yield "## Models that were never measured\n"
    yield (
        "A model without outcomes of its own is decided by the"
        " [prior](head.md#a-model-that-was-never-measured), which gives way to evidence. Here measured tables"
        " are replayed through the gateway's own decisions at every price, as if their models were new: with"
        " the prior alone, fitted without the table, and after `calibrate` with 50, 200 and 800 of its"
        " prompts, on the others (means of three draws). The head was trained on none of these data sets."
        " *Below the line*: the worst point below the line through the fixed tiers at equal tokens, in"
        " points. *Gain*: over the best fixed mix, mean over all budgets. *Default price*: tokens and right"
        " answers at 0.02, and by how much its value differs from that of the best fixed tier. *Tokens*:"
        " expected over used.\n"
    )
    head = ["table", "estimates", "below the line", "gain", "default price", "value", "tokens", "fixed tiers"]
    yield as_markdown(head, [_replay_cells(row) for row in rows])


def _replay_cells(row: Mapping[str, Any]) -> list[str]:
    default = row["default"]
    fixed = [f"{100 * tier['accuracy']:.1f} % at {tier['tokens']:,.0f}" for tier in row["fixed"]]
    return [
        row["table"],
        f"{row['own']} own" if row["own"] else "prior",
        f"{100 * max(row['loss'], 0):.1f}",
        f"{100 * row['gain']:+.1f}",
        f"{default['tokens']:,.0f}, {100 * default['accuracy']:.1f} %",
        f"{-row['default_loss']:+.3f}",
        f"{row['token_ratio']:.2f}",
        "" if row["own"] else ", ".join(fixed),
    ]
