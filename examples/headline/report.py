"""The table and the plot of a headline measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INTRO = """\
# The headline, measured

The [tiny reasoner](../examples/tiny_reasoner/README.md) in {engine} answered {questions:,} questions
through the gateway, at temperature {temperature}. Neither the model nor the head `{head}` had seen them.
The price of each budget was set once, from the head's estimates for {calibration:,} other questions,
without using any answers. Then every question went through the gateway at that price. All methods in a row
use as many tokens as adaptive did. Brackets are 95 % intervals over resampled questions.

{command}

![Right answers by tokens](headline.svg)
"""

MEANING = """\
- **Best fixed mix**: draws the tier of each question at random, with the shares that do best *on these
  questions*. No fixed policy does better here, and in practice one would do worse.
- **Self-consistency**: takes several samples of one tier, and the most frequent answer wins. The tier and the
  number of votes are also those that do best on these questions ({samples}).
- **Oracle**: knows every outcome beforehand, including chance. No method can reach it.
"""

PAPER = """\
## Comparison with the paper

Yu et al. ([Think Smarter not Harder](https://arxiv.org/abs/2501.17974), ICML 2025) report on MATH500,
relative to their base model, +8.08 % at 2.16 times and +11.2 % at 4.32 times the tokens, about twice what
self-consistency gains there. Model, task and kind of budget are different here. The tiny model's answers
without thinking are mostly guesses and cost 3 tokens, so gains relative to them look large and say little.
What can be compared is the distance between choosing where to think and voting.

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


def table(result: dict[str, Any]) -> str:
    """The comparison as a Markdown table."""
    lines = [
        "| budget | used | adaptive | best fixed mix | self-consistency | oracle | adaptive − mix, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["budgets"]:
        ways = [_cell(row[name]) for name in ("adaptive", "best_mix", "self_consistency", "oracle")]
        used = f"{row['adaptive']['tokens']:.1f}"
        lines.append(f"| {' | '.join([_name(row), used, *ways, _points(row['over_mix'])])} |")
    return "\n".join(lines)


def fixed_table(result: dict[str, Any]) -> str:
    """The fixed tiers as a Markdown table."""
    lines = ["| tier | right | tokens per question |", "|---|---|---|"]
    lines += [f"| {row['name']} | {_cell(row)} | {row['tokens']:.1f} |" for row in result["fixed"]]
    return "\n".join(lines)


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    measured = {name: result[name] for name in ("questions", "engine", "temperature", "head", "calibration")}
    samples = ", ".join(f"{tier} up to {count}" for tier, count in result["samples"].items())
    rows = "\n".join(
        f"| {_name(row)} | {_points(row['relative_gain'])} % | "
        f"{_points(row['relative_gain_self_consistency'])} % |"
        for row in result["budgets"]
    )
    command = f"```\n{result['command']}\n```"
    parts = [
        INTRO.format(command=command, **measured),
        table(result),
        fixed_table(result),
        MEANING.format(samples=samples),
        PAPER.format(rows=rows),
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
        "adaptive": ("adaptive", "#0f6b79", "-"),
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
    for tier in result["fixed"]:
        axes.plot(tier["tokens"], 100 * tier["accuracy"], "s", color="#1b1d1f", markersize=5)
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
