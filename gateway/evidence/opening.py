"""Makes the evidence of a gateway, if it is configured. Else nothing of it is imported, to start fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.budget.ledger import Ledger
from gateway.config.evidence import EvidenceSettings
from gateway.snapshot import Snapshot
from gateway.telemetry.finished import FinishedRecords
from gateway.telemetry.metrics import Metrics
from gateway.upstream.dispatch import Upstream

if TYPE_CHECKING:
    from gateway.evidence.service import EvidenceService
    from gateway.evidence.shadows.shadows import Shadows


class ServingState(Protocol):
    """What the gateway is doing."""

    draining: bool
    """It is about to end."""

    @property
    def snapshot(self) -> Snapshot:
        """What the next request will be served with."""
        ...


def evidence_of(
    settings: EvidenceSettings | None, finished: FinishedRecords, metrics: Metrics, gateway: ServingState
) -> EvidenceService | None:
    """The evidence under these settings; None without any.

    gateway: tells which snapshot is in use.
    """
    if settings is None:
        return None
    from gateway.evidence.service import EvidenceService  # noqa: PLC0415 - it imports SQLAlchemy

    return EvidenceService(settings, finished, metrics, gateway)


def shadows_of(
    evidence: EvidenceService | None,
    upstream: Upstream,
    ledger: Ledger,
    metrics: Metrics,
    gateway: ServingState,
) -> Shadows | None:
    """What asks requests again, while a configuration wants it; None without a store for the pairs.

    gateway: tells which snapshot is in use, and whether it drains.
    """
    if evidence is None:
        return None
    from gateway.evidence.shadows.shadows import Shadows  # noqa: PLC0415 - it imports SQLAlchemy

    return Shadows(evidence.writer, upstream, ledger, metrics.shadow, gateway)
