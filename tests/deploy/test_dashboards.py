"""The Grafana dashboards are generated, complete and readable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.reading import DASHBOARDS, ROOT, panels, queries, read

PANELS = [pytest.param(panel, id=name) for name, panel in panels()]


def test_dashboards_are_what_the_script_writes(tmp_path: Path) -> None:
    """The committed JSON is exactly what the generator writes."""
    pytest.importorskip("grafana_foundation_sdk", reason="see deploy/grafana/generate.py")
    command = (sys.executable, "-B", str(ROOT / "deploy/grafana/generate.py"), str(tmp_path))
    subprocess.run(command, check=True, timeout=60)
    written = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    assert written == {path.name: path.read_text() for path in DASHBOARDS.glob("*.json")}


def test_dashboards_are_provisioned() -> None:
    """Grafana loads the folder of the dashboards, and every panel uses the data source that it provisions."""
    (provider,) = read("deploy/grafana/provisioning/dashboards/thinkmeter.yaml")["providers"]
    (source,) = read("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    mounts = read("compose.yaml")["services"]["grafana"]["volumes"]

    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    used = {panel["datasource"]["uid"] for _, panel in panels()}
    used |= {target["datasource"]["uid"] for _, panel in panels() for target in panel["targets"]}
    assert used == {source["uid"]}


def test_dashboards_can_be_told_apart() -> None:
    """Dashboards have fixed identifiers, no database identifiers, and links to all others."""
    boards = [json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")]
    assert {board["uid"] for board in boards} == {
        f"thinkmeter-{n}" for n in ("budgets", "decisions", "quality", "service")
    }
    for board in boards:
        assert not board.get("id")
        assert board["tags"] == ["thinkmeter"]
        assert board["links"][0]["tags"] == ["thinkmeter"]


def test_titles_differ() -> None:
    """The panels of a dashboard have different names, and the queries of a panel different letters."""
    names = [name for name, _ in panels()]
    assert len(set(names)) == len(names)
    letters = [name for name, _ in queries()]
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("panel", PANELS)
def test_panel_is_readable_at_night(panel: dict[str, Any]) -> None:
    """A panel has a description, a unit, thresholds and a legend at the right with names; two fill a row."""
    config = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 20
    assert config["unit"]
    assert config["thresholds"]["steps"][0]["color"] in {"green", "red"}
    assert panel["gridPos"]["w"] == (4 if panel["type"] == "stat" else 12)
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["placement"] == "right"
        assert panel["options"]["legend"]["calcs"] == ["lastNotNull", "max"]
        assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_legend_names_labels_that_are_kept(panel: dict[str, Any]) -> None:
    """Every label in a legend is still there in the query's result."""
    for target in panel["targets"]:
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            kept = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            recorded = target["expr"].count("thinkmeter:")
            assert recorded or any(label in labels.split(", ") for labels in kept), target["expr"]
