"""Makes tables and the plot from an outcome table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from examples.servers import TIERS

Row = dict[str, Any]


def tiers(rows: Sequence[Row]) -> list[str]:
    """The named tiers, in the order of the table, whose other columns are thinking budgets between them."""
    return [name for name in rows[0]["tiers"] if name in TIERS]


def ladder(rows: Sequence[Row]) -> list[str]:
    """All columns of the table, by rising thinking budget."""
    return list(rows[0]["tiers"])


def mean(rows: Iterable[Row], tier: str, what: str) -> float:
    """Mean of `correct` or `tokens` over rows."""
    values: list[float] = [row["tiers"][tier][what] for row in rows]
    return sum(values) / len(values)


def parts(rows: Sequence[Row], count: int = 10) -> list[list[Row]]:
    """Split the rows into `count` equal parts from easy to hard; ties keep the order of the table."""
    ranked = sorted(rows, key=lambda row: row["level"])
    edges = [round(index * len(ranked) / count) for index in range(count + 1)]
    return [ranked[first:last] for first, last in itertools.pairwise(edges)]


def _line(name: str, rows: Sequence[Row], names: Sequence[str]) -> str:
    cells = [f"{mean(rows, tier, 'correct'):.1%} ({mean(rows, tier, 'tokens'):.0f})" for tier in names]
    return f"| {name} | {len(rows)} | " + " | ".join(cells) + " |"


def markdown(rows: Sequence[Row]) -> str:
    """Share right and mean completion tokens (in brackets): in total, by tenth of difficulty, by family.

    A second table has both for every thinking budget.
    """
    names = tiers(rows)
    head = "| | questions | " + " | ".join(names) + " |"
    lines = [head, "|---" * (len(names) + 2) + "|", _line("**all**", rows, names)]
    for index, part in enumerate(parts(rows)):
        steps = (
            f"{part[0]['level']}–{part[-1]['level']}"
            if part[0]["level"] != part[-1]["level"]
            else part[0]["level"]
        )
        lines.append(_line(f"tenth {index + 1} ({steps} steps)", part, names))
    for family in sorted({row["category"] for row in rows}):
        lines.append(_line(family, [row for row in rows if row["category"] == family], names))
    lines += ["", "| thinking budget | right | completion tokens |", "|--:|--:|--:|"]
    for name in ladder(rows):
        budget, right = rows[0]["tiers"][name]["thinking"], mean(rows, name, "correct")
        lines.append(f"| {budget} | {right:.1%} | {mean(rows, name, 'tokens'):.1f} |")
    return "\n".join(lines) + "\n"


def rank_correlation(rows: Sequence[Row]) -> float:
    """Spearman's correlation between the length of the text and the true difficulty."""
    lengths = _ranks([len(row["prompt"]) for row in rows])
    levels = _ranks([row["level"] for row in rows])
    middle = (len(rows) - 1) / 2
    cross = sum((a - middle) * (b - middle) for a, b in zip(lengths, levels, strict=True))
    spread = sum((a - middle) ** 2 for a in lengths) * sum((b - middle) ** 2 for b in levels)
    return float(cross / spread**0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def write(rows: Sequence[Row], out: Path) -> None:
    """Write the table as Markdown, and the plot."""
    (out / "table.md").write_text(markdown(rows), encoding="utf-8")
    plot(rows, out / "accuracy.svg")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot accuracy by difficulty, one line per tier, and accuracy against tokens used, at every budget."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "tiny", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot

    names, groups = tiers(rows), parts(rows)
    colours = ["#b8c4ce", "#7fb3d5", "#2e86c1", "#1b4f72"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2), layout="constrained")
    spent, share = ([mean(rows, name, what) for name in ladder(rows)] for what in ("tokens", "correct"))
    right.plot(spent, [100 * value for value in share], color="#7f8c8d", marker=".", linewidth=1)
    for name, colour in zip(names, colours, strict=False):
        shares = [mean(part, name, "correct") * 100 for part in groups]
        left.plot(range(1, len(groups) + 1), shares, marker="o", color=colour, linewidth=2, label=name)
        point = mean(rows, name, "tokens"), mean(rows, name, "correct") * 100
        right.scatter(*point, s=90, color=colour, zorder=3)
        right.annotate(
            f"{name}\n{point[1]:.0f} %", point, xytext=(0, 10), ha="center", textcoords="offset points"
        )
    furthest = max(mean(rows, name, "tokens") for name in names)
    left.set(xlabel="tenth of the questions, easy to hard", ylabel="right answers, %", ylim=(0, 103))
    left.set_xticks(range(1, len(groups) + 1))
    left.legend(frameon=False, loc="lower left")
    right.set(xlabel="mean completion tokens", ylim=(0, 103))
    right.set_xlim(-0.1 * furthest, 1.15 * furthest)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e8eb")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
