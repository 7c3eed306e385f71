"""Promotes a head after it was tried on a configuration. It blocks: call it in a thread."""

from __future__ import annotations

from gateway.config.loader import ConfigError
from gateway.config.settings import Settings
from gateway.evidence.database import EvidenceStore
from gateway.evidence.heads.archive import find_head, promote_head, stored_head
from gateway.evidence.heads.gate import objection
from gateway.evidence.heads.log import HeadProblem
from gateway.evidence.rows import PromotionRow
from gateway.snapshot import HeadUnfit, Snapshot


def promote_checked(
    engine: EvidenceStore, version: str, settings: Settings, *, by: str, why: str, anyway: bool
) -> PromotionRow:
    """Put a head in force, if the gate lets it pass and it fits a configuration.

    version: or its beginning, if only one head has it. anyway: whatever the gate says.

    Raises: HeadProblem, EvidenceUnavailable.
    """
    row = find_head(engine, version)
    if not anyway and (against := objection(row)):
        raise HeadProblem(f"{row.version} is not promoted: {against}")
    try:
        Snapshot.build(settings, "tried", stored_head(engine, row.version))
    except (HeadUnfit, ConfigError) as error:
        raise HeadProblem(f"{row.version} is not promoted: {error}") from None
    return promote_head(engine, row.version, by=by, why=why)
