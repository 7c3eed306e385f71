# ruff: noqa: INP001 - a script, not a package
"""Writes the Grafana dashboards from panels.yaml: `python deploy/grafana/generate.py [FOLDER]`.

Needs PyYAML and `pip install "grafana-foundation-sdk==1769699379!11.6.0"`. The JSON is committed, and a
test checks that it matches.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shape
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")

Panel = dict[str, Any]


def thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green, orange, red; if a low value is bad, from red up to green."""
    steps = [Threshold(color="green", value=None)]
    if panel.get("low_is_bad"):
        orange, red = panel["limits"]
        steps = [Threshold(color="red", value=None), Threshold(color="green", value=orange)]
        if red < orange:
            steps.insert(1, Threshold(color="orange", value=red))
    elif "limits" in panel:
        colours = zip(("orange", "red"), panel["limits"], strict=True)
        steps += [Threshold(color=colour, value=value) for colour, value in colours]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def legend() -> common.VizLegendOptions:
    """A table at the right with the last and the highest value, largest first."""
    options = common.VizLegendOptions().show_legend(True).display_mode(shape.LegendDisplayMode.TABLE)
    options = options.placement(shape.LegendPlacement.RIGHT).calcs(["lastNotNull", "max"])
    return options.sort_by("Last *").sort_desc(True)


def lines(panel: Panel) -> timeseries.Panel:
    """A time series, stacked or not, with its thresholds as dashed lines."""
    tooltip = common.VizTooltipOptions().mode(shape.TooltipDisplayMode.MULTI)
    built = timeseries.Panel().legend(legend()).line_width(1.5).axis_soft_min(0)
    built = built.tooltip(tooltip.sort(shape.SortOrder.DESCENDING))
    if panel.get("kind") == "stack":
        built = built.stacking(common.StackingConfig().mode(shape.StackingMode.NORMAL)).fill_opacity(40)
        if panel.get("unit") == "percentunit":
            built = built.max(1)
    if "limits" in panel and not panel.get("low_is_bad"):
        style = common.GraphThresholdsStyleConfig().mode(shape.GraphThresholdsStyleMode.DASHED)
        built = built.thresholds_style(style)
    return built


def figure(panel: Panel) -> stat.Panel:
    """One figure in front of its recent history."""
    coloured = shape.BigValueColorMode.BACKGROUND if "limits" in panel else shape.BigValueColorMode.VALUE
    return stat.Panel().graph_mode(shape.BigValueGraphMode.AREA).color_mode(coloured)


def heat(_: Panel) -> heatmap.Panel:
    """The buckets of a histogram over time."""
    return heatmap.Panel().calculate(False)


def build(panel: Panel) -> Any:
    """Convert a panel of panels.yaml to the SDK's panel."""
    kind = panel.get("kind", "lines")
    built: Any = {"lines": lines, "stack": lines, "stat": figure, "heat": heat}[kind](panel)
    built = built.title(panel["title"]).description(panel["description"]).datasource(SOURCE)
    built = built.unit(panel.get("unit", "short")).thresholds(thresholds(panel))
    built = built.span(4 if kind == "stat" else 12).height(4 if kind == "stat" else 8)
    for letter, asked in zip("ABCDEFGH", panel["queries"], strict=False):
        query = (
            prometheus.Dataquery().expr(asked["expr"]).legend_format(asked.get("legend", "")).ref_id(letter)
        )
        query = query.range().datasource(SOURCE)
        built = built.with_target(query.format("heatmap") if kind == "heat" else query)
    return built


def variable(name: str, query: str) -> dashboard.QueryVariable:
    """A selector at the top: one, several or all."""
    everything = VariableOption(text="All", value="$__all", selected=True)
    built = dashboard.QueryVariable(name).label(name).datasource(SOURCE).query(query).current(everything)
    built = built.multi(True).include_all(True).all_value(".*")
    return built.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def board(about: dict[str, Any]) -> str:
    """A whole dashboard as JSON."""
    title = about["title"]
    built = dashboard.Dashboard(f"Thinkmeter: {title}").uid(f"thinkmeter-{title.lower()}")
    built = built.description(about["about"]).tags(["thinkmeter"]).readonly()
    built = built.refresh("30s").time("now-1h", "now").timezone("browser")
    link = dashboard.DashboardLink("Thinkmeter").type(DashboardLinkType.DASHBOARDS).tags(["thinkmeter"])
    built = built.link(link.keep_time(True))
    for name, query in about["variable"].items():
        built = built.with_variable(variable(name, query))
    for row in about["rows"]:
        built = built.with_row(dashboard.Row(row["heading"]))
        for panel in row["panels"]:
            built = built.with_panel(build(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def main() -> None:
    """Write every dashboard."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "dashboards"
    for name, about in yaml.safe_load((HERE / "panels.yaml").read_text()).items():
        (folder / f"{name}.json").write_text(board(about))


if __name__ == "__main__":
    main()
