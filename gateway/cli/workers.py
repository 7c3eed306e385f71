"""Runs several workers on one port as one gateway: starts, restarts, reloads and stops them.

The supervisor serves no requests. It watches the configuration, so that all workers take or refuse it alike,
and it merges their metrics, so that those of a worker that has ended are kept.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from gateway.cli.worker_process import Place, Stand, Worker, asked, pause_before_restart, start_worker
from gateway.config import watch
from gateway.config.changes import describe_changes, forbidden_changes
from gateway.config.loader import ConfigError, digest_of, reachable_example_keys
from gateway.config.settings import Settings
from gateway.http.listening import reserve
from gateway.snapshot import Snapshot
from gateway.telemetry.log_writer import StandardStreams, fill_closed_streams
from gateway.telemetry.merging import merge_expositions, totals_of

log = logging.getLogger("thinkmeter.workers")

_POLL_SECONDS = 5.0
"""How often the metrics of all workers are read. A worker that is killed loses at most those since."""
_FLUSH_SECONDS = 1.0
_STEADY_SECONDS = 60.0
"""A worker that lived so long is restarted without a longer pause."""


def supervise(path: Path, raw: bytes, settings: Settings, place: Place, streams: StandardStreams) -> int:
    """Serve until a signal, by which this process then ends too, or until the workers cannot start.

    raw: the bytes of the file, which these settings were read from.

    Returns the exit status.
    """
    fill_closed_streams()
    try:
        reserved = reserve(place.host, place.port)
    except OSError as error:
        log.error("cannot listen on %s, port %d: %s", place.host, place.port, error.strerror or error)  # noqa: TRY400
        streams.flush(_FLUSH_SECONDS)
        return 1
    with lock_file() as lock:
        streams.share(lock.fileno())
        stand = Stand(place.host, place.workers, reserved, lock.fileno())
        supervisor = Supervisor(path, raw, settings, stand)
        status = asyncio.run(supervisor.run())
        streams.flush(_FLUSH_SECONDS)
    if supervisor.stopped_by:
        signal.signal(supervisor.stopped_by, signal.SIG_DFL)
        signal.raise_signal(supervisor.stopped_by)
    return status


def lock_file() -> IO[bytes]:
    """A file without a name, in memory where the system allows: there may be no folder to write to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("thinkmeter-log"), "wb")
    return tempfile.TemporaryFile()


class Supervisor:
    """Keeps the workers running."""

    def __init__(self, path: Path, raw: bytes, settings: Settings, stand: Stand) -> None:
        """path, raw, settings: see `supervise`."""
        self._path, self._raw, self._settings = path, raw, settings
        self._stand = stand
        self._workers: list[Worker] = []
        self._retired = b""
        """Counters and histograms of workers that have ended."""
        self._stop = asyncio.Event()
        self.stopped_by: int | None = None
        """The signal that stopped the gateway."""
        self._status = 0
        self._telling: set[asyncio.Task[list[bytes]]] = set()

    async def run(self) -> int:
        """Run until all workers have ended. Returns the exit status."""
        in_use = digest_of(self._raw)
        with self._signals():
            beside = [
                asyncio.create_task(
                    watch.watch(self._path, self._load, self._take, self._refuse, in_use=in_use),
                    name="config-watch",
                ),
                asyncio.create_task(self._poll(), name="workers-metrics"),
            ]
            await asyncio.gather(*(self._keep(number) for number in range(1, self._stand.workers + 1)))
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        return self._status

    # --- processes -------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._pass_on, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _pass_on(self, number: int) -> None:
        """Stop all workers as the signal says. They drain by themselves."""
        self.stopped_by = number
        self._stop.set()
        for worker in self._workers:
            worker.signal(number)

    async def _keep(self, number: int) -> None:
        """Run worker `number`, and start it again whenever it ends."""
        restarts = 0
        for attempt in itertools.count():
            worker = await self._start()
            status = await self._until_end(worker)
            if self._stop.is_set():
                return
            if not worker.ready and not attempt:
                log.error("worker %d does not start: status %d", number, status)
                self._status = status if status > 0 else 1
                self._stop.set()
                for other in self._workers:
                    other.signal(signal.SIGTERM)
                return
            restarts = 0 if time.monotonic() - worker.since > _STEADY_SECONDS else restarts
            seconds = pause_before_restart(restarts)
            log.error("worker %d ended with status %d: restarting it in %g s", number, status, seconds)
            restarts += 1
            try:
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
            except TimeoutError:
                continue
            return

    async def _start(self) -> Worker:
        worker = await start_worker(self._stand, self._raw)
        self._workers.append(worker)
        if self._stop.is_set():
            worker.signal(self.stopped_by or signal.SIGTERM)
        return worker

    async def _until_end(self, worker: Worker) -> int:
        answering = asyncio.create_task(
            worker.channel.run(partial(self._answer, worker)), name="worker-channel"
        )
        await worker.process.communicate(worker.config)
        await answering
        self._workers.remove(worker)
        self._retired = totals_of(merge_expositions([self._retired, worker.metrics]))
        return await worker.process.wait()

    # --- questions -------------------------------------------------------------------------------------

    async def _answer(self, worker: Worker, name: str, body: bytes) -> list[bytes]:
        """Answer a worker."""
        others = [other for other in self._workers if other is not worker and other.ready]
        if name == "ready":
            await self._welcome(worker)
            return []
        if name == "metrics":
            worker.metrics = body
            await asyncio.gather(*map(self._read_metrics, others))
            known = [other.metrics for other in self._workers if other is not worker]
            return [merge_expositions([body, *known, self._retired])]
        answers = await asyncio.gather(*(asked(other, name, body) for other in others))
        return [answer[0] for answer in answers if answer]

    async def _welcome(self, worker: Worker) -> None:
        worker.ready = True
        if worker.config != self._raw:  # it has been replaced meanwhile
            worker.config = self._raw
            await asked(worker, "reload-uncounted", self._raw)
        if all(each.ready for each in self._workers):
            log.info(
                "%d workers serve on %s, port %d", len(self._workers), self._stand.host, self._stand.port
            )

    async def _read_metrics(self, worker: Worker) -> None:
        if answer := await asked(worker, "metrics", b""):
            worker.metrics = answer[0]

    async def _poll(self) -> None:
        """Keep what each worker has counted, also if nobody asks for the metrics."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await asyncio.gather(*(self._read_metrics(worker) for worker in self._workers if worker.ready))

    # --- configuration ---------------------------------------------------------------------------------

    def _load(self, raw: bytes) -> tuple[bytes, Settings]:
        settings = Snapshot.read(raw).settings
        problems = reachable_example_keys(settings, lambda: raw, self._stand.host)
        problems += forbidden_changes(self._settings, settings)
        if problems:
            raise ConfigError(problems)
        return raw, settings

    def _take(self, loaded: tuple[bytes, Settings]) -> str:
        """Make all workers use a configuration. Returns what it changes."""
        old, digest = self._settings, digest_of(self._raw)
        self._raw, self._settings = loaded
        self._tell("reload", "reload-uncounted", self._raw)
        return f"{describe_changes(old, self._settings)} ({digest} → {digest_of(self._raw)})"

    def _refuse(self) -> None:
        self._tell("refused", None)

    def _tell(self, first: str, others: str | None, body: bytes = b"") -> None:
        """Tell one worker, which counts it in the metrics, and the others."""
        name: str | None = first
        for worker in self._workers:
            if worker.ready and name:
                worker.config = body or worker.config
                self._telling.add(task := asyncio.create_task(asked(worker, name, body)))
                task.add_done_callback(self._telling.discard)
                name = others
