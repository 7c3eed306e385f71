"""Starts, watches and stops the processes of the suite: vLLM servers and the gateway."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 420  # a cold vLLM on two busy cores
STOP_SECONDS = 30
# More than the tiny reasoner was trained for: a stream that a test cuts must still be far from its end, even
# if a busy machine reads it late.
CONTEXT = 16_384

# vLLM 0.20 on CPU hangs now and then on the shared memory between its engine and its worker process. This
# runs the model in the engine's process. For the short name, `uni`, vLLM starts a worker all the same.
EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
_INHERITED = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """The body of a response to a GET, or to a POST of JSON if there is a body to send."""
    request = Request(url, body, {"content-type": "application/json"} | (headers or {}))
    with urlopen(request, timeout=60) as response:
        return bytes(response.read())


def fetch_any(url: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """The status and the body of a response to a POST, whatever the status."""
    try:
        return 200, fetch(url, json.dumps(body).encode())
    except HTTPError as error:
        return error.code, error.read()


class Server:
    """A process with its own process group, so that its children end with it. Its output goes to a file."""

    def __init__(self, name: str, command: list[str], url: str, log: Path, env: dict[str, str]) -> None:
        self.name = name
        self.url = url
        self.log = log
        self._command = command
        self._env = _INHERITED | env
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )

    def start_again(self) -> None:
        """Starts the same command on the same port, unless it is still running."""
        if self._process.poll() is not None:
            self._process = self._spawn()

    def wait_until_ready(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers(path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start; the end of its log:\n{self.output()[-4000:]}")
            time.sleep(0.25)

    def _answers(self, path: str) -> bool:
        try:
            fetch(self.url + path)
        except OSError:  # covers urllib's errors: refused, reset, timed out, an error status
            return False
        return True

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Send SIGKILL to the whole group: nothing is closed properly, as when a machine dies."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill_child(self, name: str) -> None:
        """Send SIGKILL to the process of the group that has this command line."""
        os.kill(self._child(name), signal.SIGKILL)

    @contextmanager
    def paused_child(self, name: str) -> Iterator[None]:
        """Stop the process of the group that has this command line for a while."""
        child = self._child(name)
        os.kill(child, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # it was killed in the meantime
                os.kill(child, signal.SIGCONT)

    def _child(self, name: str) -> int:
        [child] = [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if name in _command_line(entry) and os.getpgid(int(entry.name)) == self._process.pid
        ]
        return child

    def stop(self) -> None:
        """Send SIGTERM to the whole group, then SIGKILL to what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:  # it has ended in the meantime
        return ""


class Replica(Server):
    """A vLLM server, its metrics and its log."""

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a metric that have these labels."""
        families = text_string_to_metric_families(fetch(self.url + "/metrics").decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        if not samples:
            raise LookupError(f"vLLM has no metric {name}")
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def running(self) -> int:
        return int(self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting"))

    def generated(self) -> int:
        return int(self.metric("vllm:generation_tokens_total"))

    def completed(self) -> int:
        """Requests that were completed rather than aborted."""
        return sum(
            int(self.metric("vllm:request_success_total", finished_reason=reason))
            for reason in ("stop", "length")
        )

    @contextmanager
    def generating_nothing(self) -> Iterator[None]:
        """Stop the engine, but not the server in front of it, which goes on sending what the engine made.

        On a busy machine the engine of a tiny model is far ahead of what the server sends.
        """
        with self.paused_child("VLLM::EngineCore"):
            yield

    # A single request is followed in the log, because `/metrics` may take seconds while vLLM generates.
    def has_begun(self, request_id: str) -> bool:
        return re.search(rf"Added request (chat)?cmpl-{request_id}-", self.output()) is not None

    def has_aborted(self, request_id: str) -> bool:
        return re.search(rf"Request (chat)?cmpl-{request_id}\S* aborted", self.output()) is not None


THINKING = [
    *["--reasoning-parser", "qwen3"],
    *["--reasoning-config", '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}'],
    *["--enable-auto-tool-choice", "--tool-call-parser", "hermes"],
]
EMBEDDING = ["--runner", "pooling", "--convert", "embed"]
# As a beginner starts it: no parser separates thoughts or finds tool calls, and thinking budgets are refused.
BARE_CONTEXT = 512
BARE = ["--max-model-len", str(BARE_CONTEXT)]


def vllm_server(
    name: str, python: Path, model: Path, directory: Path, options: Sequence[str] = THINKING
) -> Replica:
    """Start a vLLM server that logs its requests, without waiting. By default it accepts thinking budgets."""
    port = free_port()
    command = [
        *[str(python), "-m", "vllm.entrypoints.openai.api_server"],
        *["--model", str(model), "--served-model-name", "tiny", "--dtype", "float32"],
        *["--host", "127.0.0.1", "--port", str(port)],
        *["--hf-overrides", json.dumps({"max_position_embeddings": CONTEXT})],
        *["--enforce-eager", "--max-model-len", str(CONTEXT), "--max-num-seqs", "32"],
        *["--distributed-executor-backend", EXECUTOR],
        *options,
        "--enable-log-requests",
    ]
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",  # the servers share few cores
        "VLLM_CACHE_ROOT": str(directory / "cache"),
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_COMPILE_DISABLE": "1",  # compiling a few small functions would take most of a start
        "HF_HUB_OFFLINE": "1",
    }
    return Replica(name, command, f"http://127.0.0.1:{port}", directory / f"vllm-{name}.log", env)


@contextmanager
def stopping(servers: list[Server]) -> Iterator[None]:
    """Stops the servers at the end of the block, however it ends."""
    try:
        yield
    finally:
        for server in servers:
            server.stop()
