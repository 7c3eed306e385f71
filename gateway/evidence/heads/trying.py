"""Finds the newest candidate in the store, and has it decide beside the head that serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from zipfile import BadZipFile

from gateway.evidence.database import EvidenceStore
from gateway.evidence.heads.archive import find_head, newest_candidate, stored_head
from gateway.evidence.heads.beside import Candidate
from gateway.evidence.heads.gate import objection
from gateway.evidence.heads.log import HeadProblem
from gateway.evidence.heads.promoting import promote_checked
from gateway.snapshot import Snapshot
from router_model.artifact import ArtifactError
from router_model.head import Head

log = logging.getLogger("thinkmeter.heads")


class CandidateTrial:
    """The candidate that is tried under a snapshot."""

    def __init__(
        self, share: float, take: Callable[[Candidate | None], None], *, promotes: bool = False
    ) -> None:
        """share: of the decisions that it is asked about. take: is told the candidate, None without one.

        promotes: put it in force once the gate lets it pass.
        """
        self._share = share
        self._take = take
        self._promotes = promotes
        self._told: str | None = None
        """The candidate that passed the gate, and could not be promoted all the same."""
        self._tried: tuple[str | None, int] | None = None

    def renew(self, engine: EvidenceStore, snapshot: Snapshot) -> None:
        """Look whether there is another candidate or another snapshot. It blocks.

        Raises: EvidenceUnavailable.
        """
        version = newest_candidate(engine) if self._share or self._promotes else None
        if version is not None and self._promotes:
            self._promote(engine, version, snapshot)
        if not self._share or (version, snapshot.number) == self._tried:
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

    def _promote(self, engine: EvidenceStore, version: str, snapshot: Snapshot) -> None:
        """Promote a candidate that the gate lets pass. Of many gateways, the first does it."""
        try:
            row = find_head(engine, version)
            if row.state != "candidate" or objection(row):
                return
            why = "; ".join((row.verdict or {}).get("reasons", ()))
            promote_checked(engine, version, snapshot.settings, by="auto_promote", why=why, anyway=False)
            log.info("the candidate %s has passed the gate and is promoted", version)
        except HeadProblem as error:
            if self._told != version:
                self._told = version
                log.warning("the candidate has passed the gate, but %s", error)

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
        return Candidate(head, ladders, self._share)
