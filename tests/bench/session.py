"""One session of the bench: the backend and Redis, and the measurements taken against them."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.bench import targets
from tests.bench.jobs import Result
from tests.bench.targets import ROOT, Target
from tests.bench.trials import Trial
from tests.redis import real_redis

BENCH_CORE = 1
BACKEND_PORT, TARGET_PORT = 9471, 9472
CONTEXT = 4_000_000
"""Tokens of the fake model's context, so that it takes prompts of 1 MB."""


class Bench:
    """Starts targets and measures them. Backend, Redis and load generator share one core."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self._folder = folder
        self._quick = quick
        self._url = f"http://127.0.0.1:{BACKEND_PORT}"
        self._servers = ExitStack()

    def __enter__(self) -> Self:
        targets.refuse_taken(BACKEND_PORT)
        self._redis = self._servers.enter_context(real_redis())
        os.sched_setaffinity(self._redis.process.pid, {BENCH_CORE})
        command = [sys.executable, "-m", "tests.fakes.backend", "--light", "--port", str(BACKEND_PORT)]
        command += ["--max-model-len", str(CONTEXT)]
        log = self._folder / "backend.log"
        with log.open("wb") as sink:
            self._backend = targets.spawn(command, cores=(BENCH_CORE,), log=sink, environment={})
        targets.wait_ready(self._backend, self._url + "/health", log)
        return self

    def __exit__(self, *_: object) -> None:
        targets.stop(self._backend)
        self._servers.close()

    def running(self, target: Target) -> Any:
        return targets.running(
            target, port=TARGET_PORT, upstream=self._url, redis=self._redis.url, folder=self._folder
        )

    def measure(
        self, trial: Trial, target: Target, pids: list[int], *, requests: int | None = None
    ) -> Result:
        body = msgspec.json.encode(trial.fault)
        with urllib.request.urlopen(self._url + "/fake/default", body, timeout=5):
            pass
        port = TARGET_PORT if target.command else BACKEND_PORT
        bench_pids = [self._backend.pid, self._redis.process.pid]
        job = trial.job(target, port, pids, bench_pids, core=BENCH_CORE)
        job.headers = {name: value.format(upstream=self._url) for name, value in job.headers.items()}
        job.seconds /= 3 if self._quick else 1
        job.requests = requests
        command = targets.pinned([sys.executable, "-m", f"tests.bench.{trial.generator}"], BENCH_CORE)
        with (self._folder / "load.log").open("wb") as errors:
            load = subprocess.run(
                command,
                input=msgspec.json.encode(job),
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                check=False,
            )
        if load.returncode:
            raise RuntimeError((self._folder / "load.log").read_text()[-2000:])
        return msgspec.json.decode(load.stdout, type=Result)
