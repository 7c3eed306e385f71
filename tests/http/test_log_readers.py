"""A reader of the log that stalls or dies, or a full disk under it, harms no request and no shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import aiohttp
import pytest

from gateway.telemetry.log_writer import LogWriter, StandardStreams
from tests.fakes.backend import Backend
from tests.serving import configuration, process, serving

DROPPED = 'thinkmeter_log_lines_dropped_total{stream="stdout"}'


@contextlib.contextmanager
def stalled_pipe() -> Iterator[int]:
    """The end to write to of a pipe that is full, and from which nobody reads.

    It stays open, because a thread may still write to it.
    """
    reader, end = os.pipe()
    os.set_blocking(end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, b"x" * 4096)
    os.set_blocking(end, True)
    yield end
    os.close(reader)


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """The end to write to of a pipe whose reader is gone."""
    reader, end = os.pipe()
    os.close(reader)
    yield end
    os.close(end)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file.fileno()


@pytest.mark.parametrize("kind", [stalled_pipe, closed_pipe, full_disk])
async def test_requests_are_served(backend: Backend, kind: Callable[[], AbstractContextManager[int]]) -> None:
    """Whole and streamed responses are complete, on one connection, and lost lines are counted."""
    with kind() as end:
        streams = StandardStreams(LogWriter("stdout", end, lines=5), LogWriter("stderr", end, lines=5))
        settings = configuration(backend.url, server={"access_log": True})
        async with serving(settings, streams=streams) as running:
            for number in range(20):
                response = await running.chat(stream=number % 2 == 0)
                assert response.status == 200
                assert number % 2 or (await response.text()).endswith("data: [DONE]\n\n")
            async with asyncio.timeout(10):
                while not (lost := (await running.metrics())[DROPPED]):
                    await asyncio.sleep(0.01)

    assert lost >= 1
    assert [record.status for record in running.records[:20]] == [200] * 20


async def test_no_traceback_on_a_full_disk(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """A process whose standard output is a full disk says so once."""
    log = tmp_path / "errors.log"
    with full_disk() as end, log.open("wb") as errors:
        settings = configuration(backend.url, server={"access_log": True})
        streams = (end, errors.fileno())
        async with (
            process(settings, tmp_path, port=free_port, streams=streams) as running,
            aiohttp.ClientSession() as http,
        ):
            for _ in range(10):
                async with http.get(running.url + "/nothing") as response:
                    assert response.status == 404
            running.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                await running.process.wait()

    text = log.read_text()
    assert text.count("dropping lines for stdout") == 1
    assert "No space left on device" in text
    assert "Traceback" not in text
    assert "Finished server process" in text


async def test_start_and_end_with_stalled_readers(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """With both streams stalled from the beginning a gateway starts, serves, and ends at SIGTERM."""
    with stalled_pipe() as end:
        settings = configuration(backend.url, server={"access_log": True})
        streams = (end, end)
        async with (
            process(settings, tmp_path, port=free_port, streams=streams) as running,
            aiohttp.ClientSession() as http,
        ):
            for _ in range(100):
                async with http.get(running.url + "/nothing") as response:
                    assert response.status == 404
            running.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                await running.process.wait()
