"""The programs in examples/clients, in front of a real vLLM."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.test_clients import INSTALLED, PROGRAMS, installed, python_of, run

from .processes import Server


def python(program: str, client: str | None = None) -> list[str]:
    return [python_of(client) if client else sys.executable, str(PROGRAMS / program)]


def node(folder: Path) -> list[str]:
    """Node looks up modules beside the program, so it runs in a folder of its own."""
    found = shutil.which("node") or pytest.skip("there is no node here")
    modules = installed(INSTALLED / "node" / "node_modules" / "openai", "openai for Node is not installed")
    (folder / "node_modules").symlink_to(Path(modules).parent)
    return [found, str(shutil.copy(PROGRAMS / "with_openai.mjs", folder))]


CLIENTS: dict[str, Callable[[Path], list[str]]] = {
    "openai for Python": lambda _: python("with_openai.py"),
    "openai for Node": node,
    "LangChain": lambda _: python("with_langchain.py", "langchain-openai"),
    "LiteLLM": lambda _: python("with_litellm.py", "litellm"),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_client(gateway: Server, tmp_path: Path, client: str) -> None:
    """It prints an answer, its tier, its tokens, and the answer of a stream, which is right."""
    output = await run(*CLIENTS[client](tmp_path), f"{gateway.url}/v1", "tiny", "none", cwd=tmp_path)
    assert re.search(r"^answer: -?\d+$", output, re.MULTILINE), output
    assert re.search(r"^tier: (direct|short|medium|long) because: \w+$", output, re.MULTILINE), output
    assert re.search(r"^tokens: [1-9]\d*$", output, re.MULTILINE), output
    assert re.search(r"^streamed: \s*\d+$", output, re.MULTILINE), output


async def test_curl(gateway: Server) -> None:
    """The shell script, which shows the headers and the end of a stream."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    output = await run("sh", str(PROGRAMS / "with_curl.sh"), f"{gateway.url}/v1", "tiny")
    assert output.count("x-thinkmeter-tier:") == 2
    assert "data: [DONE]" in output
