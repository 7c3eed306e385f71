"""Drift in a running gateway: a fall of right answers is told, and pulls the valve until it is over."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.evidence.drift.looking import DriftLook
from gateway.evidence.rows import Row
from tests.evidence import made
from tests.evidence.made import eventually_async
from tests.fakes.backend import Backend
from tests.http.test_metrics import sample
from tests.serving import Running, configuration, serving

HOUR = 3_600.0


def history(head: str, share: float, begin: float, number: int = 300, first: int = 0) -> Iterator[Row]:
    """Judged answers that the head expected to be right with 90 %, one in six minutes."""
    draw = random.Random(first)
    for n in range(first, first + number):
        at = begin + (n - first) * HOUR / 10
        yield made.decision(n, at=at, head=head, tier="short", correct=0.9, reason="price")
        yield made.feedback(n, at=at, score=float(draw.random() < share))


def drift_look(running: Running) -> DriftLook:
    assert running.gateway.evidence
    return running.gateway.evidence.drift


async def looked(running: Running, rows: Iterator[Row] | None = None) -> None:
    """The rows are in the store, and the gateway has looked at all of it."""
    assert running.gateway.evidence
    writer = running.gateway.evidence.writer
    await eventually_async(lambda: writer.engine)
    before = sum(writer.written.values())
    number = sum([writer.put(row) for row in rows or ()])
    await eventually_async(lambda: sum(writer.written.values()) >= before + number)
    look = drift_look(running)
    await look.stop()
    look._watch = None  # as a gateway that starts: the rows are older than the last look
    await look.look()


def drifting(backend: Backend, folder: Path, on_drift: str, **changes: Any) -> dict[str, Any]:
    return configuration(
        backend.url,
        evidence={"file": str(folder / "evidence.db")},
        drift={"on_drift": on_drift, "every": "1h"},
        price=100,
        **changes,
    )


async def decided(running: Running) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    async with running.http.post(f"{running.url}/v1/route", json=body) as reply:
        decision: dict[str, Any] = (await reply.json())["decision"]
    return decision


async def console_drift(running: Running) -> dict[str, Any]:
    async with running.http.get(f"{running.url}/console/quality") as reply:
        drift: dict[str, Any] = (await reply.json())["drift"]
    return drift


async def test_fall_is_told_and_raises_the_floor(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The floor is one tier higher while the alarm stands, after a reload too, and then no more."""
    async with serving(drifting(backend, tmp_path, "raise_floor")) as running:
        head = running.gateway.snapshot.router.versions["head"]
        before = await decided(running)
        now = time.time()
        await looked(running, history(head, 0.6, now - 150 * HOUR))
        during = await decided(running)
        running.gateway.reload(running.gateway.snapshot)
        reloaded = await decided(running)
        alarm = await sample(running, "drift_alarm", model="tiny", tier="short", kind="right")
        evidence = await sample(running, "drift_evidence", model="tiny", tier="short", kind="right")
        page = await console_drift(running)
        await looked(running, history(head, 0.97, now - 100 * HOUR, 900, first=1_000))
        after = await decided(running)
        quiet = await sample(running, "drift_alarm", model="tiny", tier="short", kind="right")

    assert before["tier"] == after["tier"] == "direct"
    assert (
        (during["tier"], during["reason"])
        == (reloaded["tier"], reloaded["reason"])
        == ("short", "drift_floor")
    )
    assert (alarm, quiet) == (1, 0)
    assert evidence > 3
    assert page["on_drift"] == "raise_floor"
    assert [stream["place"]["tier"] for stream in page["streams"] if stream["since"]] == ["short"]
    told = [record.getMessage() for record in caplog.records if record.name == "thinkmeter.drift"]
    assert [text.count("right less often than the head says") for text in told] == [1, 0]
    assert "has ended" in told[1]


@pytest.mark.parametrize(("on_drift", "measured"), [("alarm", True), ("prior", False)])
async def test_other_valves(backend: Backend, tmp_path: Path, on_drift: str, *, measured: bool) -> None:
    """An alarm alone changes no decision. `prior` takes the estimates of the model from the prior."""
    async with serving(drifting(backend, tmp_path, on_drift, head="tiny")) as running:
        before = await decided(running)
        head = running.gateway.snapshot.router.versions["head"]
        await looked(running, history(head, 0.6, time.time() - 100 * HOUR))
        during = await decided(running)

    assert alarmed(running)
    assert before["reason"] != "prior"
    assert (during["reason"] == before["reason"]) is measured
    assert (during["correct"] == before["correct"]) is measured
    assert (during["reason"] == "prior") is not measured


def alarmed(running: Running) -> bool:
    """Whether the gateway has found an alarm."""
    return any(found.since for found in drift_look(running).found)


async def test_other_heads_do_not_count(backend: Backend, tmp_path: Path) -> None:
    """Answers that another head has judged wrongly change nothing for the one in use."""
    async with serving(drifting(backend, tmp_path, "raise_floor")) as running:
        await looked(running, history("old-1", 0.6, time.time() - 100 * HOUR))
        during = await decided(running)

    assert alarmed(running)
    assert during["reason"] != "drift_floor"


async def test_no_watch_without_settings(backend: Backend, tmp_path: Path) -> None:
    """Without `drift` nobody looks at the evidence."""
    plain = configuration(backend.url, evidence={"file": str(tmp_path / "evidence.db")})
    async with serving(plain) as running:
        await looked(running, history("any", 0.6, time.time() - 100 * HOUR))
        assert drift_look(running).found == []
