"""Stopping: running requests are finished, new connections are refused, and the grace period is limited."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import Answer, ask, assert_error, closed, connect, post, read_response
from tests.serving import Process, configuration, process

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "tiny:direct", "messages": [{"role": "user", "content": "hello"}]}
STREAMED = BODY | {"stream": True}
SECONDS = 20.0


async def ended(running: Process) -> bool:
    """Wait for the process to end. True if its exit status is 0 or that of the stop signal."""
    async with asyncio.timeout(SECONDS):
        status = await running.process.wait()
    return status in {0, -signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT}


async def refused(running: Process) -> None:
    """Wait until the port is closed."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                async with connect(running.url):
                    pass
            except ConnectionRefusedError:
                return
            await asyncio.sleep(0.01)


async def test_sigterm_finishes_what_runs(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """After SIGTERM the port closes, running requests get their whole responses, then the process ends."""
    settings = configuration(backend.url, server={"access_log": True, "drain_timeout": 60})
    async with process(settings, tmp_path, port=free_port) as running, aiohttp.ClientSession() as http:
        backend.script(Fault(pace_ms=40, tokens=20))
        backend.script(Fault(delay_ms=600))
        async with http.post(running.url + CHAT, json=STREAMED) as response:
            received = await response.content.readany()
            whole = asyncio.create_task(ask(http, running.url, CHAT, BODY))
            await backend.wait_until(lambda b: b.in_flight == 2)

            running.process.terminate()
            await refused(running)
            received += await response.content.read()

        assert received.endswith(b"data: [DONE]\n\n")
        assert (await whole).status == 200
        assert await ended(running)
    statuses = [json.loads(line)["status"] for line in running.access_log.read_text().splitlines()]
    assert statuses[-2:] == [200, 200]
    assert not backend.aborted


async def test_idle_gateway_exits_at_once(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """Without running requests SIGINT ends the process at once, even if an idle connection is open."""
    async with process(configuration(backend.url), tmp_path, port=free_port) as running:
        async with connect(running.url) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await read_response(reader)).status == 200

            running.process.send_signal(signal.SIGINT)

            assert await closed(reader) == b""
        assert await ended(running)


async def test_readyz_turns_before_the_port_closes(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """During drain_delay /readyz is 503 while requests are still served; a second SIGTERM ends the wait."""
    settings = configuration(backend.url, server={"drain_delay": 60})
    async with process(settings, tmp_path, port=free_port) as running, aiohttp.ClientSession() as http:
        assert (await ask(http, running.url, "/readyz", method="GET")).status == 200

        running.process.terminate()

        async with asyncio.timeout(SECONDS):
            while (answer := await ask(http, running.url, "/readyz", method="GET")).status == 200:
                await asyncio.sleep(0.01)
        assert (answer.status, answer.json) == (503, {"status": "draining"})
        assert (await ask(http, running.url, "/healthz", method="GET")).status == 200
        assert (await ask(http, running.url, CHAT, BODY)).status == 200

        running.process.terminate()

        assert await ended(running)


async def test_delay_ends_by_itself(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """After drain_delay the process ends without a second signal."""
    settings = configuration(backend.url, server={"drain_delay": 0.2})
    async with process(settings, tmp_path, port=free_port) as running:
        running.process.terminate()

        assert await ended(running)


@pytest.mark.parametrize("drain_timeout", [1, 0.3])
async def test_grace_period_ends(
    backend: Backend, tmp_path: Path, free_port: int, drain_timeout: float
) -> None:
    """After drain_timeout, a running stream gets an error event and a waiting request gets a 503."""
    settings = configuration(backend.url, server={"access_log": True, "drain_timeout": drain_timeout})
    async with process(settings, tmp_path, port=free_port) as running, aiohttp.ClientSession() as http:
        backend.script(Fault(after=2, end="stall"))
        backend.script(Fault(delay_ms=3_600_000))
        async with connect(running.url) as (reader, writer):
            writer.write(post(CHAT, json.dumps(STREAMED).encode()))
            await reader.readuntil(b"t1")
            waiting = asyncio.create_task(ask(http, running.url, CHAT, BODY))
            await backend.wait_until(lambda b: b.in_flight == 2)

            running.process.terminate()
            rest = await closed(reader, SECONDS)

        assert_error(await waiting, 503, "shutting_down")
        assert await ended(running)
        await backend.wait_until(lambda b: len(b.aborted) == 2)
    event = rest[rest.index(b'data: {"error"') :].partition(b"\n\n")[0].removeprefix(b"data: ")
    headers = {"content-type": "application/json"}
    assert_error(Answer(503, headers, event), 503, "shutting_down")
    assert b"[DONE]" not in rest
    codes = [json.loads(line).get("error") for line in running.access_log.read_text().splitlines()]
    assert codes[-2:] == ["shutting_down", "shutting_down"]
