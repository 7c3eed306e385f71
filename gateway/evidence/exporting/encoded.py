"""The encoded pages of an export, in order. Many rows are read and encoded by several processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, Table

from gateway.evidence.database import EvidenceUnavailable, settings_of
from gateway.evidence.exporting.encoding import ExportFormat, encoder_of
from gateway.evidence.exporting.pages import more_than, pages, slices
from gateway.evidence.exporting.selection import Selection
from gateway.evidence.exporting.worker import ExportJob, Reply

_FEW = 50_000
"""Rows that are read before other processes have started."""
_MOST_PROCESSES = 4
_AHEAD = 2
"""Slices that a process has to do, so that it never waits for the next one."""
_ROOT = Path(__file__).parents[3]


def encoded_pages(
    engine: Engine, table: Table, some: Selection, form: ExportFormat
) -> Iterator[tuple[int, bytes]]:
    """The selected rows, oldest first: how many, and their bytes. Memory does not grow with the rows.

    Raises: EvidenceUnavailable; ModuleNotFoundError without pyarrow.
    """
    processes = min(_MOST_PROCESSES, os.cpu_count() or 1)
    encode = encoder_of(table, form)
    if processes > 1 and more_than(engine, table, some, _FEW):
        yield from _by_others(engine, table, some, form, processes)
        return
    for part in slices(engine, table, some):
        for page in pages(engine, table, part):
            yield len(page), encode(page)


def _by_others(
    engine: Engine, table: Table, some: Selection, form: ExportFormat, processes: int
) -> Iterator[tuple[int, bytes]]:
    job = ExportJob(settings_of(engine), str(table.name), form)
    parts = slices(engine, table, some)
    with ExitStack() as stack:
        idle = [stack.enter_context(_Process(job)) for _ in range(processes)] * _AHEAD
        busy: deque[_Process] = deque()
        for process, part in zip(idle, parts, strict=False):
            process.send(part)
            busy.append(process)
        while busy:
            process = busy.popleft()
            yield from process.pages()
            if following := next(parts, None):
                process.send(following)
                busy.append(process)


class _Process:
    """A process of `gateway.evidence.exporting.worker`. It ends with the context."""

    def __init__(self, job: ExportJob) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-m", "gateway.evidence.exporting.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_ROOT,  # where `-m` looks first: not in the folder of the user
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self.send(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        with suppress(OSError):
            self._running.stdin.close()  # type: ignore[union-attr]
        self._running.stdout.close()  # type: ignore[union-attr]
        self._running.wait()

    def send(self, value: Any) -> None:
        """Send the job, and then slices of it."""
        with suppress(OSError):  # it has ended; that is told when its pages are read
            pickle.dump(value, self._running.stdin)  # type: ignore[arg-type]
            self._running.stdin.flush()  # type: ignore[union-attr]

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Wait for the pages of the next slice. Raises: EvidenceUnavailable."""
        while True:
            try:
                reply: Reply = pickle.load(self._running.stdout)  # type: ignore[arg-type]  # noqa: S301 - ours
            except (EOFError, pickle.UnpicklingError):
                raise EvidenceUnavailable("a process of the export ended") from None
            if reply is None:
                return
            if isinstance(reply, str):
                raise EvidenceUnavailable(reply)
            yield reply
