"""What the console shows about the quality of answers, read in a thread and kept for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable
from gateway.evidence.heads.desk import shown_heads
from gateway.evidence.quality_reading import read_quality
from gateway.evidence.reading import store_bytes, table_states
from gateway.evidence.writer import EvidenceWriter

DAYS = 30
"""Of decisions that are summed up."""
_KEPT_SECONDS = 15.0
_REST = 20
"""A reading that takes long is kept for this many times as long."""


class QualityBoard:
    """Reads the store at most once at a time, however many pages are open."""

    def __init__(
        self,
        settings: EvidenceSettings,
        writer: EvidenceWriter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """writer: started, and closed by its owner."""
        self.drift: Callable[[], dict[str, Any]] = lambda: {"on_drift": None, "streams": []}
        """Returns the state of the watch for drift. Its owner sets it."""
        self._settings = settings
        self._writer = writer
        self._clock = clock
        self.promises: Callable[[], list[str]] = list
        """Says what is certified of the promise of quality."""
        self._thread = ThreadPoolExecutor(1, "quality")
        self._lock = asyncio.Lock()
        self._kept: dict[str, Any] = {}
        self._until = 0.0

    def close(self) -> None:
        """Stop the thread. A reading under way ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def show(self) -> dict[str, Any]:
        """What is known, at most some seconds old; or why nothing is."""
        async with self._lock:
            if self._writer.engine is None or self._writer.failing:
                state = "away" if self._writer.failing else "opening"
                return {"state": state, "detail": self._writer.failing}
            if time.monotonic() >= self._until:
                begin = time.monotonic()
                loop = asyncio.get_running_loop()
                try:
                    self._kept = await loop.run_in_executor(self._thread, self._read, self._writer.engine)
                except EvidenceUnavailable as error:
                    return {"state": "away", "detail": str(error)}
                took = time.monotonic() - begin
                self._until = time.monotonic() + max(_KEPT_SECONDS, _REST * took)
            return self._kept | {"drift": self.drift(), "promises": self.promises()}

    def _read(self, engine: EvidenceStore) -> dict[str, Any]:
        now = self._clock()
        found: dict[str, Any] = msgspec.to_builtins(read_quality(engine, now - DAYS * 86_400, now))
        return found | {
            "state": "ready",
            "at": now,
            "days": DAYS,
            "heads": shown_heads(engine),
            "store": {
                "bytes": store_bytes(engine),
                "limit": self._settings.bytes,
                "days": self._settings.days,
                "prompts": self._settings.prompts,
                "tables": msgspec.to_builtins(table_states(engine)),
            },
        }
