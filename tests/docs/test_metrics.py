"""The documentation names every metric and log field, and no other."""

from __future__ import annotations

import re

import yaml
from prometheus_client import Info

from gateway.config.models import Replica
from gateway.errors import BackendError, InvalidApiKey
from gateway.telemetry.access_log import access_line
from gateway.telemetry.evidence_metrics import EvidenceState
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import BudgetChange, BudgetFigures, Record
from gateway.upstream.causes import Cause
from gateway.upstream.pool import Backend, Pool
from router_model.predictor import Evidence
from tests.docs.pages import PAGES, assert_same, named, page, rows, section
from tests.making import decision


def existing_metrics() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric, by the name under which it is exposed."""
    replica = Backend("a", Replica.model_validate({"url": "http://a"}))
    replica.cause = Cause("refused")
    evidence = {"tiny": Evidence("prior", 0, 1.0)}
    pools = [(Pool("tiny", "tiny", [replica]), replica)]
    metrics = Metrics(lambda: pools, lambda: evidence, lambda: {"stdout": 0})
    metrics.evidence.state = lambda: EvidenceState(True, 0, size=0, oldest=0.0)
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.exposition().decode(), re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for collector in metrics.registry._collector_to_names:
        given = getattr(collector, "label_names", getattr(collector, "_labelnames", None))
        own = set(given or ())
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            if isinstance(collector, Info):
                name, own = f"{family.name}_info", set(family.samples[0].labels)
            elif given is None:
                own = set(family._labelnames or family.samples[0].labels)
            labels[name] = own
    assert set(types) == set(labels)
    return {name: (types[name], labels[name]) for name in types}


def test_every_metric_is_documented() -> None:
    """Each metric is listed with its type and labels."""
    table = {
        named(row[0]): (row[1], set(re.findall(r"`([^`]+)`", row[2]))) for row in rows(page("metrics.md"))
    }
    existing = existing_metrics()

    assert_same(table, existing, "metrics.md")
    for name, (kind, labels) in existing.items():
        assert table[name] == (kind, labels), f"metrics.md says of {name}: {table[name]}"


def test_metrics_in_prose_exist() -> None:
    """A metric named anywhere in the documentation exists."""
    known = set(existing_metrics())
    for path in PAGES:
        named_here = set(re.findall(r"\bthinkmeter_[a-z_]+", path.read_text()))
        mentioned = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named_here}
        assert not mentioned - known, f"{path.name}: {mentioned - known}"


def test_every_log_field_is_documented() -> None:
    """All fields of the access log are listed, and no others."""
    made = decision("direct", {"direct": 0.5}, {"direct": 8.0})
    change = BudgetChange("reset", "day", "*", before=BudgetFigures(1, 1), after=BudgetFigures(1, 0))
    records = [
        Record(
            "id", "/v1/chat/completions", decision=made, shadow=True, backend="a", error=BackendError("x")
        ),
        Record("id", change=change, error=InvalidApiKey("x", tried="12345678")),
    ]
    lines = [yaml.safe_load(access_line(record)) for record in records]
    inside = {*lines[1]["change"], *lines[1]["change"]["before"]}
    text = section(page("metrics.md"), "The access log")

    assert_same(re.findall(r"`([^`]+)`", text), {*lines[0], *lines[1], *inside}, "metrics.md")
