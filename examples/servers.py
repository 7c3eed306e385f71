"""Starts the tiny reasoner and the gateway as separate processes on free local ports."""

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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
TIERS = {"direct": 0, "short": 24, "medium": 96, "long": 320}
"""Thinking tokens of each tier, the same as in the shipped outcome table."""
ANSWER = 16

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(
    name: str,
    command: Sequence[str],
    health: str,
    log: Path,
    *,
    seconds: float = 60,
    environ: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a server for the duration of the block, which begins once the health check succeeds."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the server in order
        )
    try:
        deadline = time.monotonic() + seconds
        while not _answers(health):
            if process.poll() is not None:
                raise SystemExit(f"the {name} did not start:\n{log.read_text()[-4000:]}")
            if time.monotonic() > deadline:
                raise SystemExit(f"the {name} does not answer:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield
    finally:
        with _undisturbed():
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ignore_signals() -> dict[signal.Signals, Any]:
    """Ignore a second Ctrl-C, which would leave servers behind. Returns the handlers of before."""
    return {name: signal.signal(name, signal.SIG_IGN) for name in _STOPPING}


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore a second Ctrl-C while a server stops."""
    before = ignore_signals()
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _answers(url: str) -> bool:
    with contextlib.suppress(urllib.error.URLError, OSError):
        urllib.request.urlopen(url, timeout=1)  # noqa: S310
        return True
    return False


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Run the tiny reasoner; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "examples.tiny_reasoner.serve", "--port", str(port), "--slots", "48"]
    with server("tiny reasoner", command, f"{url}/health", folder / "engine.log"):
        yield url


@contextlib.contextmanager
def gateway(folder: Path, settings: Mapping[str, Any], port: int | None = None) -> Iterator[str]:
    """Run the gateway with these settings; yields its URL."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
    command = [sys.executable, "-m", "gateway", "serve", str(config), "--port", str(port)]
    with server("gateway", command, f"{url}/readyz", folder / "gateway.log"):
        yield url


def settings(
    backend: str, *, tiers: Mapping[str, int] = TIERS, model: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Configuration for the tiny reasoner at `backend`, with the head trained for it.

    tiers: thinking tokens by tier. model: further settings of the model. changes: settings beside the model.
    """
    described = {
        "family": "qwen3",
        "replicas": [{"name": "tiny-0", "url": backend}],
        "tiers": {name: {"thinking": thinking, "answer": ANSWER} for name, thinking in tiers.items()},
        **(model or {}),
    }
    return {"models": {"tiny": described}, "head": "tiny", "server": {"access_log": False}} | changes
