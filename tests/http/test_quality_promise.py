"""The promise of quality in a running gateway: the safest tier acts until a price is certified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.evidence.quality_promise import looking
from gateway.evidence.quality_promise.looking import PromiseLook
from gateway.evidence.rows import Row
from gateway.routing.decision import Rungs
from gateway.routing.promised import Promised
from tests.evidence import made
from tests.evidence.made import eventually_async
from tests.fakes.backend import Backend
from tests.http.shadowing import asked, outcomes, rows
from tests.http.shadowing import reloaded as reloaded_with
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")


def history(running: Running, price: float, number: int = 1_500) -> Iterator[Row]:
    """Pairs whose two answers are always equally good. Their clients got the longest rung."""
    router = running.gateway.snapshot.router
    ladder, head = router.targets["tiny"].ladder, router.versions["head"]
    top = len(ladder.thinking) - 1
    correct = tuple(0.5 + 0.001 * rung for rung in range(top + 1))
    tokens = tuple(10.0 * (rung + 1) for rung in range(top + 1))
    rungs = msgspec.json.encode(Rungs(ladder.thinking, correct, tokens, ladder.named, 0, top))
    at = time.time() - number
    for n in range(number):
        fixed = {"head": head, "reason": "uncertified", "price": price, "rung": top, "rungs": rungs}
        yield made.decision(n, at=at + n, **fixed)
        yield made.shadow(n, at=at + n, head=head, served_rung=top, shadow_rung=0)


def promise_look(running: Running) -> PromiseLook:
    assert running.gateway.evidence
    return running.gateway.evidence.promise


async def looked(running: Running, new: Iterator[Row] | None = None) -> None:
    """The rows are in the store, and the gateway has looked at all of it."""
    assert running.gateway.evidence
    writer = running.gateway.evidence.writer
    await promise_look(running).stop()
    await eventually_async(lambda: writer.engine)
    before = sum(writer.written.values())
    number = sum([writer.put(row) for row in new or ()])
    await eventually_async(lambda: sum(writer.written.values()) >= before + number)
    await promise_look(running).look()


async def decided(running: Running) -> tuple[str, str, float]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    async with running.http.post(f"{running.url}/v1/route", json=body) as reply:
        found = (await reply.json())["decision"]
    return found["tier"], found["reason"], found["price"]


async def told_in_console(running: Running) -> list[str]:
    async with running.http.get(f"{running.url}/console/quality") as reply:
        told: list[str] = (await reply.json())["promises"]
    return told


def promising(shadow_sections: dict[str, Any], **quality: Any) -> dict[str, Any]:
    return shadow_sections | {"quality": quality}


async def test_price_acts_once_it_is_certified(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """Also after a reload, but not while an alarm of drift stands, and then on newer pairs only."""
    async with serving(configuration(backend.url, **promising(shadow_sections))) as running:
        gateway = running.gateway
        await looked(running)
        before, said = await decided(running), await told_in_console(running)
        await looked(running, history(running, 1000.0))
        after, then = await decided(running), await told_in_console(running)
        gateway.reload(gateway.snapshot)
        reloaded = await decided(running)
        promise_look(running)._fallen = lambda: frozenset({"tiny"})
        await looked(running)
        fallen = await decided(running)
        promise_look(running)._fallen = frozenset
        await looked(running)
        later = await decided(running)

    assert before[:2] == ("long", "uncertified")
    assert said[0].startswith("quality: tiny: not certified, so that long acts: about")
    assert after[0] == reloaded[0] == "direct"
    assert after[1] != "uncertified"
    assert then == ["quality: tiny: certified at the configured price 1000"]
    assert fallen[:2] == later[:2] == ("long", "uncertified")


async def test_another_price_starts_anew(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """What was certified holds for the configured price only."""
    sections = promising(shadow_sections)
    async with serving(configuration(backend.url, **sections)) as running:
        await looked(running, history(running, 1000.0))
        before = await decided(running)
        reloaded_with(running, configuration(backend.url, **sections | {"price": 900}))
        after = await decided(running)

    assert before[1] != "uncertified"
    assert after[:2] == ("long", "uncertified")


async def test_no_price_is_above_the_certified_one(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """The decision names the price that it was made at."""
    async with serving(configuration(backend.url, **promising(shadow_sections))) as running:
        await promise_look(running).stop()
        running.gateway.snapshot.router.promised = Promised("long", {"tiny": 0.005})
        _, reason, price = await decided(running)

    assert reason != "uncertified"
    assert price == 0.005


async def test_configured_price_acts_if_wanted(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """Then it is only told what is certified."""
    async with serving(configuration(backend.url, **promising(shadow_sections, until="price"))) as running:
        await looked(running)
        tier, reason, _ = await decided(running)
        said = await told_in_console(running)

    assert tier == "direct"
    assert reason != "uncertified"
    assert "so that the configured price acts" in said[0]


async def test_held_request_is_asked_again_at_the_rung_of_a_price(
    backend: Backend, shadow_sections: dict[str, Any]
) -> None:
    """So that the price is tested before it acts."""
    async with serving(configuration(backend.url, **promising(shadow_sections))) as running:
        answer = await running.chat()
        assert answer.headers["x-thinkmeter-reason"] == "uncertified"
        assert await outcomes(running) == {"paired": 1}

    first, second = asked(backend)
    assert first["thinking_token_budget"] == 256
    assert second.get("thinking_token_budget") != 256
    (row,) = rows(shadow_sections)
    assert (row["served_thinking"], row["shadow_rung"]) == (256, 0)


async def test_change_is_looked_at_at_once(
    backend: Backend, shadow_sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only when the next look is due."""
    monkeypatch.setattr(looking, "_TICK", 0.01)
    sections = promising(shadow_sections)
    async with serving(configuration(backend.url, **sections)) as running:
        look = promise_look(running)
        await eventually_async(lambda: look.found)
        reloaded_with(running, configuration(backend.url, **sections | {"price": 900}))
        await eventually_async(lambda: look.found[0].wanted == 900)
