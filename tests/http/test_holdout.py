"""The hold-out at a real port: its header, its tier within all bounds, and what is not compared."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import Answer, ask
from tests.serving import Running, configuration, serving

KEYS = [{"name": "web", "key": "sk-web"}, {"name": "low", "key": "sk-low", "ceiling": "short"}]


def holding(backend: Backend, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    evidence = {"file": str(tmp_path / "evidence.db")}
    holdout = {"share": 0.5, "by": "user", "policy": "long"}
    return configuration(backend.url, evidence=evidence, keys=KEYS, holdout=holdout, **changes)


@pytest.fixture
async def halved(backend: Backend, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway that holds out half of the users, and explores with all others."""
    async with serving(holding(backend, tmp_path, exploration=0.2)) as running:
        yield running


async def send(
    running: Running, user: str, key: str = "sk-web", path: str = "/v1/chat/completions", **more: Any
) -> Answer:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "user": user} | more
    return await ask(running.http, running.url, path, body, authorization=f"Bearer {key}")


async def people(running: Running) -> tuple[str, str]:
    """A user that is held out, and one that is not."""
    arms = {}
    for number in range(40):
        answer = await send(running, f"user-{number}")
        arms.setdefault(answer.headers["x-thinkmeter-arm"], f"user-{number}")
    return arms["holdout"], arms["adaptive"]


async def test_the_held_out_get_the_fixed_tier_and_no_exploration(halved: Running) -> None:
    held, free = await people(halved)
    answers = [await send(halved, held) for _ in range(20)]

    assert {answer.headers["x-thinkmeter-reason"] for answer in answers} == {"holdout"}
    assert {answer.headers["x-thinkmeter-tier"] for answer in answers} == {"long"}
    assert {answer.headers["x-thinkmeter-arm"] for answer in answers} == {"holdout"}
    assert (await send(halved, free)).headers["x-thinkmeter-reason"] in ("price", "explored")
    decisions = [record.decision for record in await halved.recorded(61)]
    assert {one.propensity for one in decisions if one and one.arm == "holdout"} == {1.0}


async def test_bounds_hold_for_both_arms(halved: Running) -> None:
    held, _ = await people(halved)
    limited = await send(halved, held, reasoning_effort="low")
    keyed = await send(halved, held, key="sk-low")

    for answer in (limited, keyed):
        assert answer.headers["x-thinkmeter-arm"] == "holdout"
        assert answer.headers["x-thinkmeter-tier"] == "short"


async def test_what_both_arms_would_get_is_outside_of_the_comparison(halved: Running) -> None:
    held, _ = await people(halved)
    for answer in (
        await send(halved, held, model="tiny:medium"),
        await send(halved, held, reasoning_effort="none"),
    ):
        assert "x-thinkmeter-arm" not in answer.headers


async def test_dry_run_log_and_rows_say_the_arm(backend: Backend, tmp_path: Path) -> None:
    async with serving(holding(backend, tmp_path)) as running:
        held, free = await people(running)
        told = [await send(running, user, path="/v1/route") for user in (held, free)]
        await send(running, held, model="tiny:short")
        assert running.gateway.evidence
        await running.gateway.evidence.stop()
        metrics = await running.metrics()

    assert [answer.json["decision"]["arm"] for answer in told] == ["holdout", "adaptive"]
    with sqlite3.connect(tmp_path / "evidence.db") as connection:
        rows = connection.execute("SELECT arm, conversation FROM decisions").fetchall()
    assert {arm for arm, _ in rows} == {"adaptive", "holdout", "none"}
    assert held not in json.dumps(rows)
    assert len({name for _, name in rows}) == 40
    held_out = 'thinkmeter_decisions_total{model="tiny",reason="holdout",tier="long"}'
    assert metrics[held_out] == sum(arm == "holdout" for arm, _ in rows)


async def test_without_a_holdout_no_response_names_an_arm(backend: Backend) -> None:
    async with serving(configuration(backend.url)) as running:
        assert "x-thinkmeter-arm" not in (await running.chat()).headers
