"""The table and the plot of a headline measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INTRO = """\
# The headline, measured

The [tiny reasoner](../examples/tiny_reasoner/README.md) in {engine} answered {questions:,} questions
through the gateway, at temperature {temperature}. Neither the model nor the head `{head}` had seen them.
The gateway chose among the rungs of a ladder of thinking budgets. The price of each budget was set once, from
the head's estimates for {calibration:,} other questions, without using any answers. Then every question went
through the gateway at that price. Brackets are 95 % intervals over resampled questions.

{command}

![Right answers by tokens](headline.svg)

## More rungs
"""

RUNGS = """\
Cells are right answers, and the completion tokens used per question. The last column compares the {finest}
rungs with the best mix of the runs with {coarsest} rungs, at the same tokens. The named tiers alone are
4 rungs.
"""

METHODS = """\
## {rungs} rungs against other methods

All methods in a row use as many tokens as adaptive did, and all have the same {rungs} rungs.
"""

MEANING = """\
- **Best fixed mix**: draws the thinking budget of each question at random among all rungs, with the shares
  that do best *on these questions*. No fixed policy does better here, and in practice one would do worse.
- **Self-consistency**: takes several samples at one thinking budget, and the most frequent answer wins. The
  best mix of all budgets and numbers of votes ({samples}) is taken, again on these questions. Where it equals
  the best fixed mix, a single vote is best: the tokens gain more in longer thoughts than in more votes.
- **Oracle**: knows every outcome beforehand, including chance. No method can reach it.

## Fixed thinking budgets
"""

PAPER = """\
## Comparison with the paper

Yu et al. ([Think Smarter not Harder](https://arxiv.org/abs/2501.17974), ICML 2025) report on MATH500,
relative to their base model, +8.08 % at 2.16 times and +11.2 % at 4.32 times the tokens, about twice what
self-consistency gains there. Model, task and kind of budget are different here. The tiny model's answers
without thinking are mostly guesses and cost 3 tokens, so gains relative to them look large and say little.
What can be compared is the distance between choosing where to think and voting. Voting may choose any fixed
budget here, and a single vote.

| budget | adaptive, relative to always direct | self-consistency, relative to always direct |
|---|---|---|
{rows}
"""


def _cell(cell: dict[str, float]) -> str:
    return f"{100 * cell['accuracy']:.1f} % ({100 * cell['low']:.1f}–{100 * cell['high']:.1f})"


def _points(cell: dict[str, float]) -> str:
    return f"{100 * cell['gain']:+.1f} ({100 * cell['low']:+.1f} to {100 * cell['high']:+.1f})"


def _name(row: dict[str, Any]) -> str:
    return f"{row['budget']:.1f} tokens ({row['times_direct']:.1f}×)"


def by_rungs(result: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """The rows of each ladder by its number of rungs, coarsest first."""
    coarser = {int(count): rows for count, rows in result["coarser"].items()}
    return dict(sorted(coarser.items())) | {result["rungs"]: result["budgets"]}


def rungs_table(result: dict[str, Any]) -> str:
    """Right answers by budget and number of rungs as a Markdown table."""
    ladders = by_rungs(result)
    coarsest, finest = min(ladders), max(ladders)
    heads = [f"{count} rungs" for count in ladders]
    lines = [
        f"| budget | {' | '.join(heads)} | {finest} − {coarsest} rungs, points |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for rows in zip(*ladders.values(), strict=True):
        cells = [f"{_cell(row['adaptive'])}, {row['adaptive']['tokens']:.1f}" for row in rows]
        lines.append(f"| {' | '.join([_name(rows[-1]), *cells, _points(rows[-1]['over_coarsest'])])} |")
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison of one ladder with other methods as a Markdown table."""
    lines = [
        "| budget | used | adaptive | best fixed mix | self-consistency | oracle | adaptive − mix, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ways = [_cell(row[name]) for name in ("adaptive", "best_mix", "self_consistency", "oracle")]
        used = f"{row['adaptive']['tokens']:.1f}"
        lines.append(f"| {' | '.join([_name(row), used, *ways, _points(row['over_mix'])])} |")
    return "\n".join(lines)


def fixed_table(result: dict[str, Any]) -> str:
    """The fixed thinking budgets as a Markdown table."""
    lines = ["| thinking budget | right | tokens per question |", "|---|---|---|"]
    for row in result["fixed"]:
        tier = "" if row["name"].endswith("_tokens") else f" ({row['name']})"
        lines.append(f"| {row['thinking']}{tier} | {_cell(row)} | {row['tokens']:.1f} |")
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    measured = {name: result[name] for name in ("questions", "engine", "temperature", "head", "calibration")}
    votes = result["samples"].values()
    relative = "\n".join(
        f"| {_name(row)} | {_points(row['relative_gain'])} % | "
        f"{_points(row['relative_gain_self_consistency'])} % |"
        for row in result["budgets"]
    )
    ladders = by_rungs(result)
    parts = [INTRO.format(command=f"```\n{result['command']}\n```", **measured)]
    if len(ladders) > 1:
        parts += [rungs_table(result), RUNGS.format(coarsest=min(ladders), finest=max(ladders))]
    for count, rows in reversed(ladders.items()):
        parts += [METHODS.format(rungs=count), table(rows)]
    parts += [
        MEANING.format(samples=f"{min(votes)} to {max(votes)}"),
        fixed_table(result),
        PAPER.format(rows=relative),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot right answers by tokens as an SVG; needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "thinkmeter"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    styles = {
        "oracle": ("oracle", "#b9b6ab", ":"),
        "adaptive": (f"adaptive, {result['rungs']} rungs", "#0f6b79", "-"),
        "best_mix": ("best fixed mix", "#1b1d1f", "--"),
        "self_consistency": ("self-consistency", "#a8651b", "-."),
    }
    rows = sorted(result["budgets"], key=lambda row: row["adaptive"]["tokens"])
    for key, (label, colour, line) in styles.items():
        x = [row[key]["tokens"] for row in rows]
        y = [100 * row[key]["accuracy"] for row in rows]
        axes.plot(
            x, y, line, color=colour, label=label, marker="o" if key == "adaptive" else None, markersize=4
        )
        if key == "adaptive":
            low, high = ([100 * row[key][end] for row in rows] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    for (count, coarser), line in zip(result["coarser"].items(), ("-", "--", "-.", ":"), strict=False):
        cells = [row["adaptive"] for row in coarser]
        x, y = [cell["tokens"] for cell in cells], [100 * cell["accuracy"] for cell in cells]
        axes.plot(x, y, line, color="#7fb3bb", label=f"adaptive, {count} rungs", linewidth=1)
    for tier in result["fixed"]:
        axes.plot(tier["tokens"], 100 * tier["accuracy"], "s", color="#1b1d1f", markersize=3)
        if tier["name"].endswith("_tokens"):
            continue
        axes.annotate(
            tier["name"],
            (tier["tokens"], 100 * tier["accuracy"]),
            xytext=(6, -11),
            textcoords="offset points",
        )
    axes.set_xlabel("completion tokens per question")
    axes.set_ylabel("right answers, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
