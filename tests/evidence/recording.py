"""Keeps the decisions of a running gateway, with estimates of its own choice."""

from __future__ import annotations

import time

from gateway.telemetry.record import Record
from tests.evidence.made import decision
from tests.serving import Running


def record_decisions(running: Running) -> None:
    """From now on, put a row into the store for each decision."""
    evidence = running.gateway.evidence
    assert evidence

    def keep(record: Record) -> None:
        if record.decision:
            names = {"id": record.decision.id, "request_id": record.request_id, "key": record.key}
            evidence.writer.put(decision(at=time.time(), status=record.status, **names))

    running.gateway.finished.sinks.append(keep)
