"""The clients of the trial `idle` against the fake backend."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench.idle import Asked
from tests.bench.jobs import Job
from tests.bench.large import Sender
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault


def test_what_a_client_reports() -> None:
    asked = Asked(waits=[0.001 * number for number in range(1, 101)], statuses={"200": 97, "503": 2, "0": 1})

    assert asked.failed == 3
    assert asked.wait_ms(0.99) == pytest.approx(99)


async def test_the_large_sender_keeps_its_connection() -> None:
    """It says which status came, and opens another connection after a broken one."""
    async with Backend("fake") as backend:
        body = '{"model":"fake","messages":[{"role":"user","content":"hi"}],"max_tokens":1}'
        sender = Sender(
            Job(port=backend.port, path="/v1/chat/completions", headers={}, body=body, connections=1)
        )
        backend.script(Fault(status=503))
        backend.script(Fault(end="reset", after=0))
        found = [await asyncio.to_thread(sender.ask) for _ in range(4)]
        sender.close()

    assert found == [503, 0, 200, 200]
