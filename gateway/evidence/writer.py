"""Writes rows to the evidence store from a thread of its own: no request waits for the store."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import (
    EvidenceUnavailable,
    cause_of,
    explained,
    file_of,
    open_store,
    placeholder,
    secret_of,
    writing,
)
from gateway.evidence.retention import LOOK_SECONDS, Retention
from gateway.evidence.rows import DecisionRow, Row, UnmadeRow
from gateway.evidence.schema import STORED
from gateway.evidence.statements import fitted, statements
from gateway.evidence.watching import StoreWatch

log = logging.getLogger("thinkmeter.evidence")

_GATHER_SECONDS = 0.5
"""Rows gather for this long and are written together."""
_BATCH = 1_024
_CHARACTERS = 32 * 2**20
"""Characters of prompts that wait at most."""
_BREATH, _WORK, _BACKLOG = 50e-6, 200e-6, 256
"""Seconds of sleep after so many of making rows: else the event loop would wait for Python's lock for 5 ms.

For each so many rows that wait, the thread works as long once more, so that it keeps up under load.
"""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two attempts while the store is away."""
_RETENTION_SHARE = 0.2
"""Seconds of deleting at a time; then rows are written again."""
DROP_REASONS = ("full", "invalid", "shutdown", "unredacted")
"""Why rows are not written: too many wait, the store refuses one, or the gateway ends.

With `unredacted` a row is written, and only its prompt is missing.
"""
_REFUSALS = (DataError, IntegrityError, ProgrammingError, TypeError, ValueError, OverflowError)
"""Errors of a row, not of the store."""


