"""Every program in examples/clients runs unchanged against a gateway with an API key."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "examples" / "clients"
INSTALLED = ROOT / ".cache" / "clients"
KEY = "web-secret"


@pytest.fixture
async def keyed(backend: Backend) -> AsyncIterator[Running]:
    """A gateway that requires an API key."""
    async with serving(configuration(backend.url, keys=[{"name": "web", "key": KEY}])) as running:
        yield running


def installed(path: Path, what: str) -> str:
    """The path if it exists; otherwise skips the test and says how to install it."""
    return str(path) if path.exists() else pytest.skip(f"{what}: run examples/clients/install.sh")


def python_of(client: str) -> str:
    return installed(INSTALLED / client / "bin" / "python", f"{client} is not installed")


async def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a program, which must exit with status 0. Returns its standard output and error."""
    environ = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "default"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def assert_served(output: str, running: Running) -> None:
    """The program printed the tier, and the gateway got two requests with its key, the second pinned."""
    decided = [record for record in running.records if record.decision]
    free, pinned = (record.decision for record in decided)
    assert free
    assert pinned
    assert f"tier: {free.tier} because: {free.reason}" in output
    assert "streamed: " in output
    assert (free.requested, pinned.requested, pinned.reason) == ("adaptive", "direct", "pinned")
    assert [(record.status, record.key, record.stream) for record in decided] == [
        (200, "web", False),
        (200, "web", True),
    ]


async def test_openai_for_python(keyed: Running) -> None:
    """The official Python client."""
    program = str(PROGRAMS / "with_openai.py")
    assert_served(await run(sys.executable, program, f"{keyed.url}/v1", "tiny", KEY), keyed)


async def test_openai_for_node(keyed: Running, tmp_path: Path) -> None:
    """The official JavaScript client."""
    node = shutil.which("node") or pytest.skip("there is no node here")
    modules = installed(INSTALLED / "node" / "node_modules" / "openai", "openai for Node is not installed")
    (tmp_path / "node_modules").symlink_to(Path(modules).parent)
    program = shutil.copy(PROGRAMS / "with_openai.mjs", tmp_path)  # modules are looked up beside the program
    assert_served(await run(node, str(program), f"{keyed.url}/v1", "tiny", KEY, cwd=tmp_path), keyed)


@pytest.mark.parametrize(
    ("client", "program"),
    [("langchain-openai", "with_langchain.py"), ("litellm", "with_litellm.py")],
)
async def test_python_frameworks(keyed: Running, client: str, program: str) -> None:
    """LangChain and LiteLLM, each in its own environment."""
    command = (python_of(client), str(PROGRAMS / program), f"{keyed.url}/v1", "tiny", KEY)
    assert_served(await run(*command), keyed)


async def test_curl(keyed: Running) -> None:
    """The shell script, which shows the response headers."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    output = await run("sh", str(PROGRAMS / "with_curl.sh"), f"{keyed.url}/v1", "tiny", KEY)

    assert output.count("x-thinkmeter-tier:") == 2
    assert "data: [DONE]" in output
    assert [record.status for record in keyed.records] == [200, 200]
