"""Writes log lines to standard output and standard error from threads: no request waits for a reader."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Self

log = logging.getLogger("thinkmeter.log")

_LINES = 20_000
_BYTES = 8 * 2**20
_BATCH_BYTES = 64 * 1024
_GATHER_SECONDS = 0.05  # for the access log, which has a line per request
_LINE_BREAK = ord("\n")
_LAST_STREAM = 2  # the number of standard error
_WARN_SECONDS = 60.0  # between two warnings about the same stream


def write_all(fd: int, data: bytes) -> tuple[int, str | None]:
    """Write the data, and wait for the reader if needed. Returns the bytes written, and the error if any."""
    written = 0
    while written < len(data):
        try:
            written += os.write(fd, memoryview(data)[written:])
        except BlockingIOError:  # whoever started us made the descriptor non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError as error:
            return written, error.strerror or str(error)
    return written, None


@contextmanager
def _alone(lock: int | None, fd: int) -> Iterator[None]:
    """Keep the other processes from writing: a pipe may mix what several write at once."""
    if lock is None:
        yield
        return
    fcntl.lockf(lock, fcntl.LOCK_EX, 1, fd)  # one byte of the file for each stream
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN, 1, fd)


def incomplete(lines: Sequence[bytes], written: int) -> int:
    """How many of the lines are not within the first `written` bytes of them all."""
    ends = itertools.accumulate(map(len, lines))
    return sum(end > written for end in ends)


def fill_closed_streams() -> None:
    """Give the numbers of closed standard streams to the null device.

    A descriptor that is passed on to another process under such a number would be a stream there.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        continue  # it is kept, and not passed on
    os.close(fd)


class LogWriter:
    """Writes lines to one file descriptor, in their order, from a thread of its own.

    `put` never waits. If the reader stalls, lines wait in a bounded queue; when it is full, new lines are
    dropped and counted. So are lines that cannot be written, as on a full disk.
    """

    def __init__(
        self, stream: str, fd: int | None, *, gather: float = 0, lines: int = _LINES, size: int = _BYTES
    ) -> None:
        """stream: its name. fd: None if it was closed before the start. lines, size: limits of the queue.

        gather: seconds in which lines gather to be written together. The thread wakes no more often.
        """
        self.stream = stream
        self._fd = fd
        self._gather = gather
        self._most_lines, self._most_bytes = lines, size
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        # Each of the two sums is changed by one side only. Their difference is what waits.
        self._put_bytes = 0
        self._done_bytes = 0
        self._thread: threading.Thread | None = None
        self._torn = False
        """The last write ended within a line."""
        self._drops = threading.RLock()  # reentrant: a signal handler may log while a drop is counted
        self._dropped = 0
        self.lock: int | None = None
        """A file to lock while writing, if other processes write to the same stream."""
        self._warned_at = -_WARN_SECONDS

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self._dropped

    def put(self, line: bytes) -> None:
        """Write a line, which ends with a line break, soon."""
        waiting = self._put_bytes - self._done_bytes
        if self._fd is None:
            self._drop(1, "it is closed")
        elif self._queue.qsize() >= self._most_lines or waiting + len(line) > self._most_bytes:
            self._drop(1, "its reader is too slow")
        else:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"log-{self.stream}", daemon=True)
                self._thread.start()
            self._put_bytes += len(line)
            self._queue.put(line)

    def flush(self, seconds: float) -> bool:
        """Wait until all lines so far are written or dropped; False if that takes longer."""
        due, end = self._put_bytes, time.monotonic() + seconds
        while self._done_bytes < due:
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            time.sleep(self._gather)
            batch += self._waiting(_BATCH_BYTES - len(batch[0]))
            while batch:
                self._write(batch)
                self._done_bytes += sum(map(len, batch))
                batch = self._waiting(_BATCH_BYTES)

    def _waiting(self, size: int) -> list[bytes]:
        """The next lines of the queue, of about this size in bytes together."""
        lines: list[bytes] = []
        while size > 0:
            try:
                lines.append(self._queue.get_nowait())
            except Empty:
                break
            size -= len(lines[-1])
        return lines

    def _write(self, lines: Sequence[bytes]) -> None:
        if self._fd is None:
            return
        start = b"\n" if self._torn else b""
        data = start + b"".join(lines)
        with _alone(self.lock, self._fd):
            written, error = write_all(self._fd, data)
        if written:
            self._torn = data[written - 1] != _LINE_BREAK
        if error:
            self._drop(incomplete(lines, written - len(start)), error)

    def _drop(self, lines: int, reason: str) -> None:
        now = time.monotonic()
        with self._drops:
            self._dropped += lines
            warn = now - self._warned_at >= _WARN_SECONDS
            if warn:
                self._warned_at = now
        if warn:
            log.warning("dropping lines for %s, %d so far: %s", self.stream, self._dropped, reason)


class _LineHandler(logging.Handler):
    """Passes Python's log to a writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 - a log line must not fail its caller
            text = f"{record.levelname} {record.name}: {record.msg!r} ({type(error).__name__}: {error})"
        self._writer.put(text.encode(errors="backslashreplace") + b"\n")


@dataclass(frozen=True)
class StandardStreams:
    """The writers of standard output and standard error."""

    output: LogWriter
    errors: LogWriter

    @classmethod
    def of_process(cls) -> Self:
        """Those of this process. A stream that was closed before the start is not written to.

        A socket may have got its number since.
        """
        return cls(
            LogWriter("stdout", None if sys.__stdout__ is None else 1, gather=_GATHER_SECONDS),
            LogWriter("stderr", None if sys.__stderr__ is None else 2),
        )

    def dropped(self) -> dict[str, int]:
        """Lines lost since the start, by stream."""
        return {writer.stream: writer.dropped for writer in (self.output, self.errors)}

    def flush(self, seconds: float) -> None:
        """Give the lines so far this long to be written."""
        end = time.monotonic() + seconds
        for writer in (self.output, self.errors):
            writer.flush(end - time.monotonic())

    def share(self, lock: int) -> None:
        """Write whole lines to streams that other processes write to as well, which have the same lock."""
        self.output.lock = self.errors.lock = lock

    def take_logging(self) -> None:
        """Send everything that Python would print to standard error through its writer."""
        handler = _LineHandler(self.errors)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        logging.captureWarnings(capture=True)
        sys.unraisablehook = _log_unraisable
        threading.excepthook = _log_of_thread


def _log_unraisable(found: sys.UnraisableHookArgs) -> None:
    log.error("%s: %r", found.err_msg or "exception ignored", found.object, exc_info=found.exc_value)


def _log_of_thread(found: threading.ExceptHookArgs) -> None:
    name = found.thread.name if found.thread else "?"
    log.error("thread %s ended", name, exc_info=found.exc_value)
