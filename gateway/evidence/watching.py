"""What the metrics tell about a store: its size and age, and the shadow pairs that were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import func, select

from gateway.evidence.database import EvidenceStore, EvidenceUnavailable, explained
from gateway.evidence.retention import used_bytes
from gateway.evidence.rows import Row, ShadowRow
from gateway.evidence.schema import decisions

_LOOK_SECONDS = 60.0


class StoreWatch:
    """Belongs to the thread that writes; others read its attributes."""

    def __init__(self) -> None:
        self.size: int | None = None
        """Bytes of the store; None until it was looked at."""
        self.oldest: float | None = None
        """Unix time of the oldest decision; None if there is none."""
        self.pairs: Counter[tuple[str, str]] = Counter()
        """By model and result, see `result_of`."""
        self.flips: Counter[str] = Counter()
        self._next_look = 0.0

    def note(self, rows: Iterable[Row]) -> None:
        """Count the shadow pairs among rows that were written."""
        for row in rows:
            if isinstance(row, ShadowRow):
                self.pairs[row.model, result_of(row.served_score, row.shadow_score)] += 1
                self.flips[row.model] += bool(row.flipped)

    def look(self, store: EvidenceStore, now: float) -> None:
        """Read size and age, once a minute. now: monotonic seconds."""
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        try:
            with explained(), store.connect() as connection:
                self.size = used_bytes(connection)
                self.oldest = connection.scalar(select(func.min(decisions.c.at)))
        except EvidenceUnavailable:
            self.size = self.oldest = None


def result_of(served: float | None, shadow: float | None) -> str:
    """Which of two answers was better: `served`, `shadow` or `tie`; `ungraded` if one has no score."""
    if served is None or shadow is None:
        return "ungraded"
    return "tie" if served == shadow else "served" if served > shadow else "shadow"
