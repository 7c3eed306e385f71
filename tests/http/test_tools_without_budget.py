"""Requests with tools or a schema: no thinking budget is sent that could end up inside the answer."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.telemetry.access_log import access_line
from tests.fakes.backend import Backend
from tests.http.wire import ask, asked, post, post_recorded
from tests.serving import Running, configuration, serving

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
ON, OFF = {"enable_thinking": True}, {"enable_thinking": False}
SENT = "x-thinkmeter-thinking-budget-sent"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "required", "stream": True},
        {"response_format": SCHEMA},
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"guided_json": {"type": "object"}},
    ],
)
async def test_no_budget(running: Running, backend: Backend, fields: dict[str, Any]) -> None:
    """The tier thinks within its token limit, and header, record and log say that no budget was sent."""
    answer, record = await post_recorded(running, ask(model="tiny:long", **fields))
    body = asked(backend)[-1].json

    assert "thinking_token_budget" not in body
    assert (body["chat_template_kwargs"], body["max_completion_tokens"]) == (ON, 288)
    assert (answer.headers["x-thinkmeter-tier"], answer.headers[SENT]) == ("long", "no")
    assert not record.sends_thinking_budget
    assert b'"budget_sent":false' in access_line(record)


@pytest.mark.parametrize(
    "fields", [{"tools": [TOOL], "tool_choice": "none"}, {"response_format": {"type": "text"}}]
)
async def test_budget_with_plain_answers(running: Running, backend: Backend, fields: dict[str, Any]) -> None:
    """Tools that may not be called and plain text keep the budget."""
    answer, record = await post_recorded(running, ask(model="tiny:long", **fields))

    assert asked(backend)[-1].json["thinking_token_budget"] == 256
    assert SENT not in answer.headers
    assert b'"budget_sent":true' in access_line(record)


async def test_brief_thought_is_switched_off(running: Running, backend: Backend) -> None:
    """A tier that thinks less than it answers does not think, as nothing could end its thought in time."""
    answer = await post(running, ask(model="tiny:short", tools=[TOOL]))
    body = asked(backend)[-1].json

    assert (body["chat_template_kwargs"], body["max_completion_tokens"]) == (OFF, 32)
    assert answer.headers["x-thinkmeter-thinking-budget"] == "0"
    assert (answer.headers["x-thinkmeter-tier"], SENT in answer.headers) == ("short", False)


async def test_small_limit_switches_thinking_off(running: Running, backend: Backend) -> None:
    """Under a client's small `max_tokens` an unbounded thought could leave no answer, so there is none."""
    await post(running, ask(model="tiny:long", tools=[TOOL], max_tokens=100))
    body = asked(backend)[-1].json

    assert (body["chat_template_kwargs"], body["max_completion_tokens"]) == (OFF, 32)


async def test_floor_still_thinks(backend: Backend) -> None:
    """A floor guarantees thinking with tools, too."""
    async with serving(configuration(backend.url, model={"floor": "short"})) as running:
        await post(running, ask(reasoning_effort="none", tools=[TOOL]))
    body = asked(backend)[-1].json

    assert (body["chat_template_kwargs"], body["max_completion_tokens"]) == (ON, 48)
    assert "thinking_token_budget" not in body


async def test_model_whose_backend_survives_it(backend: Backend) -> None:
    """With `budget_with_tools: true` requests with tools get the budget of their rung."""
    async with serving(configuration(backend.url, model={"budget_with_tools": True})) as running:
        answer, record = await post_recorded(running, ask(model="tiny:short", tools=[TOOL]))

    assert asked(backend)[-1].json["thinking_token_budget"] == 16
    assert record.sends_thinking_budget
    assert SENT not in answer.headers


async def test_unenforced_budget_is_not_judged(running: Running, backend: Backend) -> None:
    """A backend that was sent no budget neither honours nor ignores one."""
    await post_recorded(running, ask(model="tiny:long", tools=[TOOL]))
    found = await running.metrics()

    assert not [name for name in found if name.startswith("thinkmeter_thinking_budget_total")]
