"""What a backend that refuses fields gets instead: other tiers, and one field less after the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, asked, post, replicated
from tests.serving import Running, configuration, serving

CAP, BUDGET = "max_completion_tokens", "thinking_token_budget"
MESSAGE = "thinking_token_budget is set but reasoning_config is not configured."
NO_BUDGET = Fault(status=400, message=MESSAGE, refuses=BUDGET)


def sent(backend: Backend, name: str) -> list[Any]:
    return [request.json.get(name) for request in asked(backend)]


@pytest.mark.parametrize("stream", [False, True])
async def test_short_thoughts_without_a_budget(running: Running, backend: Backend, stream: bool) -> None:
    """Where nothing ends a thought, a tier that is too short for one does not think."""
    backend.default = NO_BUDGET
    for _ in range(2):
        answer = await post(running, ask(model="tiny:short", stream=stream))
        assert (answer.status, answer.headers["x-thinkmeter-thinking-budget"]) == (200, "0")

    switches = [template["enable_thinking"] for template in sent(backend, "chat_template_kwargs")]
    assert (sent(backend, BUDGET), switches) == ([16, None, None], [True, False, False])
    assert sent(backend, CAP) == [48, 48, 32]


async def test_no_rungs_without_a_budget(backend: Backend) -> None:
    """While all replicas that can be picked refuse budgets, only named tiers are chosen."""
    backend.default = NO_BUDGET
    async with serving(configuration(backend.url, model={"rungs": 9})) as running:
        await post(running, ask(model="tiny:long"))
        for limit in (20, 100, 200):
            await post(running, ask(model="tiny", thinking={"type": "enabled", "budget_tokens": limit}))
        # a limit that cuts every thought that is worth having switches it off
        assert all(record.decision.thinking in {0, 64, 256} for record in running.records if record.decision)

        backend.script(Fault(status=503), path="/health")
        for _ in range(2):
            await running.gateway.health.check()
        backend.default = Fault()
        await post(running, ask(model="tiny:short"))
        assert sent(backend, BUDGET)[1:] == [None] * 4 + [16]


async def test_rungs_where_one_replica_takes_budgets() -> None:
    """As long as a replica takes budgets, they are planned; the others do not get short thoughts."""
    async with replicated() as (running, (a, b)):
        a.default = NO_BUDGET
        for _ in range(4):
            await post(running, ask(model="tiny:short"))

        switches = [template["enable_thinking"] for template in sent(a, "chat_template_kwargs")]
        assert (sent(a, BUDGET), switches) == ([16, None, None], [True, False, False])
        assert sent(b, BUDGET) == [16, 16]


async def test_fields_refused_one_by_one(running: Running, backend: Backend) -> None:
    """A backend that names only the first field that it does not take is asked until it takes all others."""
    taken = {"model", "messages", "max_tokens"}

    for _ in range(2):
        backend.requests.clear()
        unknown = [BUDGET, "chat_template_kwargs", CAP]
        backend.default = Fault()
        if not running.records:
            for name in unknown:
                backend.script(Fault(status=400, message=f"Unknown parameter: {name!r}"))
        assert (await post(running, ask(model="tiny:long"))).status == 200
        assert asked(backend)[-1].json.keys() == taken
    assert len(asked(backend)) == 1


async def test_asks_at_most_four_times_more(running: Running, backend: Backend) -> None:
    """A backend that refuses whatever it is sent is soon left alone."""
    names = [BUDGET, "enable_thinking", "include_usage", CAP, "stream_options"]
    for name in names:
        backend.script(Fault(status=400, message=f"Unknown parameter: {name!r}"))

    assert (await post(running, ask(model="tiny:long", stream=True))).status == 400
    assert len(asked(backend)) == 5
