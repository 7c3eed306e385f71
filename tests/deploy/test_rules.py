"""The Prometheus rules name what exists, every alert has a runbook section, and promtool's tests pass."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.reading import ROOT, RULES, documented_metrics, metrics_in, queries, recorded_in, rules

ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
UNIT_TESTS = sorted(Path(__file__).parent.glob("*.test.yaml"))


def promtool(*arguments: str) -> None:
    """Run promtool. If it fails, fail with its output."""
    tool = shutil.which("promtool") or pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run((tool, *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid() -> None:
    """promtool accepts every rule."""
    promtool("check", "rules", *map(str, sorted(RULES.glob("*.yaml"))))


def test_configuration_is_valid() -> None:
    """promtool accepts the scrape configuration."""
    promtool("check", "config", "--syntax-only", str(ROOT / "deploy/prometheus/prometheus.yaml"))


def test_alerts_fire_when_they_should() -> None:
    """promtool's unit tests pass."""
    promtool("test", "rules", *map(str, UNIT_TESTS))


def test_every_alert_is_tested() -> None:
    """Each alert has a case in which it fires."""
    tests = [test for path in UNIT_TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", ())]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)


@pytest.mark.parametrize("expression", [rule["expr"] for rule in rules()] + [query for _, query in queries()])
def test_expression_names_what_exists(expression: str) -> None:
    """Metrics are in docs/metrics.md, and recorded series in recording.yaml."""
    assert not metrics_in(expression) - documented_metrics()
    assert not recorded_in(expression) - RECORDED


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_what_to_do(name: str) -> None:
    """Each alert has a severity, a summary, and its own section in the runbook."""
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert name in headings()


def test_runbook_knows_no_other_alert() -> None:
    """Each section of the runbook about an alert is about one that exists."""
    assert {heading for heading in headings() if heading.startswith("Thinkmeter")} == set(ALERTS)


def headings() -> list[str]:
    return re.findall(r"^#+ (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
