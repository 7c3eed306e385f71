"""What a target is, those that are this gateway, and how a target is started on its cores."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from tests.bench import proc

ROOT = Path(__file__).resolve().parents[2]
HOMES = ROOT / ".bench"
KEY = "sk-bench-0123456789abcdef"
MODEL = "fake"
START_S = 60

THINKMETER = """\
server: {{host: 127.0.0.1, port: {port}WORKERS}}
head: HEAD
price: 0.05
models:
  fake:
    family: qwen3
    served_name: fake
    replicas: [{{name: a, url: "{upstream}"}}]
    tiers:
      direct: {{thinking: 0, answer: 1024}}
      short: {{thinking: 64, answer: 1024}}
      medium: {{thinking: 256, answer: 1024}}
      long: {{thinking: 1024, answer: 1024}}
keys: [{{name: bench, key: "${{BENCH_KEY}}"}}]
"""

BUDGETS = """\
redis: {{url: "{redis}"}}
budgets:
  - {{name: minute, window: 1m, tokens: 10000000000, scope: key}}
  - {{name: hour, window: 1h, tokens: 1000000000000}}
  - {{name: day, window: 24h, tokens: 10000000000000, scope: model}}
"""


EVIDENCE = """\
evidence: {{file: "{folder}/evidence.db"}}
"""


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """One server. `{port}`, `{upstream}`, `{config}`, `{python}` and `{home}` in its command are replaced."""

    name: str
    about: str
    command: str = ""
    packages: list[str] = []
    """From PyPI, in a virtual environment of its own."""
    npm: dict[str, dict[str, str]] = {}
    """The `package.json` that npm installs."""
    config: str = ""
    environment: dict[str, str] = {}
    key: str = ""
    more_headers: dict[str, str] = {}
    ready: str = "/health"
    cores: tuple[int, ...] = (0,)
    checkout: Path = ROOT
    """Where the command runs; `{python}` is the one of its virtual environment, if it has one."""

    @property
    def headers(self) -> dict[str, str]:
        return self.more_headers | ({"authorization": f"Bearer {self.key}"} if self.key else {})


def ours(
    name: str, head: str, about: str, checkout: Path = ROOT, *, more: str = "", workers: int = 0
) -> Target:
    """workers: 0 leaves out the setting."""
    setting = f", workers: {workers}" if workers else ""
    return Target(
        checkout=checkout,
        name=name,
        about=about,
        command="{python} -m gateway serve {config}",
        config=THINKMETER.replace("HEAD", head).replace("WORKERS", setting) + more,
        environment={"BENCH_KEY": KEY},
        key=KEY,
        ready="/readyz",
    )


OWN = {
    target.name: target
    for target in (
        Target(name="direct", about="load generator straight to the fake backend"),
        ours(
            "thinkmeter-all", "general", "the product whole: trained head, three budgets, key, metrics, log",
            more=BUDGETS,
        ),
        ours(
            "thinkmeter-evidence", "general", "the product whole, and each decision kept in SQLite",
            more=BUDGETS + EVIDENCE,
        ),
        ours("thinkmeter-head", "general", "without budgets"),
        ours("thinkmeter", "baseline", "without budgets, and with the heuristic instead of a trained head"),
        ours("one-worker", "general", "the product whole, under a supervisor", more=BUDGETS, workers=1),
        ours("two-workers", "general", "the same with two processes", more=BUDGETS, workers=2),
    )
}  # fmt: skip


def before(checkout: Path) -> list[Target]:
    """This gateway as another checkout has it, to compare two commits in one run."""
    about, path = "`{}` of the other checkout", checkout.resolve()
    return [
        ours("before-all", "general", about.format("thinkmeter-all"), path, more=BUDGETS),
        ours("before-head", "general", about.format("thinkmeter-head"), path),
        ours("before", "baseline", about.format("thinkmeter"), path),
    ]


def pinned(command: list[str], *cores: int) -> list[str]:
    """
    The command, wrapped so that it pins itself to its cores before it starts any threads.

    It may open as many files as the machine allows, since the trial `idle` has 5,000 connections.
    """
    code = "import os,sys,resource as r;m=r.getrlimit(r.RLIMIT_NOFILE)[1];r.setrlimit(r.RLIMIT_NOFILE,(m,m));"
    code += "os.sched_setaffinity(0,eval(sys.argv[1]));os.execvp(sys.argv[2],sys.argv[2:])"
    return [sys.executable, "-c", code, str(cores), *command]


def spawn(
    command: list[str],
    *,
    cores: tuple[int, ...],
    log: IO[bytes],
    environment: dict[str, str],
    folder: Path = ROOT,
) -> subprocess.Popen[bytes]:
    """Start a process group pinned to these cores."""
    return subprocess.Popen(
        pinned(command, *cores),
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=os.environ | environment,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process group that `spawn` started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            return


def refuse_taken(port: int) -> None:
    """Raise an error if a process listens on the port: with SO_REUSEPORT it would take a part of the load."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"another process listens on port {port}")


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"not ready at {url}:\n{tail}")


@contextmanager
def running(target: Target, *, port: int, upstream: str, redis: str, folder: Path) -> Iterator[list[int]]:
    """The target, ready to serve; yields its process ids."""
    if not target.command:
        yield []
        return
    refuse_taken(port)
    config = folder / f"{target.name}.yaml"
    config.write_text(
        target.config.format(port=port, upstream=upstream, redis=redis, key=KEY, folder=config.parent)
    )
    python = target.checkout / ".venv/bin/python"
    fill = {"port": port, "upstream": upstream, "config": config}
    fill["python"] = python if python.exists() else sys.executable
    fill["home"] = HOMES / target.name
    log = folder / f"{target.name}.log"
    with log.open("wb") as sink:
        command = [part.format(**fill) for part in target.command.split()]
        process = spawn(
            command, cores=target.cores, log=sink, environment=target.environment, folder=target.checkout
        )
        try:
            wait_ready(process, f"http://127.0.0.1:{port}{target.ready}", log)
            yield proc.tree(process.pid)
        finally:
            stop(process)
