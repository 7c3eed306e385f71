"""The evidence of a running gateway: what writes it, and what takes it from clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.feedback import FeedbackOutcome
from gateway.evidence.feedback_desk import FeedbackDesk
from gateway.evidence.writer import EvidenceWriter
from gateway.telemetry.finished import FinishedRecords

_CLOSE_SECONDS = 5.0


class EvidenceService:
    """The writer of the store and the desk for feedback, which start and stop with the gateway."""

    def __init__(
        self,
        settings: EvidenceSettings,
        finished: FinishedRecords,
        count_feedback: Callable[[FeedbackOutcome], None],
    ) -> None:
        """finished: the requests that have ended. count_feedback: is told what became of each feedback."""
        self.writer = EvidenceWriter(settings)
        self.desk = FeedbackDesk(self.writer, note_finished=finished.flush, count=count_feedback)
        self._finished = finished

    def start(self) -> None:
        """Open the store and begin to write, in the background."""
        self.writer.start()

    async def stop(self) -> None:
        """Write what waits, for a bounded time, and close the store."""
        self._finished.flush()
        self.desk.close()
        await asyncio.to_thread(self.writer.close, _CLOSE_SECONDS)
