"""Fixtures of the real-vLLM suite: two vLLM servers with a tiny model, a gateway in front, clients."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import yaml
from openai import AsyncOpenAI, OpenAI

from .processes import Replica, Server, free_port, stopping, vllm_server

REPOSITORY = Path(__file__).parents[2]
TIERS = {
    "direct": {"thinking": 0, "answer": 96},
    "short": {"thinking": 16, "answer": 96},
    "medium": {"thinking": 64, "answer": 96},
    "long": {"thinking": 12000, "answer": 96},
}

Eventually = Callable[[Callable[[], bool], str], Awaitable[None]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves time to start vLLM, and puts tests that kill a replica last."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(600))
    items.sort(key=lambda item: "doomed" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter of an environment that has vLLM."""
    named = os.environ.get("THINKMETER_VLLM_PYTHON")
    python = Path(named) if named else REPOSITORY / ".venv-vllm" / "bin" / "python"
    if not python.exists():
        pytest.skip(
            f"no vLLM: {python} does not exist; run `python tests/integration/install_vllm.py .venv-vllm`"
            " or set THINKMETER_VLLM_PYTHON"
        )
    return python


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, the model and the configuration; pytest keeps it for a look after a failure."""
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="session")
def replicas(vllm_python: Path, workplace: Path) -> Iterator[list[Replica]]:
    """Two vLLM servers, `a` and `b`, that serve the same tiny model as `tiny`."""
    model = workplace / "model"
    script = Path(__file__).with_name("tiny_model.py")
    wrote = subprocess.run([str(vllm_python), str(script), str(model)], capture_output=True, text=True)
    assert wrote.returncode == 0, wrote.stderr
    servers = [vllm_server(name, vllm_python, model, workplace) for name in ("a", "b")]
    with stopping([*servers]):
        for server in servers:
            server.wait_until_ready("/health")
        yield servers


@pytest.fixture(scope="session")
def config(replicas: list[Replica], workplace: Path) -> Path:
    """The gateway's configuration file."""
    tiny = {
        "family": "qwen3",
        "served_name": "tiny",
        "replicas": [{"name": replica.name, "url": replica.url} for replica in replicas],
        "tiers": TIERS,
    }
    path = workplace / "thinkmeter.yaml"
    path.write_text(yaml.safe_dump({"health": {"interval": 1}, "models": {"tiny": tiny}}, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def gateway(config: Path, workplace: Path) -> Iterator[Server]:
    """A gateway process in front of both replicas."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gateway",
        "serve",
        str(config),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    env = {"PYTHONPATH": str(REPOSITORY)}
    server = Server("gateway", command, f"http://127.0.0.1:{port}", workplace / "gateway.log", env)
    with stopping([server]):
        server.wait_until_ready("/readyz")
        yield server


@pytest.fixture(scope="session")
def client(gateway: Server) -> Iterator[OpenAI]:
    """The official client, talking to the gateway; it must not hide a failure by trying again."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=180) as client:
        yield client


@pytest.fixture
async def async_client(gateway: Server) -> AsyncIterator[AsyncOpenAI]:
    """The official client in its asynchronous form, for requests that overlap or are cancelled."""
    async with AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=180
    ) as client:
        yield client


@pytest.fixture
def doomed(replicas: list[Replica]) -> Replica:
    """The replica that a test may kill; such tests run last."""
    return replicas[1]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds, and fails with its description if it never does."""

    async def wait(condition: Callable[[], bool], description: str) -> None:
        deadline = time.monotonic() + 60
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline, f"never happened: {description}"
            await asyncio.sleep(0.05)

    return wait
