"""Figures: accuracy against tokens, one panel per setting, and each method's gain over mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

INK, GREY, PALE = "#1d2b36", "#8a97a3", "#e6eaee"
BLUE, ORANGE, GREEN = "#1668b0", "#d9652b", "#3a8f5c"
_STYLE: Any = {
    "font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "thinkmeter", "svg.fonttype": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "xtick.color": GREY, "ytick.color": GREY, "text.color": INK, "axes.titlelocation": "left",
    "axes.titlesize": 11, "axes.titleweight": "bold", "figure.dpi": 110,
}  # fmt: skip


def curves(summaries: Sequence[Mapping[str, Any]], shipped: str, rival: str, path: Path) -> None:
    """Accuracy against tokens for a few settings, side by side; writes PATH.png and PATH.svg."""
    with mpl.rc_context(_STYLE):
        wide = min(len(summaries), 3)
        high = -(-len(summaries) // wide)
        figure, panels = plt.subplots(
            high, wide, figsize=(4.4 * wide, 3.5 * high), squeeze=False, layout="constrained"
        )
        for panel, summary in zip(panels.flat, summaries, strict=False):
            _curve_panel(panel, summary, shipped, rival)
        for panel in list(panels.flat)[len(summaries) :]:
            panel.set_axis_off()
        _save(figure, path)


def _curve_panel(axes: Axes, summary: Mapping[str, Any], shipped: str, rival: str) -> None:
    methods = summary["methods"]
    at = np.array(summary["budgets"])
    best, mixed = np.array(summary["oracle_curve"]) * 100, np.array(summary["mix_curve"]) * 100
    routed = np.array(methods[shipped]["curve"]) * 100
    axes.fill_between(at, mixed, routed, where=routed >= mixed, color=BLUE, alpha=0.10, linewidth=0)
    axes.plot(at, best, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.plot(at, mixed, color=ORANGE, linewidth=1.8)
    if rival in methods:
        axes.plot(at, np.array(methods[rival]["curve"]) * 100, color=GREEN, linewidth=1.2)
    axes.plot(at, routed, color=BLUE, linewidth=2.4)
    for tier in summary["tiers"]:
        axes.plot(tier["tokens"], tier["accuracy"] * 100, "o", color=ORANGE, markersize=5, zorder=4)
    low, high = min(mixed.min(), routed.min()), max(best.max(), routed.max())
    axes.set_ylim(low - 0.08 * (high - low), high + 0.16 * (high - low))
    axes.set_xlim(at[0] - 0.03 * (at[-1] - at[0]), at[-1] + 0.03 * (at[-1] - at[0]))
    labels = [(best, f"oracle ({summary['oracle']})", GREY), (mixed, "best fixed mix", ORANGE)]
    labels += [(np.array(methods[rival]["curve"]) * 100, rival, GREEN)] if rival in methods else []
    _labels(axes, at, [*labels, (routed, shipped, BLUE)])
    axes.set(title=summary["title"], xlabel=summary["unit"], ylabel="right answers, %")
    axes.grid(axis="y", color=PALE)
    axes.set_axisbelow(True)


def _labels(axes: Axes, at: Any, lines: Sequence[tuple[Any, str, str]]) -> None:
    """Names beside the lines, at three fifths of their length, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    place = int(0.62 * (len(at) - 1))
    gap, floor = 0.075 * (high - low), low + 0.02 * (high - low)
    heights: list[float] = []
    for line, name, colour in sorted(lines, key=lambda labelled: float(labelled[0][place])):
        wanted = float(line[place]) - 1.2 * gap if not heights else float(line[place]) + 0.35 * gap
        height = max(wanted, heights[-1] + gap if heights else floor)
        heights.append(height)
        axes.annotate(
            name, (at[place], height), color=colour, fontsize=8.5, va="bottom", ha="left",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}, zorder=6,
        )  # fmt: skip


def gain_bars(
    summaries: Sequence[Mapping[str, Any]], shipped: str, path: Path, key: str = "gain_middle"
) -> None:
    """Gain over the best fixed mix at the middle budget: one panel per setting, one row per method."""
    with mpl.rc_context(_STYLE):
        names = list(summaries[0]["methods"])[::-1]
        wide = min(len(summaries), 4)
        high = -(-len(summaries) // wide)
        figure, panels = plt.subplots(
            high, wide, figsize=(1.7 + 2.4 * wide, (0.7 + 0.24 * len(names)) * high), sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for panel, summary in zip(panels.flat, summaries, strict=False):
            _gain_panel(panel, summary, names, shipped, key)
        for panel in list(panels.flat)[len(summaries) :]:
            panel.set_visible(False)
        _save(figure, path)


def _gain_panel(axes: Axes, summary: Mapping[str, Any], names: Sequence[str], shipped: str, key: str) -> None:
    axes.axvline(0, color=ORANGE, linewidth=1.2)
    for row, name in enumerate(names):
        if name not in summary["methods"]:
            continue
        value, low, high = (
            np.nan if share is None else 100 * share for share in summary["methods"][name]["measures"][key]
        )
        colour = BLUE if name == shipped else INK
        axes.plot([low, high], [row, row], color=colour, alpha=0.35, linewidth=3, solid_capstyle="round")
        axes.plot(value, row, "o", color=colour, markersize=5.5 if name == shipped else 4)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_title(summary["title"], fontsize=9.5)
    axes.set_xlabel("points over the mix", fontsize=9)
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def reliability(summaries: Sequence[Mapping[str, Any]], shipped: str, path: Path) -> None:
    """Predictions against outcomes, by deciles of the predictions, one shade per tier."""
    with mpl.rc_context(_STYLE):
        figure, panels = plt.subplots(
            1, len(summaries), figsize=(3.4 * len(summaries), 3.4), squeeze=False, layout="constrained"
        )
        for axes, summary in zip(panels.flat, summaries, strict=True):
            axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=(0, (4, 2)))
            diagrams = summary["methods"][shipped]["reliability"]
            for (tier, lines), shade in zip(
                diagrams.items(), np.linspace(0.35, 1, len(diagrams)), strict=True
            ):
                predicted, came_true = np.array(lines) * 100
                axes.plot(
                    predicted, came_true, "o-", color=BLUE, alpha=float(shade), markersize=3.5, linewidth=1.2
                )
                axes.annotate(
                    tier,
                    (predicted[0], came_true[0]),
                    xytext=(0, -11),
                    textcoords="offset points",
                    fontsize=8,
                )
            axes.set(title=summary["title"], xlabel="predicted, %", ylabel="came true, %")
            axes.set(xlim=(0, 101), ylim=(0, 101), aspect="equal")
            axes.grid(color=PALE)
            axes.set_axisbelow(True)
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
