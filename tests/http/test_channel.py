"""Worker and supervisor ask each other over one socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.http.channel import ChannelError, WorkerChannel

answered_second = asyncio.Event()


async def echo(name: str, body: bytes) -> list[bytes]:
    """Answers with what was asked; about `first` only after it was asked about `second`."""
    if name == "fail":
        raise ValueError(name)
    if name == "never":
        await asyncio.Event().wait()
    if name == "first":
        await answered_second.wait()
    if name == "second":
        answered_second.set()
    return [name.encode(), body]


@pytest.fixture
async def ends() -> AsyncIterator[tuple[WorkerChannel, WorkerChannel]]:
    """Two channels that answer each other."""
    one, two = map(WorkerChannel, socket.socketpair())
    await one.open()
    await two.open()
    running = [asyncio.create_task(end.run(echo)) for end in (one, two)]
    yield one, two
    one.close()
    two.close()
    await asyncio.gather(*running)


async def test_questions_cross(ends: tuple[WorkerChannel, WorkerChannel]) -> None:
    """Both ask at once, a large body passes, and a slow answer holds up no other."""
    one, two = ends
    large = b"x" * 3_000_000
    answers = await asyncio.gather(one.ask("first", b"1"), two.ask("q", large), one.ask("second", b"2"))

    assert answers == [[b"first", b"1"], [b"q", large], [b"second", b"2"]]


async def test_answer_that_does_not_come(
    ends: tuple[WorkerChannel, WorkerChannel], caplog: pytest.LogCaptureFixture
) -> None:
    """Without an answer in time, or from an end that has closed, asking fails. Others go on."""
    one, two = ends
    for name in ("never", "fail"):
        with pytest.raises(ChannelError):
            await one.ask(name, seconds=0.05)
    assert "a question about fail was not answered" in caplog.text
    assert await one.ask("q") == [b"q", b""]

    waiting = asyncio.create_task(one.ask("never"))
    await asyncio.sleep(0)
    two.close()
    with pytest.raises(ChannelError):
        await waiting
    with pytest.raises(ChannelError):
        await one.ask("q")
