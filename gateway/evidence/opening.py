"""Makes the evidence of a gateway, if it is configured. Else nothing of it is imported, to start fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.feedback import FeedbackOutcome
from gateway.telemetry.finished import FinishedRecords

if TYPE_CHECKING:
    from gateway.evidence.service import EvidenceService


def evidence_of(
    settings: EvidenceSettings | None,
    finished: FinishedRecords,
    count_feedback: Callable[[FeedbackOutcome], None],
) -> EvidenceService | None:
    """The evidence under these settings; None without any."""
    if settings is None:
        return None
    from gateway.evidence.service import EvidenceService  # noqa: PLC0415 - it imports SQLAlchemy

    return EvidenceService(settings, finished, count_feedback)
