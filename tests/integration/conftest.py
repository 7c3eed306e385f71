"""Fixtures of the tests with a real vLLM: two servers with the tiny reasoner, a gateway, clients."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from openai import AsyncOpenAI, OpenAI

from examples import servers
from examples.tiny_reasoner.cuts import ANSWER_ROOM
from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.task import Question, grade, held_out_set

from .abilities import ABILITIES, Abilities
from .embedded import Said, greedy
from .install_vllm import FOLDERS
from .processes import Replica, Server, free_port, stopping, vllm_server

REPOSITORY = Path(__file__).parents[2]
# The outcome table of the tiny reasoner was measured with exactly these budgets.
TIERS = {name: {"thinking": budget, "answer": ANSWER_ROOM} for name, budget in servers.TIERS.items()}
# Some tests need a response that takes longer than any thought of the tiny reasoner. Under this name the same
# replicas may generate beyond the end of their answer, up to the cap.
ENDLESS = {"direct": {"thinking": 0, "answer": 300}, "long": {"thinking": 15_000, "answer": 300}}
# A model that has not learned to write JSON needs room for it.
ROOMY = {name: tier | {"answer": 300} for name, tier in TIERS.items()}
ENDLESS_FIELDS: dict[str, Any] = {
    "model": "endless:long",
    "messages": [{"role": "user", "content": "Start with 3. Add 4. Multiply by 2. What do you get?"}],
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}

Eventually = Callable[[Callable[[], bool], str], Awaitable[None]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow time to start vLLM, and run the tests that kill a replica last."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(600))
    items.sort(key=lambda item: "doomed" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def release() -> str:
    """The end of the supported range that is tested: `oldest` or `newest`."""
    return os.environ.get("VLLM") or "newest"


@pytest.fixture(scope="session")
def abilities(release: str) -> Abilities:
    """What this release of vLLM can do."""
    return ABILITIES[release]


@pytest.fixture(scope="session")
def vllm_python(release: str) -> Path:
    """The interpreter of an environment that has this release of vLLM."""
    named = os.environ.get("THINKMETER_VLLM_PYTHON")
    python = Path(named) if named else REPOSITORY / FOLDERS[release] / "bin" / "python"
    if not python.exists():
        pytest.skip(
            f"no vLLM: {python} does not exist; run `python tests/integration/install_vllm.py {release}`"
            " or set THINKMETER_VLLM_PYTHON"
        )
    return python


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for logs and configuration, which pytest keeps for inspection after a failure."""
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="session")
def replicas(vllm_python: Path, workplace: Path) -> Iterator[list[Replica]]:
    """Two vLLM servers, `a` and `b`, that serve the tiny reasoner as `tiny`."""
    servers = [vllm_server(name, vllm_python, WEIGHTS, workplace) for name in ("a", "b")]
    with stopping([*servers]):
        for server in servers:
            server.wait_until_ready("/health")
        yield servers


@pytest.fixture(scope="session")
def config(replicas: list[Replica], workplace: Path) -> Path:
    """The gateway's configuration file."""
    served = {
        "family": "qwen3",
        "served_name": "tiny",
        "replicas": [{"name": replica.name, "url": replica.url} for replica in replicas],
    }
    tiers = {"tiny": TIERS, "endless": ENDLESS, "tools": ROOMY}
    models = {name: served | {"tiers": one} for name, one in tiers.items()}
    path = workplace / "thinkmeter.yaml"
    settings = {
        "health": {"interval": 1},
        "timeouts": {"first_byte": 600, "idle": 600},  # a busy machine must not fail a test
        "failover": {"resend_lost": True},  # the requests of these tests kill no replica
        "head": "baseline",
        "models": models,
    }
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
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
    """The official client of the gateway, without retries, which would hide failures."""
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=600) as client:
        yield client


@pytest.fixture
async def async_client(gateway: Server) -> AsyncIterator[AsyncOpenAI]:
    """The official asynchronous client, for requests that overlap or are cancelled."""
    async with AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=600
    ) as client:
        yield client


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The embedded engine with the same model."""
    engine = Engine(WEIGHTS)
    engine.start()
    yield engine
    engine.close()


class Puzzle(NamedTuple):
    """A question, and what the embedded engine answers at the tiers `direct` and `long`."""

    question: Question
    direct: Said
    long: Said

    @property
    def messages(self) -> list[Any]:
        """The question as a client sends it."""
        return [{"role": "user", "content": self.question.text}]


@pytest.fixture(scope="session")
def puzzles(engine: Engine) -> list[Puzzle]:
    """Held-out questions that are answered right after a long thought."""
    asked = held_out_set(120)
    texts = [question.text for question in asked]
    direct, long = (greedy(engine, texts, TIERS[tier]["thinking"]) for tier in ("direct", "long"))
    found = [Puzzle(*one) for one in zip(asked, direct, long, strict=True)]
    return [puzzle for puzzle in found if grade(puzzle.long.content, puzzle.question.answer)]


@pytest.fixture(scope="session")
def easy(puzzles: list[Puzzle]) -> Puzzle:
    """A question with a right, two-digit answer at `direct`; its thought is much shorter than `medium`."""
    return next(
        puzzle
        for puzzle in puzzles
        if grade(puzzle.direct.content, puzzle.question.answer)
        and len(puzzle.question.answer) == 2
        and puzzle.long.thought < TIERS["medium"]["thinking"] // 2
    )


@pytest.fixture(scope="session")
def hard(puzzles: list[Puzzle]) -> Puzzle:
    """A question with a wrong answer at `direct`; its thought is longer than `medium` and ends by itself."""
    return next(
        puzzle
        for puzzle in puzzles
        if not grade(puzzle.direct.content, puzzle.question.answer)
        and TIERS["medium"]["thinking"] + 20 < puzzle.long.thought < TIERS["long"]["thinking"]
    )


@pytest.fixture
def doomed(replicas: list[Replica]) -> Replica:
    """The replica that a test may kill; such tests run last."""
    return replicas[1]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds, and fails with its description if it never does."""

    async def wait(condition: Callable[[], bool], description: str) -> None:
        deadline = time.monotonic() + 300
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline, f"never happened: {description}"
            await asyncio.sleep(0.05)

    return wait


def results(output: str, replica: str) -> dict[str, str]:
    """The table's result by check, for one replica of the model `tiny`."""
    cells = [[cell.strip() for cell in line.split("│")] for line in output.splitlines()]
    return {row[3]: row[4] for row in cells if len(row) > 5 and row[1:3] == ["tiny", replica]}


def probe(config: Path) -> tuple[int, str]:
    """The exit status and the output of `thinkmeter probe`."""
    ran = subprocess.run(
        [sys.executable, "-m", "gateway", "probe", str(config)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
    )
    return ran.returncode, ran.stdout + ran.stderr
