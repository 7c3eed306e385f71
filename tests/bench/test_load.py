"""Checks that the load generator counts correctly, however a proxy splits the stream."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from tests.bench.load import Client, Job, Window
from tests.fakes import plan
from tests.fakes.ask import Ask, Speech
from tests.fakes.dialect import chat_events
from tests.fakes.fault import Fault

TOKENS = 12


class ClosedTransport:
    """Takes the request and ends the closed loop after one response."""

    def write(self, data: bytes) -> None:
        assert data == b"request"

    def is_closing(self) -> bool:
        return True


def pieces(data: bytes, chance: random.Random) -> list[bytes]:
    found = []
    while data:
        size = chance.randint(1, chance.choice((2, 30, 900)))
        found.append(data[:size])
        data = data[size:]
    return found


def body(fault: Fault) -> bytes:
    """The events of a stream, without HTTP's chunk framing."""
    said = Speech(prompt=3, reasoning=0, content=TOKENS, finish="stop")
    events = b""
    for event in chat_events(Ask(model="fake", messages=[{}]), fault, said, "0" * 16):
        events += b"data: " + event.data.replace(b"@;", b"@123456;") + b"\n\n"
    return events


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("seed", range(100))
async def test_counting(seed: int, stamped: bool) -> None:
    """Every token event counts once, wherever HTTP chunks and reads split it."""
    chance = random.Random(seed)
    fault = Fault(stamp=stamped)
    chunked = b"".join(plan.frame(piece) for piece in pieces(body(fault), chance))
    wire = plan.head(fault, plan.SSE) + chunked + plan.LAST_CHUNK
    job = Job(
        port=1, path="/", headers={}, body="", connections=1, stream=True, stamped=stamped, expected=TOKENS
    )
    window = Window(job)
    window.open = True
    client = Client(window, b"request")
    client.connection_made(cast(asyncio.Transport, ClosedTransport()))
    for read in pieces(wire, chance):
        client.data_received(read)
    result = window.result
    assert (result.requests, result.chunks, result.first_error) == (1, TOKENS, "")
