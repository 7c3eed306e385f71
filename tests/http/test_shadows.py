"""Shadow pairs: asked after the client's answer, under a budget of their own, never at a client's cost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.loader import parse
from gateway.evidence.shadows.drawing import shadow_limit
from gateway.snapshot import Snapshot
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.test_metrics import sample, scrape
from tests.redis import RealRedis
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")
SHADOW = {"share": 1, "against": "long", "budget": {"tokens": 1_000_000, "window": "1h"}}
CHAT = "/v1/chat/completions"


@pytest.fixture
def sections(redis_server: RealRedis, tmp_path: Path) -> dict[str, Any]:
    """Sections under which every request is asked again at the tier `long`; its own one is `direct`."""
    redis_server.client().flushall()
    return {
        "redis": {"url": redis_server.url},
        "evidence": {"file": str(tmp_path / "evidence.db")},
        "shadow": SHADOW,
        "price": 1000,
    }


@pytest.fixture
async def shadowed(backend: Backend, sections: dict[str, Any]) -> AsyncIterator[Running]:
    async with serving(configuration(backend.url, **sections)) as running:
        yield running


def rows(sections: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs in the store of a gateway that has stopped."""
    with sqlite3.connect(sections["evidence"]["file"]) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM shadow_pairs")]


def asked(backend: Backend) -> list[dict[str, Any]]:
    return [request.json for request in backend.requests if request.path == CHAT]


async def outcomes(running: Running, count: int = 1) -> dict[str, float]:
    """What became of the drawn requests, once there are so many."""
    async with asyncio.timeout(10):
        while True:
            found = {
                dict(labels)["outcome"]: value
                for (name, labels), value in (await scrape(running)).items()
                if name == "thinkmeter_shadow_requests_total"
            }
            if sum(found.values()) >= count:
                return found
            await asyncio.sleep(0.01)


async def spent(running: Running) -> int:
    """Tokens that the shadow budget counts, those reserved included."""
    settings = running.gateway.snapshot.settings
    assert settings.shadow
    limit = shadow_limit(settings.shadow.budget, settings.redis.prefix)
    store = running.gateway.ledger.store
    _, (state,) = await store.status([limit.window])
    return state.settled + state.reserved


@pytest.mark.parametrize("stream", [False, True])
async def test_pair(backend: Backend, sections: dict[str, Any], stream: bool) -> None:
    """The client's answer comes first. Then the other rung is asked, without a stream, and compared."""
    async with serving(configuration(backend.url, **sections)) as running:
        answer = await running.chat(stream=stream, temperature=0.5)
        assert await outcomes(running) == {"paired": 1}
        decision = answer.headers["x-thinkmeter-decision-id"]
        again = backend.requests[-1]

    first, second = asked(backend)
    assert first.get("stream", False) is stream
    assert not second.get("stream")
    assert "stream_options" not in second
    assert second["temperature"] == 0.5
    assert first["messages"] == second["messages"]
    assert second["thinking_token_budget"] == 256
    assert again.headers["x-request-id"] == f"shadow-{decision}"
    (row,) = rows(sections)
    assert row["decision"] == decision
    assert (row["served_rung"], row["served_thinking"], row["shadow_thinking"]) == (0, 0, 256)
    assert row["shadow_rung"] > 0
    assert (row["served_tokens"], row["shadow_tokens"]) == (32, 288)
    assert (row["grader"], row["served_score"], row["shadow_score"]) == ("agreement", 1, 1)
    assert row["note"] is None


async def test_client_has_its_answer_first(shadowed: Running, backend: Backend) -> None:
    """The request is asked again only when the whole answer has been written."""
    backend.script(Fault())
    backend.script(Fault(delay_ms=60_000))
    answer = await shadowed.chat()

    assert answer.status == 200
    await backend.wait_until(lambda b: len(asked(b)) == 2)
    assert len(await shadowed.recorded(1)) == 1
    assert await sample(shadowed, "shadow_in_flight") == 1


async def test_clients_figures_are_untouched(backend: Backend, sections: dict[str, Any]) -> None:
    """Neither budgets, nor tokens, nor latencies of clients have anything of a shadow request."""
    sections["budgets"] = [{"name": "b0", "window": "1m", "tokens": 100_000, "count": "total"}]
    async with serving(configuration(backend.url, **sections)) as running:
        answer = await running.chat()
        usage = (await answer.json())["usage"]
        assert await outcomes(running) == {"paired": 1}

        limit = running.gateway.snapshot.budgets.limits["b0", "*"]
        async with asyncio.timeout(10):
            while True:
                _, (state,) = await running.gateway.ledger.store.status([limit.window])
                if not state.reserved:
                    break
        assert state.settled == usage["total_tokens"]
        found = await scrape(running)
        totals: dict[str, float] = {}
        for (name, _), value in found.items():
            totals[name] = totals.get(name, 0) + value
        assert totals["thinkmeter_completion_tokens_sum"] == usage["completion_tokens"]
        assert totals["thinkmeter_decisions_total"] == 1
        took = await sample(running, "request_duration_seconds_count", route=CHAT, tier="direct")
        assert took == 1
        assert totals["thinkmeter_overhead_seconds_count"] == 1
        assert await sample(running, "shadow_tokens_total", model="tiny", type="completion") == 288
        assert [record.route for record in running.records].count(CHAT) == 1
        assert await spent(running) > 288


async def test_budget_is_strict(backend: Backend, sections: dict[str, Any]) -> None:
    """What does not fit as a whole is not asked: no shorter answer in its place, and nothing over."""
    sections["shadow"] = SHADOW | {"budget": {"tokens": 800, "window": "1h"}}
    async with serving(configuration(backend.url, **sections)) as running:
        for count in range(1, 6):
            assert (await running.chat()).status == 200
            found = await outcomes(running, count)
        assert found["paired"] >= 1
        assert found["budget"] >= 2
        assert found["paired"] + found["budget"] == 5
        assert await spent(running) <= 800


async def test_without_redis_nothing_is_asked(
    backend: Backend, sections: dict[str, Any], free_port: int
) -> None:
    sections["redis"] = {"url": f"redis://127.0.0.1:{free_port}"}
    async with serving(configuration(backend.url, **sections)) as running:
        assert (await running.chat()).status == 200
        assert await outcomes(running) == {"budget": 1}
    assert len(asked(backend)) == 1


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


async def test_tools_if_allowed(backend: Backend, sections: dict[str, Any]) -> None:
    """Calls of tools are not compared, and the row says why."""
    sections["shadow"] = SHADOW | {"tools": True}
    backend.default = Fault(tool_call=True)
    async with serving(configuration(backend.url, **sections)) as running:
        await running.chat(tools=TOOLS)
        assert await outcomes(running) == {"paired": 1}
    (row,) = rows(sections)
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
    monkeypatch.setattr("gateway.evidence.shadows.load.FEW", 1)
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
    await shadowed.chat()
    assert await outcomes(shadowed) == {"crowded": 1}


async def test_fails_over(backend: Backend, sections: dict[str, Any]) -> None:
    """It goes through the replicas of the model as any request does."""
    async with serving(configuration(backend.url, backend.url, **sections)) as running:
        backend.script(Fault())
        backend.script(Fault(status=503))
        await running.chat()
        assert await outcomes(running) == {"paired": 1}
    assert len(asked(backend)) == 3


async def test_backend_that_fails(shadowed: Running, backend: Backend) -> None:
    backend.script(Fault())
    backend.script(Fault(status=500))
    await shadowed.chat()
    assert await outcomes(shadowed) == {"failed": 1}


def reloaded(running: Running, settings: dict[str, Any], digest: str = "again") -> None:
    running.gateway.reload(Snapshot.build(parse(yaml.safe_dump(settings), {}), digest))


async def test_a_reload_stops_them(shadowed: Running, backend: Backend, sections: dict[str, Any]) -> None:
    backend.script(Fault())
    backend.script(Fault(delay_ms=60_000))
    await shadowed.chat()
    await backend.wait_until(lambda b: len(asked(b)) == 2)
    reloaded(shadowed, configuration(backend.url, **{k: v for k, v in sections.items() if k != "shadow"}))

    assert await outcomes(shadowed) == {"stopped": 1}
    await shadowed.chat()
    assert not shadowed.records[-1].shadow


async def test_a_drain_drops_them(backend: Backend, sections: dict[str, Any]) -> None:
    """The gateway does not wait for them when it ends."""
    async with serving(configuration(backend.url, **sections)) as running:
        backend.script(Fault())
        backend.script(Fault(delay_ms=60_000))
        await running.chat()
        await backend.wait_until(lambda b: len(asked(b)) == 2)
    assert rows(sections) == []
    await backend.wait_until(lambda b: b.aborted)


async def test_same_rung_makes_no_pair(backend: Backend, sections: dict[str, Any]) -> None:
    sections["shadow"] = SHADOW | {"against": "direct"}
    async with serving(configuration(backend.url, **sections)) as running:
        await running.chat()
        assert await outcomes(running) == {"same": 1}
    assert len(asked(backend)) == 1


async def test_previous_head(backend: Backend, sections: dict[str, Any], monkeypatch: Any) -> None:
    """Without a change of the head there is nothing to compare with. Then the head before decides."""
    sections["shadow"] = SHADOW | {"against": "previous_head"}
    settings = configuration(backend.url, **sections)
    async with serving(settings) as running:
        await running.chat()
        assert await outcomes(running) == {"same": 1}
        reloaded(running, settings | {"head": "general"}, "2")
        previous = running.gateway.snapshot.previous_head
        assert previous is not None
        assert previous.predictor.version != running.gateway.snapshot.router.predictor.version
        reloaded(running, settings | {"head": "general", "exploration": 0.01}, "3")
        assert running.gateway.snapshot.previous_head is previous


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


async def test_judge(backend: Backend, sections: dict[str, Any]) -> None:
    """Blind, in both orders, and its tokens count."""
    async with Backend("judge") as judge:
        said = {"role": "assistant", "content": "VERDICT: 1"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        judge.default = Fault(
            body={"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}
        )
        sections["shadow"] = SHADOW | {"grade": "judge", "judge": {"url": judge.url, "model": "judge"}}
        async with serving(configuration(backend.url, **sections)) as running:
            backend.script(Fault(tokens=3))
            backend.script(Fault(tokens=9))
            await running.chat()
            assert await outcomes(running) == {"paired": 1}
            assert await sample(running, "shadow_tokens_total", model="tiny", type="judge") == 220
        texts = [json.dumps(request.json) for request in judge.requests if request.path == CHAT]
    assert len(texts) == 2
    assert not any(word in text for text in texts for word in ("long", "direct", "rung"))
    (row,) = rows(sections)
    assert (row["served_score"], row["shadow_score"], row["flipped"]) == (0.5, 0.5, 1)


async def test_judge_that_answers_nonsense(backend: Backend, sections: dict[str, Any]) -> None:
    """A row without a score, and the reason."""
    async with Backend("judge") as judge:
        sections["shadow"] = SHADOW | {"grade": "judge", "judge": {"url": judge.url, "model": "judge"}}
        async with serving(configuration(backend.url, **sections)) as running:
            backend.script(Fault(tokens=3))
            await running.chat()
            assert await outcomes(running) == {"paired": 1}
    (row,) = rows(sections)
    assert (row["served_score"], row["shadow_score"], row["flipped"]) == (None, None, None)
    assert "verdict" in row["note"]


async def test_log_says_so(backend: Backend, sections: dict[str, Any]) -> None:
    from gateway.telemetry.access_log import access_line

    async with serving(configuration(backend.url, **sections)) as running:
        await running.chat()
        record = (await running.recorded(1))[0]
    assert json.loads(access_line(record))["shadow"] is True
