"""Finds the newest candidate in the store, and has it decide beside the head that serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from zipfile import BadZipFile

from gateway.evidence.database import EvidenceStore
from gateway.evidence.heads.archive import newest_candidate, stored_head
from gateway.evidence.heads.beside import Candidate
from gateway.evidence.heads.log import HeadProblem
from gateway.snapshot import Snapshot
from router_model.artifact import ArtifactError
from router_model.head import Head

log = logging.getLogger("thinkmeter.heads")


class CandidateTrial:
    """The candidate that is tried under a snapshot."""

    def __init__(self, share: float, take: Callable[[Candidate | None], None]) -> None:
        """share: of the decisions that it is asked about. take: is told the candidate, None without one."""
        self.share = share
        self._take = take
        self._tried: tuple[str | None, int] | None = None

    def renew(self, engine: EvidenceStore, snapshot: Snapshot) -> None:
        """Look whether there is another candidate or another snapshot. It blocks.

        Raises: EvidenceUnavailable.
        """
        version = newest_candidate(engine)
        if (version, snapshot.number) == self._tried:
            return
        candidate = None
        if version is not None:
            try:
                candidate = self._opened(engine, version, snapshot)
                if self._tried is None or version != self._tried[0]:
                    log.info("the candidate %s decides beside %s", version, snapshot.router.versions["head"])
            except (HeadProblem, ArtifactError, BadZipFile, KeyError, TypeError, ValueError) as error:
                log.warning("the candidate %s is not tried: %s", version, error)
        self._tried = version, snapshot.number
        self._take(candidate)

    def _opened(self, engine: EvidenceStore, version: str, snapshot: Snapshot) -> Candidate:
        head = Head.unpack(stored_head(engine, version), version)
        targets = {name: snapshot.router.targets[name] for name in snapshot.settings.models}
        ladders = {
            name: tuple(target.ladder.lengths)
            for name, target in targets.items()
            if len(target.ladder.names) > 1 and head.match(name, target.ladder.named_lengths)
        }
        if not ladders:
            raise HeadProblem(
                f"it knows {', '.join(head.sets) or 'no model'}, and none of {', '.join(targets)}"
            )
        return Candidate(head, ladders, self.share)
