"""Keeps the decisions of a running gateway, with estimates of its own choice."""

from __future__ import annotations

from gateway.telemetry.record import Record
from tests.making import decision_row
from tests.serving import Running


def record_decisions(running: Running) -> None:
    """From now on, put a row into the store for each decision."""
    evidence = running.gateway.evidence
    assert evidence

    def keep(record: Record) -> None:
        if record.decision:
            names = {"request_id": record.request_id, "key": record.key, "status": record.status}
            evidence.writer.put(decision_row(record.decision.id, **names))

    running.gateway.finished.sinks.append(keep)
