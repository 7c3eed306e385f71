"""The targets, and how each is installed and started. Every target is pinned to one core."""

from __future__ import annotations

import contextlib
import json
import os
import signal
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
VENVS = ROOT / ".bench"
KEY = "sk-bench-0123456789abcdef"
MODEL = "fake"
START_S = 60

THINKMETER = """\
server: {{host: 127.0.0.1, port: {port}}}
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

LITELLM = """\
model_list:
  - model_name: fake
    litellm_params: {{model: hosted_vllm/fake, api_base: "{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
"""


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """One server. `{port}`, `{upstream}`, `{config}`, `{python}` and `{bin}` in its command are replaced."""

    name: str
    about: str
    command: str = ""
    packages: list[str] = []  # from PyPI, in its own venv
    config: str = ""
    environment: dict[str, str] = {}
    key: str = ""
    ready: str = "/health"
    checkout: Path = ROOT
    """Where the command runs; `{python}` is the one of its virtual environment, if it has one."""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def ours(name: str, head: str, about: str, checkout: Path = ROOT, more: str = "") -> Target:
    return Target(
        checkout=checkout,
        name=name,
        about=about,
        command="{python} -m gateway serve {config}",
        config=THINKMETER.replace("HEAD", head) + more,
        environment={"BENCH_KEY": KEY},
        key=KEY,
        ready="/readyz",
    )


TARGETS = {
    target.name: target
    for target in (
        Target(name="direct", about="load generator straight to the fake backend"),
        ours("thinkmeter", "baseline", "this gateway: key, heuristic decision, metrics and access log on"),
        ours("thinkmeter-head", "general", "the same with the trained head `general`"),
        ours("thinkmeter-all", "general", "the same with three budgets in Redis", more=BUDGETS),
        Target(
            name="mini",
            about="FastAPI + httpx in forty lines, no features",
            command="{bin}/python tests/bench/mini.py {port} {upstream}",
            packages=["fastapi", "uvicorn", "httpx", "uvloop", "httptools"],
        ),
        Target(
            name="litellm",
            about="LiteLLM proxy, one worker, no database",
            command="{bin}/litellm --config {config} --host 127.0.0.1 --port {port} --num_workers 1",
            packages=["litellm[proxy]"],
            config=LITELLM,
            environment={"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            key=KEY,
            ready="/health/liveliness",
        ),
        Target(
            name="vllm-router",
            about="vLLM's router (Rust), one worker thread",
            command="{bin}/vllm-router --worker-urls {upstream} --policy round_robin --log-level warning "
            "--host 127.0.0.1 --port {port} --prometheus-port 29017",
            packages=["vllm-router"],
        ),
    )
}
OWN = ("direct", "thinkmeter", "thinkmeter-head", "thinkmeter-all", "mini")
PEERS = tuple(name for name in TARGETS if name not in OWN)


def before(checkout: Path) -> list[Target]:
    """This gateway as another checkout has it, to compare two commits in one run."""
    about = "`{}` of the other checkout"
    return [
        ours("before", "baseline", about.format("thinkmeter"), checkout.resolve()),
        ours("before-head", "general", about.format("thinkmeter-head"), checkout.resolve()),
    ]


def install(target: Target) -> str | None:
    """Create the target's venv unless it exists. If that fails, return the reason."""
    if not target.packages:
        return None
    home = VENVS / target.name
    done = home / "installed"
    if done.exists():
        return None
    print(f"installing {target.name} from PyPI …", file=sys.stderr, flush=True)
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(home / "bin/pip"), "install", "-q", *target.packages],
    )
    for step in steps:
        result = subprocess.run(step, capture_output=True, text=True, check=False)
        if result.returncode:
            return (result.stderr.strip().splitlines() or ["no message"])[-1]
    done.touch()
    return None


def versions(target: Target) -> dict[str, str]:
    """Versions of what was installed for the target, by name."""
    if not target.packages:
        return {}
    names = [package.partition("[")[0] for package in target.packages]
    code = "import sys,json,importlib.metadata as m;print(json.dumps({n:m.version(n) for n in sys.argv[1:]}))"
    python = str(VENVS / target.name / "bin/python")
    found = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(found.stdout)
    return versions


def pinned(command: list[str], core: int) -> list[str]:
    """The command, wrapped so that it pins itself to a core before it starts any threads."""
    code = "import os,sys;os.sched_setaffinity(0,{int(sys.argv[1])});os.execvp(sys.argv[2],sys.argv[2:])"
    return [sys.executable, "-c", code, str(core), *command]


def spawn(
    command: list[str], *, core: int, log: IO[bytes], environment: dict[str, str], folder: Path = ROOT
) -> subprocess.Popen[bytes]:
    """Start a process group pinned to one core."""
    return subprocess.Popen(
        pinned(command, core),
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
def running(
    target: Target, *, port: int, upstream: str, redis: str, core: int, folder: Path
) -> Iterator[list[int]]:
    """The target, ready to serve; yields its process ids."""
    if not target.command:
        yield []
        return
    config = folder / f"{target.name}.yaml"
    config.write_text(target.config.format(port=port, upstream=upstream, redis=redis, key=KEY))
    python = target.checkout / ".venv/bin/python"
    fill = {"port": port, "upstream": upstream, "config": config}
    fill["python"] = python if python.exists() else sys.executable
    fill["bin"] = VENVS / target.name / "bin"
    log = folder / f"{target.name}.log"
    with log.open("wb") as sink:
        command = [part.format(**fill) for part in target.command.split()]
        process = spawn(command, core=core, log=sink, environment=target.environment, folder=target.checkout)
        try:
            wait_ready(process, f"http://127.0.0.1:{port}{target.ready}", log)
            yield proc.tree(process.pid)
        finally:
            stop(process)
