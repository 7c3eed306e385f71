"""Shadow pairs: what is asked again, what is kept of it, and that no client pays for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.telemetry.access_log import access_line
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.shadowing import CHAT, SHADOW, asked, outcomes, reloaded, rows, spent
from tests.http.test_metrics import sample, scrape
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")


@pytest.mark.parametrize("stream", [False, True])
async def test_pair(backend: Backend, shadow_sections: dict[str, Any], stream: bool) -> None:
    """The client's answer comes first. Then the other rung is asked, without a stream, and compared."""
    async with serving(configuration(backend.url, **shadow_sections)) as running:
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
    (row,) = rows(shadow_sections)
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


async def test_clients_figures_are_untouched(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """Neither budgets, nor tokens, nor latencies of clients have anything of a shadow request."""
    shadow_sections["budgets"] = [{"name": "b0", "window": "1m", "tokens": 100_000, "count": "total"}]
    async with serving(configuration(backend.url, **shadow_sections)) as running:
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
        assert await sample(running, "shadow_requests_total", model="tiny", outcome="paired") == 1
        assert [record.route for record in running.records].count(CHAT) == 1
        assert await spent(running) > 288


async def test_budget_is_strict(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """What does not fit as a whole is not asked: no shorter answer in its place, and nothing over."""
    shadow_sections["shadow"] = SHADOW | {"budget": {"tokens": 800, "window": "1h"}}
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        for count in range(1, 6):
            assert (await running.chat()).status == 200
            found = await outcomes(running, count)
        assert found["paired"] >= 1
        assert found["budget"] >= 2
        assert found["paired"] + found["budget"] == 5
        assert await spent(running) <= 800


async def test_without_redis_nothing_is_asked(
    backend: Backend, shadow_sections: dict[str, Any], free_port: int
) -> None:
    shadow_sections["redis"] = {"url": f"redis://127.0.0.1:{free_port}"}
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        assert (await running.chat()).status == 200
        assert await outcomes(running) == {"budget": 1}
    assert len(asked(backend)) == 1


async def test_fails_over(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """It goes through the replicas of the model as any request does."""
    async with serving(configuration(backend.url, backend.url, **shadow_sections)) as running:
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


async def test_same_rung_makes_no_pair(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    shadow_sections["shadow"] = SHADOW | {"against": "direct"}
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        await running.chat()
        assert await outcomes(running) == {"same": 1}
    assert len(asked(backend)) == 1


async def test_previous_head(backend: Backend, shadow_sections: dict[str, Any], monkeypatch: Any) -> None:
    """Without a change of the head there is nothing to compare with. Then the head before decides."""
    shadow_sections["shadow"] = SHADOW | {"against": "previous_head"}
    settings = configuration(backend.url, **shadow_sections)
    async with serving(settings) as running:
        await running.chat()
        assert await outcomes(running) == {"same": 1}
        reloaded(running, settings | {"head": "general"}, "2")
        previous = running.gateway.snapshot.previous_head
        assert previous is not None
        assert previous.predictor.version != running.gateway.snapshot.router.predictor.version
        reloaded(running, settings | {"head": "general", "exploration": 0.01}, "3")
        assert running.gateway.snapshot.previous_head is previous


async def test_judge(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """Blind, in both orders, and its tokens count."""
    async with Backend("judge") as judge:
        said = {"role": "assistant", "content": "VERDICT: 1"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        judge.default = Fault(
            body={"choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}
        )
        shadow_sections["shadow"] = SHADOW | {"grade": "judge", "judge": {"url": judge.url, "model": "judge"}}
        async with serving(configuration(backend.url, **shadow_sections)) as running:
            backend.script(Fault(tokens=3))
            backend.script(Fault(tokens=9))
            await running.chat()
            assert await outcomes(running) == {"paired": 1}
            assert await sample(running, "shadow_tokens_total", model="tiny", type="judge") == 220
        texts = [json.dumps(request.json) for request in judge.requests if request.path == CHAT]
    assert len(texts) == 2
    assert not any(word in text for text in texts for word in ("long", "direct", "rung"))
    (row,) = rows(shadow_sections)
    assert (row["served_score"], row["shadow_score"], row["flipped"]) == (0.5, 0.5, 1)


async def test_judge_that_answers_nonsense(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    """A row without a score, and the reason."""
    async with Backend("judge") as judge:
        shadow_sections["shadow"] = SHADOW | {"grade": "judge", "judge": {"url": judge.url, "model": "judge"}}
        async with serving(configuration(backend.url, **shadow_sections)) as running:
            backend.script(Fault(tokens=3))
            await running.chat()
            assert await outcomes(running) == {"paired": 1}
    (row,) = rows(shadow_sections)
    assert (row["served_score"], row["shadow_score"], row["flipped"]) == (None, None, None)
    assert "verdict" in row["note"]


async def test_log_says_so(backend: Backend, shadow_sections: dict[str, Any]) -> None:
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        await running.chat()
        record = (await running.recorded(1))[0]
    assert json.loads(access_line(record))["shadow"] is True
