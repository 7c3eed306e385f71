"""The evidence of a running gateway: what writes it, and what takes it from clients."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.drift.looking import DriftLook, ServingSnapshot
from gateway.evidence.feedback import Decided
from gateway.evidence.feedback_desk import FeedbackDesk
from gateway.evidence.heads.desk import HeadDesk
from gateway.evidence.heads.following import HeadFollower, Serving
from gateway.evidence.heads.trying import CandidateTrial
from gateway.evidence.quality_board import QualityBoard
from gateway.evidence.quality_promise.looking import PromiseLook
from gateway.evidence.recording import Recorder
from gateway.evidence.redacting import Keeping
from gateway.evidence.schema import STORED
from gateway.evidence.writer import DROP_REASONS, EvidenceWriter
from gateway.telemetry.evidence_metrics import EvidenceState
from gateway.telemetry.finished import FinishedRecords
from gateway.telemetry.metrics import Metrics

_CLOSE_SECONDS = 10.0


class EvidenceService:
    """The writer of the store and the desk for feedback, which start and stop with the gateway."""

    def __init__(
        self,
        settings: EvidenceSettings,
        finished: FinishedRecords,
        metrics: Metrics,
        gateway: ServingSnapshot,
    ) -> None:
        """finished: the requests that have ended. metrics: count the feedback. gateway: what is in use."""
        self.writer = EvidenceWriter(settings)

        def count_judged(decision: Decided, score: float) -> None:
            place = (decision.model, decision.tier, decision.arm or "")
            metrics.evidence.count_judged(*place, score, decision.correct)

        self.desk = FeedbackDesk(
            self.writer,
            note_finished=finished.flush,
            count=metrics.evidence.count_feedback,
            count_judged=count_judged,
        )
        metrics.evidence.state = self.state
        self.quality = QualityBoard(settings, self.writer)
        self.drift = DriftLook(self.writer, gateway)
        metrics.evidence.drift, self.quality.drift = self.drift.series, self.drift.shown
        self.heads = HeadDesk(self.writer)
        self.promise = PromiseLook(self.writer, gateway, self.drift.fallen)
        self.quality.promises = self.promise.shown
        self._keeping = Keeping(settings, self.writer.dropped)
        self.recorder = Recorder(self.writer.put, self._keeping)
        finished.sinks.append(self.recorder.record)
        tried = partial(setattr, self.recorder, "candidate")
        self._trial = CandidateTrial(settings.candidates, tried, promotes=settings.auto_promote)
        self._finished = finished
        self._follower: HeadFollower | None = None

    def start(self, serving: Serving) -> None:
        """Open the store, begin to write, and follow the promoted head, in the background."""
        self.writer.start()
        self.drift.start()
        self._follower = HeadFollower(self.writer, serving, self._trial)
        self._follower.start()
        self.promise.start()

    def state(self) -> EvidenceState:
        """The state of the store, for metrics. All series exist from the start, so that a rise is seen."""
        writer, watch = self.writer, self.writer.watch
        up = False if writer.failing else None if writer.engine is None else True
        rows = dict.fromkeys((table.name for table in STORED.values()), 0) | writer.written
        dropped = dict.fromkeys(DROP_REASONS, 0) | writer.dropped
        return EvidenceState(
            *(up, writer.waiting, rows, dropped),
            *(watch.pairs, watch.flips, watch.size, watch.oldest),
        )

    async def stop(self) -> None:
        """Write what waits, for a bounded time, and close the store."""
        await self.drift.stop()
        await self.promise.stop()
        self._finished.flush()
        self.desk.close()
        self.quality.close()
        self.heads.close()
        if self._follower:
            self._follower.stop()
        await asyncio.to_thread(self.writer.close, _CLOSE_SECONDS)
        self._keeping.close()