class EvidenceWriter:
    """Takes rows from the event loop, and writes them in batches. A lost store costs rows, nothing else."""

    def __init__(self, settings: EvidenceSettings) -> None:
        self._settings = settings
        self._queue: deque[Row | UnmadeRow] = deque()
        self._batch: list[Row] = []
        """What is being written. It is empty between batches, and kept while the store is away."""
        self._put_characters = 0
        self._done_characters = 0
        self._batch_characters = 0
        self._wake = threading.Event()
        self._asleep = False
        self._hurried = threading.Event()
        self._closing = threading.Event()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._pause = 0.0
        self._store: Engine | None = None
        """The store, while it works."""
        self._file: tuple[int, int] | None = None
        self._retention = Retention(settings.days, settings.bytes)
        self._left = False
        """There is more to delete."""
        self._next_look = 0.0
        self._told_refusal = False
        self._lost = 0
        """Rows dropped when the outage under way began."""
        self.engine: Engine | None = None
        """The store, for reading in other threads; None until it was reached."""
        self.secret: bytes | None = None
        """The key of pseudonyms; None until the store was reached."""
        self.failing: str | None = None
        """Why the store cannot be written to; None if it can."""
        self.written: Counter[str] = Counter()
        """Rows, by table."""
        self.dropped: Counter[str] = Counter()
        """Rows that were not written, by one of DROP_REASONS."""
        self.watch = StoreWatch()

    @property
    def waiting(self) -> int:
        """Rows in memory that are not written yet."""
        return len(self._queue) + len(self._batch)

    def start(self) -> None:
        """Open the store and begin to write, in the background."""
        self._thread.start()

    def ready(self, seconds: float) -> bool:
        """Wait until the store was reached, at most for so long. Not for the event loop."""
        return self._opened.wait(seconds)

    def put(self, row: Row | UnmadeRow) -> bool:
        """Write a row soon. Never waits. False if it was dropped because too many wait."""
        queue = self._queue
        if len(queue) + len(self._batch) >= self._settings.queue or not self._takes(row):
            self.dropped["full"] += 1
            return False
        queue.append(row)
        if self._asleep:
            self._wake.set()
        return True

    def hurry(self) -> None:
        """Write what waits now, because somebody wants to read it."""
        if self._queue:
            self._hurried.set()

    def _takes(self, row: Row | UnmadeRow) -> bool:
        size = _size_of(row)
        if self._put_characters - self._done_characters + size > _CHARACTERS:
            return False
        self._put_characters += size
        return True

    def close(self, seconds: float) -> None:
        """Write what waits, and stop. What takes longer is dropped and counted. Not for the event loop."""
        self._closing.set()
        self._wake.set()
        self._hurried.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if self.waiting:
            self.dropped["shutdown"] += self.waiting
            log.warning("%d rows of evidence were not written before the end", self.waiting)

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except EvidenceUnavailable as error:
                self._failed(str(error))
            except Exception as error:
                log.exception("the writer of evidence failed")
                self._failed(type(error).__name__)
            if self._closing.is_set() and (self.failing or not self.waiting):
                break
            if self.failing:
                self._closing.wait(self._pause)
        if self._store is not None:
            self._store.dispose()

    def _turn(self) -> None:
        """Sleep until there are rows, let some gather, and write them."""
        store = self._store or self._open()
        if not self.waiting:
            self._works()
        self._sleep()
        full = bool(self._batch or self._queue)
        while full:
            self._take()
            if file_of(self._settings) != self._file:
                raise EvidenceUnavailable("the file was deleted or replaced")
            with explained():
                written = self._insert(store, self._batch)
            # Fewer rows than a batch: let more gather, as many small transactions cost more than a large one.
            full = len(self._batch) >= _BATCH
            self._finish(written)
        if not self._closing.is_set():
            self._retain(store)

    def _retain(self, store: Engine) -> None:
        """Delete old rows, for a short while."""
        now = time.monotonic()
        self.watch.look(store, now)
        if now < self._next_look:
            return
        try:
            with explained():
                left = self._left or self._retention.look(store, time.time())
                while left and time.monotonic() - now < _RETENTION_SHARE:
                    left = self._retention.step(store)
        except EvidenceUnavailable as error:
            log.warning("old evidence was not deleted: %s", error)
            left = False
        self._left = left
        self._next_look = now + (_GATHER_SECONDS if left else LOOK_SECONDS)

    def _open(self) -> Engine:
        store = open_store(self._settings)
        self.secret = secret_of(store)
        self.engine = self._store = store
        self._file = file_of(self._settings)
        self._opened.set()
        return store

    def _sleep(self) -> None:
        if self._batch:
            return
        self._asleep = True
        if not self._queue and not self._closing.is_set():
            self._wake.wait(max(0, self._next_look - time.monotonic()))
        self._asleep = False
        self._wake.clear()
        if self._queue:
            self._hurried.wait(_GATHER_SECONDS)
        self._hurried.clear()

    def _take(self) -> None:
        queue, batch = self._queue, self._batch
        began = time.perf_counter()
        while queue and len(batch) < _BATCH:
            work = _WORK * (1 + len(queue) // _BACKLOG)
            if time.perf_counter() - began > work and not self._closing.is_set():
                time.sleep(_BREATH)
                began = time.perf_counter()
            waiting = queue.popleft()
            self._batch_characters += _size_of(waiting)
            if isinstance(waiting, Row):
                batch.append(waiting)
            elif row := self._made(waiting):
                batch.append(row)

    def _made(self, waiting: UnmadeRow) -> Row | None:
        """The row; None if it cannot be made."""
        try:
            return waiting.made(self.secret or b"")
        except Exception as error:  # noqa: BLE001 - one request must not stop the writer
            self.dropped["invalid"] += 1
            if not self._told_refusal:
                self._told_refusal = True
                log.warning("a row of evidence cannot be made: %s", type(error).__name__)
            return None

    def _insert(self, store: Engine, rows: Sequence[Row]) -> Counter[str]:
        """Write the rows. If one of them is refused, it is searched by halves and the others are written.

        Returns: the rows written, by table.
        """
        try:
            with writing(store) as connection:
                for statement, values in statements(rows, placeholder(store)):
                    connection.exec_driver_sql(statement, values)
            return Counter(STORED[type(row)].name for row in rows)
        except _REFUSALS as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                return self._insert(store, rows[:middle]) + self._insert(store, rows[middle:])
            if (mended := fitted(rows[0])) != rows[0]:
                return self._insert(store, [mended])
            if not self._told_refusal:
                self._told_refusal = True
                table = STORED[type(rows[0])].name
                log.warning("the store of evidence refuses a row of %s: %s", table, cause_of(error))
            return Counter()

    def _finish(self, written: Counter[str]) -> None:
        """The batch is done."""
        self.written.update(written)
        if refused := len(self._batch) - written.total():
            self.dropped["invalid"] += refused
        self._done_characters += self._batch_characters
        self._batch_characters = 0
        self.watch.note(self._batch)
        self._batch = []
        self._works()

    def _works(self) -> None:
        if self.failing is not None:
            lost = self.dropped["full"] - self._lost
            log.warning("the store of evidence is back; %d rows were lost meanwhile", lost)
        self.failing = None
        self._pause = 0.0

    def _failed(self, cause: str) -> None:
        """Begin anew after a pause, with a new connection."""
        if self.failing is None:
            log.warning("the store of evidence is away, and rows wait in memory: %s", cause)
            self._lost = self.dropped["full"]
        self.failing = cause
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or _FIRST_PAUSE)
        if self._store is not None:
            self._store.dispose()
            self._store = None


def _size_of(row: Row | UnmadeRow) -> int:
    """Characters that count for the memory of rows that wait."""
    if isinstance(row, Row):
        return len(row.prompt) if isinstance(row, DecisionRow) and row.prompt is not None else 0
    return row.characters
