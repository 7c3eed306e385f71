"""Which requests are never asked again, and when those under way are stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.shadowing import CHAT, SHADOW, asked, outcomes, reloaded, rows
from tests.http.test_metrics import sample
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")


TOOLS = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}]
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS},
        {"functions": [TOOLS[0]["function"]]},
        {"n": 2},
        {"logprobs": True},
        {"model": "tiny:short"},
        {"content": IMAGE},
        {"content": "x" * 300_000},
    ],
    ids=["tools", "functions", "n", "logprobs", "pinned", "image", "large"],
)
async def test_never_drawn(shadowed: Running, backend: Backend, fields: dict[str, Any]) -> None:
    """`/v1/route` says so, and the log too."""
    content = fields.pop("content", "hello")
    assert (await shadowed.chat(content, **fields)).status == 200
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}]} | fields
    async with shadowed.http.post(f"{shadowed.url}/v1/route", json=body) as response:
        assert (await response.json())["shadow"] is None

    assert not (await shadowed.recorded(1))[0].shadow
    assert await sample(shadowed, "shadow_requests_total", model="tiny", outcome="paired") is None


async def test_other_endpoints(shadowed: Running, backend: Backend) -> None:
    for path, fields in (("completions", {"prompt": "x"}), ("embeddings", {"input": "x"})):
        async with shadowed.http.post(f"{shadowed.url}/v1/{path}", json={"model": "tiny"} | fields) as answer:
            await answer.read()
    assert not any(record.shadow for record in shadowed.records)


async def test_tools_if_allowed(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """Calls of tools are not compared, and the row says why."""
    shadow_sections["shadow"] = SHADOW | {"tools": True}
    backend.default = Fault(tool_call=True)
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        await running.chat(tools=TOOLS)
        assert await outcomes(running) == {"paired": 1}
    (row,) = rows(shadow_sections)
    assert (row["served_score"], row["shadow_score"]) == (None, None)
    assert "tools" in row["note"]


async def test_shown_before_it_happens(shadowed: Running) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    async with shadowed.http.post(f"{shadowed.url}/v1/route", json=body) as response:
        assert (await response.json())["shadow"] == {"share": 1, "against": "long"}


@pytest.mark.parametrize(
    "fault", [Fault(after=3, end="cut"), Fault(status=500), Fault(after=2, error="boom")], ids=str
)
async def test_no_pair_without_an_answer(shadowed: Running, backend: Backend, fault: Fault) -> None:
    backend.default = fault
    await shadowed.chat(stream=True)
    assert await outcomes(shadowed) == {"unanswered": 1}


async def test_client_that_leaves(shadowed: Running, backend: Backend) -> None:
    backend.script(Fault(after=1, end="stall"))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with shadowed.http.post(shadowed.url + CHAT, json=body) as response:
        await response.content.readany()
        response.close()
    assert await outcomes(shadowed) == {"unanswered": 1}
    assert len(asked(backend)) == 1


async def test_clients_go_first(shadowed: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the load rises, those under way are cancelled, at the backend too; and no others begin."""
    monkeypatch.setattr("gateway.evidence.shadows.load.FEW_CLIENTS", 1)
    backend.script(Fault())
    backend.default = Fault(delay_ms=60_000)
    await shadowed.chat()
    await backend.wait_until(lambda b: len(asked(b)) == 2)
    clients = [asyncio.create_task(shadowed.chat()) for _ in range(2)]
    try:
        await backend.wait_until(lambda b: b.aborted)
        assert await outcomes(shadowed) == {"load": 1}
        assert backend.aborted[0].json["thinking_token_budget"] == 256
        assert backend.in_flight == 2
    finally:
        for client in clients:
            client.cancel()


async def test_few_at_once(shadowed: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.evidence.shadows.shadows._AT_ONCE", 1)
    backend.script(Fault())
    backend.script(Fault(delay_ms=60_000))
    await shadowed.chat()
    await backend.wait_until(lambda b: len(asked(b)) == 2)
    await shadowed.chat()
    assert await outcomes(shadowed) == {"crowded": 1}


async def test_tight_budgets(
    backend: Backend, shadow_sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair under way ends when a budget of the client's request gets tight; no other is drawn."""
    shadow_sections["budgets"] = [{"name": "b0", "window": "1m", "tokens": 100_000}]
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        backend.script(Fault())
        backend.script(Fault(delay_ms=60_000))
        await running.chat()
        await backend.wait_until(lambda b: len(asked(b)) == 2)
        limit = running.gateway.snapshot.budgets.limits["b0", "*"]
        monkeypatch.setattr(running.gateway.ledger.pricing, "tight", lambda limits: limits == (limit,))
        assert await outcomes(running) == {"tight": 1}
        await running.chat()
        assert not running.records[-1].shadow


async def test_shortened_by_a_budget(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """Clients have too few tokens then, so that nothing is asked besides."""
    shadow_sections["budgets"] = [{"name": "b0", "window": "1h", "tokens": 100}]
    sections = shadow_sections | {"price": 0, "reservations": {"shortest_answer": 16}}
    async with serving(configuration(backend.url, **sections)) as running:
        answer = await running.chat()
        assert answer.headers["x-thinkmeter-reason"] == "budget"
        assert await outcomes(running) == {"tight": 1}


async def test_a_reload_stops_them(
    shadowed: Running, backend: Backend, shadow_sections: dict[str, Any]
) -> None:
    backend.script(Fault())
    backend.script(Fault(delay_ms=60_000))
    await shadowed.chat()
    await backend.wait_until(lambda b: len(asked(b)) == 2)
    reloaded(
        shadowed, configuration(backend.url, **{k: v for k, v in shadow_sections.items() if k != "shadow"})
    )

    assert await outcomes(shadowed) == {"stopped": 1}
    await shadowed.chat()
    assert not shadowed.records[-1].shadow


async def test_a_drain_drops_them(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """The gateway does not wait for them when it ends."""
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        backend.script(Fault())
        backend.script(Fault(delay_ms=60_000))
        await running.chat()
        await backend.wait_until(lambda b: len(asked(b)) == 2)
    assert rows(shadow_sections) == []
    await backend.wait_until(lambda b: b.aborted)


async def test_many_clients_memory(shadowed: Running, backend: Backend) -> None:
    """Nothing is kept of requests that have ended, however they did."""
    for fault in (Fault(), Fault(), Fault(status=500), Fault(after=3, end="cut")):
        backend.default = fault
        await shadowed.chat("x" * 1000, stream=True)
    backend.default = Fault()
    await outcomes(shadowed, 4)
    shadows = shadowed.gateway.pipeline.shadows
    assert shadows is not None
    async with asyncio.timeout(10):
        while shadows._running:
            await asyncio.sleep(0.01)
    assert len(shadows._drawn) == 0
