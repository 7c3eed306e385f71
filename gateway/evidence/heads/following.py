"""Lets a running gateway decide with the head that is promoted in the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from gateway.config.loader import ConfigError
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable
from gateway.evidence.heads.archive import newest_promotion, stored_head
from gateway.evidence.heads.log import HeadProblem, follows
from gateway.evidence.heads.trying import CandidateTrial
from gateway.evidence.rows import PromotionRow
from gateway.evidence.writer import EvidenceWriter
from gateway.snapshot import HeadUnfit, Snapshot

log = logging.getLogger("thinkmeter.heads")

FOLLOW_SECONDS = 2.0
"""From one look at the store to the next."""
_RESTORED = (
    "the store of evidence is older than the promotion of %s: was it restored from a backup?"
    " %s goes on deciding here until another head is promoted"
)
_Found = TypeVar("_Found")


class Serving(Protocol):
    """What serves requests."""

    snapshot: Snapshot
    """What the next request will be served with. Requests under way keep theirs."""


class HeadFollower:
    """Looks at the log of promotions, and replaces the head. Whatever goes wrong, the head in use stays."""

    def __init__(self, writer: EvidenceWriter, serving: Serving, trial: CandidateTrial) -> None:
        """writer: has the store, once it was reached. trial: where the newest candidate is tried."""
        self._writer = writer
        self._serving = serving
        self._trial = trial
        self._thread = ThreadPoolExecutor(1, "heads")
        self._known: PromotionRow | None = None
        """The newest line of the log that was ever seen."""
        self._told_restored = False
        self._refused: tuple[PromotionRow | None, int] | None = None
        """The promotion that cannot be followed, and the number of the snapshot that stays."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow, in the background."""
        self._task = asyncio.create_task(self._run(), name="promoted-head")

    def stop(self) -> None:
        """Follow no longer. A look under way ends by itself."""
        if self._task:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                await self._look_for_candidate()
            except EvidenceUnavailable:
                pass  # the writer says so
            except Exception:
                log.exception("the promoted head was not looked for")
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _look(self) -> None:
        engine = self._writer.engine
        if engine is None or self._writer.failing:
            return
        newest = await self._in_thread(partial(newest_promotion, engine))
        if not follows(self._known, newest):
            self._tell_restored()
            return
        self._known, self._told_restored = newest, False
        current = self._serving.snapshot
        if newest is None or (newest, current.number) == self._refused or _decides(current, newest.head):
            return
        try:
            fresh = await self._in_thread(partial(_with_head, engine, newest.head, current))
        except (HeadProblem, HeadUnfit, ConfigError) as error:
            self._refused = newest, current.number
            in_use = current.router.predictor.version
            log.warning("the promoted head %s is not taken, and %s stays: %s", newest.head, in_use, error)
            return
        if self._serving.snapshot is current:  # else the configuration was reloaded: look again
            self._serving.snapshot = fresh.keeping(current)
            log.info(
                "head %s → %s (%s by %s: %s)",
                current.router.predictor.version,
                fresh.router.predictor.version,
                newest.action,
                newest.by,
                newest.why,
            )

    async def _look_for_candidate(self) -> None:
        engine, current = self._writer.engine, self._serving.snapshot
        if engine is not None and not self._writer.failing:
            await self._in_thread(partial(self._trial.renew, engine, current))

    async def _in_thread(self, work: Callable[[], _Found]) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _tell_restored(self) -> None:
        if not self._told_restored and self._known:
            self._told_restored = True
            in_use = self._serving.snapshot.router.predictor.version
            log.warning(_RESTORED, self._known.head or "the head of the configuration", in_use)


def _decides(snapshot: Snapshot, head: str | None) -> bool:
    """Whether this is the promoted head of a snapshot; None is the head of the configuration."""
    return (snapshot.promoted.version if snapshot.promoted else None) == head


def _with_head(engine: EvidenceStore, head: str | None, current: Snapshot) -> Snapshot:
    """The same configuration with another head. It blocks.

    Raises: HeadProblem, HeadUnfit, ConfigError, EvidenceUnavailable.
    """
    packed = None if head is None else stored_head(engine, head)
    return Snapshot.build(current.settings, current.router.versions["config"], packed)
