"""Checks that the load generator counts correctly, however a proxy splits the stream."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from tests.bench.jobs import Job
from tests.bench.load import Client, Window, requests
from tests.fakes import plan
from tests.fakes.ask import Ask, Speech
from tests.fakes.dialect import chat_events
from tests.fakes.fault import Fault
from tests.fakes.light import SERIAL, alike

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
        events += b"data: " + event.data.replace(b"@;", b"@00000000000000123456;") + b"\n\n"
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
    client = Client(window, lambda: b"request")
    client.connection_made(cast(asyncio.Transport, ClosedTransport()))
    for read in pieces(wire, chance):
        client.data_received(read)
    result = window.result
    assert (result.requests, result.chunks, result.first_error) == (1, TOKENS, "")


def test_every_prompt_is_another() -> None:
    """Requests differ in the number of their prompt and in nothing else."""
    body = f"{SERIAL.decode()}0000000000. How are you?"
    job = Job(port=1, path="/", headers={"a": "b"}, body=body, connections=1)
    request = requests(job)
    sent = [request() for _ in range(5)]

    assert len(set(sent)) == 5
    assert {alike(each) for each in sent} == {alike(sent[0])}
    assert len({len(each) for each in sent}) == 1
    assert f"content-length: {len(body)}".encode() in sent[0]


def test_a_body_without_a_number_stays() -> None:
    request = requests(Job(port=1, path="/", headers={}, body="{}", connections=1))

    assert request() == request()
