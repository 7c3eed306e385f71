"""What answers at the address of Redis may not be Redis, or not run our scripts."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from gateway.store.commands import ReserveReply, WindowState, is_reply
from gateway.store.connection import RedisConnection, StoreUnavailable

ROW = [0] * len(ReserveReply._fields)
STATE = [0] * len(WindowState._fields)


@pytest.mark.parametrize(
    ("script", "keys", "good", "bad"),
    [
        ("renew", 3, [[1, 0, 0]], [[1], [1, 0], [1, 0, b"x"], [[], 0, 0], [], None, b"OK", 1]),
        ("reset", 3, [[1, 0]], [[1], [1, b"x"], None]),
        (
            "exchange",
            3,
            [[1, 0, 0], [1, 0, 0, ROW], [1, 0, 0, ROW, ROW]],
            [[ROW, 0, 0], [1, 0, ROW], [1, 0, 0, ROW[1:]], [1, 0, 0, 5], [None, 0, 0], b"OK"],
        ),
        ("status", 5, [[1, STATE, STATE]], [[1], [1, STATE], [1, STATE, STATE[1:]], 1]),
        ("pace", 1, [1], [b"OK", None, [1]]),
    ],
)
def test_shape_of_replies(script: str, keys: int, good: list[Any], bad: list[Any]) -> None:
    """A reply has the shape that its script returns, or it is not its reply."""
    names = [f"k{number}" for number in range(keys)]

    assert all(is_reply(script, names, reply) for reply in good)
    assert not any(is_reply(script, names, reply) for reply in bad)


@pytest.mark.parametrize(
    "reply",
    [b"+OK\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n:5\r\n", b"-NOSCRIPT x\r\n", b"$1\r\n\x05\r\n"],
    ids=str,
)
async def test_odd_reply_is_an_outage(reply: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Callers learn that Redis cannot be used, once in the log, and nothing breaks."""
    answering: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.current_task())
        while (line := await reader.readline()).startswith(b"*"):
            words = [await reader.readline() for _ in range(2 * int(line[1:]))]
            writer.write(b"+OK\r\n" if words[1] == b"CLIENT\r\n" else reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = RedisConnection(f"redis://127.0.0.1:{port}", prefix="t", timeout=2)
    with caplog.at_level(logging.WARNING, "thinkmeter.redis"):
        await connection.start()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await connection.call("renew", ["journal"], [b""])

    assert not connection.up
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "Redis refuses commands" in caplog.text
    await connection.stop()
    await asyncio.gather(*answering)  # every connection was closed
    server.close()
