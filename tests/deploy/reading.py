"""Reads the files under deploy/ as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules"
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
CHART = ROOT / "deploy/kubernetes/thinkmeter"


def read(path: str) -> Any:
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / path).read_text())


def rules() -> list[dict[str, Any]]:
    """Every recording rule and alert."""
    groups = [
        group for path in sorted(RULES.glob("*.yaml")) for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel with a query, after its name `dashboard/title`."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for inner in [panel, *panel.get("panels", [])]:
                if inner["type"] != "row":
                    yield f"{path.stem}/{inner['title']}", inner


def queries() -> list[tuple[str, str]]:
    """Every query of every panel: (`dashboard/title/letter`, PromQL)."""
    return [
        (f"{name}/{target['refId']}", target["expr"])
        for name, panel in panels()
        for target in panel["targets"]
    ]


def variables() -> list[tuple[str, str, str]]:
    """Every variable of every dashboard: (`dashboard/variable`, metric, label)."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for variable in json.loads(path.read_text())["templating"]["list"]:
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()
            found.append((f"{path.stem}/{variable['name']}", metric, label))
    return found


def metrics_in(expression: str) -> set[str]:
    """Our metrics in a PromQL expression, as docs/metrics.md writes them."""
    named = re.findall(r"\bthinkmeter_[a-z_]+", expression)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}


def recorded_in(expression: str) -> set[str]:
    """Recorded series in a PromQL expression."""
    return set(re.findall(r"\bthinkmeter:[a-z0-9_:]+", expression))


def documented_metrics() -> set[str]:
    """The first column of the table in docs/metrics.md."""
    return set(
        re.findall(r"^\| `(thinkmeter_[a-z_]+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )
