"""Makes the evidence of a gateway, if it is configured. Else nothing of it is imported, to start fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.evidence import EvidenceSettings
from gateway.telemetry.finished import FinishedRecords
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.evidence.service import EvidenceService


def evidence_of(
    settings: EvidenceSettings | None, finished: FinishedRecords, metrics: Metrics
) -> EvidenceService | None:
    """The evidence under these settings; None without any."""
    if settings is None:
        return None
    from gateway.evidence.service import EvidenceService  # noqa: PLC0415 - it imports SQLAlchemy

    return EvidenceService(settings, finished, metrics)
