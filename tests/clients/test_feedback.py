"""The programs that send feedback run unchanged, and each judgement reaches the store."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients.test_clients import INSTALLED, KEY, PROGRAMS, installed, python_of, run
from tests.evidence.recording import record_decisions
from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The store of evidence."""
    return tmp_path / "evidence.db"


@pytest.fixture
async def judged(backend: Backend, file: Path) -> AsyncIterator[Running]:
    """A gateway that requires a key and takes feedback."""
    settings = configuration(backend.url, keys=[{"name": "web", "key": KEY}], evidence={"file": str(file)})
    async with serving(settings) as running:
        record_decisions(running)
        yield running


async def assert_judged(running: Running, file: Path) -> None:
    """Every answer has one judgement of the program's."""
    assert running.gateway.evidence
    await running.gateway.evidence.stop()
    decided = sorted(record.decision.id for record in running.records if record.decision)
    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT decision, key, source FROM feedback ORDER BY decision").fetchall()

    assert decided
    assert found == [(decision, "web", "script") for decision in decided]


async def test_openai_for_python(judged: Running, file: Path) -> None:
    """The official Python client."""
    program = str(PROGRAMS / "feedback_openai.py")
    await run(sys.executable, program, f"{judged.url}/v1", "tiny", KEY)
    await assert_judged(judged, file)


async def test_openai_for_node(judged: Running, file: Path, tmp_path: Path) -> None:
    """The official JavaScript client."""
    node = shutil.which("node") or pytest.skip("there is no node here")
    modules = installed(INSTALLED / "node" / "node_modules" / "openai", "openai for Node is not installed")
    (tmp_path / "node_modules").symlink_to(Path(modules).parent)
    program = shutil.copy(PROGRAMS / "feedback_openai.mjs", tmp_path)
    await run(node, str(program), f"{judged.url}/v1", "tiny", KEY, cwd=tmp_path)
    await assert_judged(judged, file)


async def test_langchain(judged: Running, file: Path) -> None:
    """LangChain, which hides the client that it uses."""
    program = str(PROGRAMS / "feedback_langchain.py")
    await run(python_of("langchain-openai"), program, f"{judged.url}/v1", "tiny", KEY)
    await assert_judged(judged, file)


async def test_curl(judged: Running, file: Path) -> None:
    """The shell script."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    await run("sh", str(PROGRAMS / "feedback_curl.sh"), f"{judged.url}/v1", "tiny", KEY)
    await assert_judged(judged, file)
