"""The gateway works with a real curl, as in the README: an independent implementation of HTTP."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.serving import Running

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")

CHAT = {"model": "tiny:short", "messages": [{"role": "user", "content": "hello"}]}


async def start(*arguments: str) -> asyncio.subprocess.Process:
    assert CURL
    return await asyncio.create_subprocess_exec(
        CURL, "--silent", "--show-error", "--max-time", "20", *arguments, stdout=asyncio.subprocess.PIPE
    )


async def curl(*arguments: str) -> bytes:
    """What curl prints; it must exit with status 0."""
    process = await start(*arguments)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed


async def test_chat(running: Running) -> None:
    """A chat request without streaming gets JSON, and the headers show the tier."""
    printed = await curl("-i", f"{running.url}/v1/chat/completions", "--json", json.dumps(CHAT))

    head, _, body = printed.partition(b"\r\n\r\n")
    assert b"HTTP/1.1 200" in head
    assert b"x-thinkmeter-tier: short" in head
    assert json.loads(body)["choices"][0]["message"]["content"]


async def test_stream(running: Running) -> None:
    """A stream consists of chat chunks, without usage, and ends with [DONE]."""
    body = json.dumps(CHAT | {"stream": True})

    printed = await curl("-N", f"{running.url}/v1/chat/completions", "--json", body)

    events = printed.decode().removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert len(chunks) > 48
    assert all(chunk["choices"] for chunk in chunks)  # no usage was asked for


async def test_stream_is_not_held_back(running: Running, backend: Backend) -> None:
    """The first events arrive before the backend has finished, and killing curl stops the backend."""
    backend.default = Fault(after=3, end="stall")
    process = await start(
        "-N", f"{running.url}/v1/chat/completions", "--json", json.dumps(CHAT | {"stream": True})
    )
    assert process.stdout
    try:
        async with asyncio.timeout(10):
            await process.stdout.readuntil(b"r1")
    finally:
        process.kill()
        await process.communicate()

    await backend.wait_until(lambda b: b.aborted)


async def test_error_with_a_status_curl_sees(running: Running) -> None:
    """`curl --fail-with-body` exits with status 22 and prints the error object."""
    process = await start(
        "--fail-with-body",
        f"{running.url}/v1/chat/completions",
        "--json",
        json.dumps(CHAT | {"model": "none"}),
    )
    assert process.stdout
    printed = await process.stdout.read()

    assert await process.wait() == 22
    assert json.loads(printed)["error"]["code"] == "model_not_found"


async def test_large_body_with_expect(running: Running, tmp_path_factory: pytest.TempPathFactory) -> None:
    """curl sends `Expect: 100-continue` before a large body, and the gateway tells it to continue."""
    file = tmp_path_factory.mktemp("curl") / "body.json"
    file.write_text(json.dumps(CHAT | {"user": "x" * 3_000_000}))

    printed = await curl(
        f"{running.url}/v1/chat/completions", "--json", f"@{file}", "-H", "Expect: 100-continue"
    )

    assert json.loads(printed)["choices"]


async def test_http2_offer(running: Running) -> None:
    """`curl --http2` offers an upgrade to HTTP/2, and is served over HTTP/1.1."""
    version = await curl("--version")
    if b"HTTP2" not in version:
        pytest.skip("this curl does not speak HTTP/2")

    printed = await curl("--http2", f"{running.url}/v1/chat/completions", "--json", json.dumps(CHAT))

    assert json.loads(printed)["choices"]


async def test_readme_endpoints(running: Running) -> None:
    """Models, readiness and metrics can be read with curl."""
    models = json.loads(await curl(f"{running.url}/v1/models"))
    assert "tiny:long" in [model["id"] for model in models["data"]]
    assert json.loads(await curl(f"{running.url}/readyz")) == {"status": "ready"}
    assert b"thinkmeter_build_info" in await curl(f"{running.url}/metrics")
