"""The operator's rules over HTTP: conditions, floors, ceilings, fixed tiers, and which of them wins."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import Answer, ask
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
GENEROUS, MISERLY = 0.0, 1000.0
"""Prices at which the price alone would always choose the longest or the shortest tier."""
KEYS = [{"name": "team-a", "key": "sk-a"}, {"name": "team-b", "key": "sk-b"}]


def ruled(url: str, *rules: dict[str, Any], price: float = MISERLY, **changes: Any) -> dict[str, Any]:
    named = [{"name": f"rule-{i}"} | rule for i, rule in enumerate(rules)]
    return configuration(url, rules=named, price=price, **changes)


async def chat(running: Running, body: dict[str, Any] | None = None, **headers: str) -> Answer:
    body = {"model": "tiny", "messages": HELLO} | (body or {})
    answer = await ask(running.http, running.url, CHAT, body, **headers)
    assert answer.status == 200, answer
    return answer


def decided(answer: Answer) -> tuple[str, str]:
    """The tier and the reason in the response's headers."""
    return answer.headers["x-thinkmeter-tier"], answer.headers["x-thinkmeter-reason"]


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


CONDITIONS: list[
    tuple[str, dict[str, Any], dict[str, Any], dict[str, str], dict[str, Any], dict[str, str]]
] = [
    # name, `when`, a body that matches and its headers, a body that does not match and its headers
    ("key", {"key": ["team-a"]}, {}, {"x_api_key": "sk-a"}, {}, {"x_api_key": "sk-b"}),
    ("model", {"model": ["tiny"]}, {"model": "tiny"}, {}, {"model": "other"}, {}),
    ("header", {"header": {"X-Team": "law"}}, {}, {"x_team": "law"}, {}, {"x_team": "Law"}),
    ("header missing", {"header": {"X-Team": "law"}}, {}, {"X_TEAM": "law"}, {}, {}),
    (
        "metadata",
        {"metadata": {"importance": "high", "app": "x"}},
        {"metadata": {"importance": "high", "app": "x", "more": "y"}},
        {},
        {"metadata": {"importance": "high"}},
        {},
    ),
    ("metadata null", {"metadata": {"a": "1"}}, {"metadata": {"a": "1"}}, {}, {"metadata": None}, {}),
    ("metadata odd", {"metadata": {"a": "1"}}, {"metadata": {"a": "1"}}, {}, {"metadata": {"a": 1}}, {}),
    ("prompt", {"prompt": r"(?i)\bcontract\b"}, user("This CONTRACT holds"), {}, user("contractor"), {}),
    (
        "prompt in parts",
        {"prompt": "contract"},
        user([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "a contract"}]),
        {},
        user([{"type": "image_url", "image_url": {"url": "contract"}}]),
        {},
    ),
    (
        "prompt of the system",
        {"prompt": "lawyer"},
        {"messages": [{"role": "system", "content": "You are a lawyer"}, *HELLO]},
        {},
        {},
        {},
    ),
    ("tools", {"tools": True}, {"tools": [TOOL]}, {}, {"tools": []}, {}),
    ("no tools", {"tools": False}, {}, {}, {"tools": [TOOL]}, {}),
    (
        "all together",
        {"header": {"x-team": "law"}, "tools": True},
        {"tools": [TOOL]},
        {"x_team": "law"},
        {"tools": [TOOL]},
        {},
    ),
]


@pytest.mark.parametrize(
    ("when", "fits", "fitting", "differs", "differing"),
    [pytest.param(*case[1:], id=case[0]) for case in CONDITIONS],
)
async def test_condition(
    backend: Backend,
    when: dict[str, Any],
    fits: dict[str, Any],
    fitting: dict[str, str],
    differs: dict[str, Any],
    differing: dict[str, str],
) -> None:
    """A rule applies to requests that meet its condition, and to no others."""
    settings = ruled(backend.url, {"when": when, "tier": "medium"}, model={"served_name": "tiny"})
    settings["models"]["other"] = settings["models"]["tiny"]
    settings["keys"] = KEYS if "key" in when else []
    async with serving(settings) as running:
        assert decided(await chat(running, fits, **fitting)) == ("medium", "rule_tier")
        assert running.records[-1].decision.rule == "rule-0"  # type: ignore[union-attr]
        assert decided(await chat(running, differs, **differing)) == ("direct", "price")
        assert running.records[-1].decision.rule is None  # type: ignore[union-attr]


async def test_rule_without_condition_holds_for_all(backend: Backend) -> None:
    """A rule without `when` applies to all requests."""
    async with serving(ruled(backend.url, {"floor": "short"})) as running:
        assert decided(await chat(running)) == ("short", "rule_floor")
        assert decided(await chat(running, {"tools": [TOOL]})) == ("short", "rule_floor")


LOW_LIMITS: list[dict[str, Any]] = [
    {"reasoning_effort": "none"},
    {"reasoning_effort": "minimal", "max_completion_tokens": 1},
    {"max_tokens": 1},
    {"max_completion_tokens": 16},
    {"thinking": {"type": "disabled"}},
    {"reasoning": {"enabled": False}},
    {"reasoning": {"max_tokens": 1}},
    {"thinking_token_budget": 0},
    {"thinking_token_budget": 1, "max_tokens": 1},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"chat_template_kwargs": {"thinking_budget": 0}},
    {"model": "tiny:direct"},
    {"model": "tiny:short", "max_tokens": 1, "reasoning_effort": "none"},
]


@pytest.mark.parametrize("limits", LOW_LIMITS, ids=str)
@pytest.mark.parametrize("by", ["model", "rule"])
async def test_guaranteed_minimum_reasoning_length(backend: Backend, by: str, limits: dict[str, Any]) -> None:
    """No client limit, in any dialect, takes the thinking budget below that of the floor."""
    rules = [{"floor": "medium"}] if by == "rule" else []
    settings = ruled(backend.url, *rules, model={"floor": "medium"} if by == "model" else {})
    async with serving(settings) as running:
        answer = await chat(running, limits)

    sent = backend.requests[-1].json
    assert answer.headers["x-thinkmeter-tier"] == "medium"
    assert answer.headers["x-thinkmeter-reason"] == f"{by}_floor"
    assert sent["thinking_token_budget"] >= 64
    assert sent["chat_template_kwargs"]["enable_thinking"] is True
    assert sent["max_completion_tokens"] > sent["thinking_token_budget"]
    assert int(answer.headers["x-thinkmeter-thinking-budget"]) == sent["thinking_token_budget"]
    assert not {"reasoning", "thinking", "reasoning_effort", "max_tokens"} & set(sent)
    assert "thinking_budget" not in sent["chat_template_kwargs"]


@pytest.mark.parametrize("limits", [{}, *LOW_LIMITS], ids=str)
async def test_important_requests_are_always_long(backend: Backend, limits: dict[str, Any]) -> None:
    """A rule with a fixed tier gives important requests the long tier, whatever the price and the client."""
    settings = ruled(
        backend.url,
        {"name": "important", "when": {"metadata": {"importance": "high"}}, "tier": "long"},
        {"ceiling": "short"},
    )
    async with serving(settings) as running:
        important = await chat(running, limits | {"metadata": {"importance": "high"}})
        sent = backend.requests[-1].json
        other = await chat(running, limits)

    assert decided(important) == ("long", "rule_tier")
    assert sent["thinking_token_budget"] == 256
    assert other.headers["x-thinkmeter-tier"] in ("direct", "short")


@pytest.mark.parametrize(
    ("rules", "body", "price", "expected"),
    [
        ([{"tier": "short"}, {"floor": "long"}, {"ceiling": "direct"}], {}, GENEROUS, ("short", "rule_tier")),
        ([{"tier": "short"}, {"tier": "long"}], {}, GENEROUS, ("short", "rule_tier")),
        ([{"tier": "short"}], {"model": "tiny:long"}, GENEROUS, ("short", "rule_tier")),
        ([{"floor": "medium"}, {"ceiling": "short"}], {}, MISERLY, ("medium", "rule_floor")),
        ([{"floor": "medium"}, {"ceiling": "short"}], {}, GENEROUS, ("medium", "rule_floor")),
        ([{"floor": "short"}, {"floor": "medium"}], {}, MISERLY, ("medium", "rule_floor")),
        ([{"ceiling": "medium"}, {"ceiling": "short"}], {}, GENEROUS, ("short", "rule_ceiling")),
        ([{"floor": "short"}, {"ceiling": "medium"}], {}, GENEROUS, ("medium", "rule_ceiling")),
        ([{"floor": "short"}, {"ceiling": "medium"}], {}, MISERLY, ("short", "rule_floor")),
        ([{"ceiling": "short"}], {"model": "tiny:long"}, MISERLY, ("short", "rule_ceiling")),
        ([{"floor": "medium"}], {"model": "tiny:short"}, GENEROUS, ("medium", "rule_floor")),
        ([{"ceiling": "medium"}], {"model": "tiny:short"}, GENEROUS, ("short", "pinned")),
        ([{"floor": "short"}], {"model": "tiny:medium"}, MISERLY, ("medium", "pinned")),
        ([{"ceiling": "medium"}], {"reasoning_effort": "low"}, GENEROUS, ("short", "client_ceiling")),
        ([{"ceiling": "short"}], {"reasoning_effort": "high"}, GENEROUS, ("short", "rule_ceiling")),
        ([], {"reasoning_effort": "medium"}, GENEROUS, ("medium", "client_ceiling")),
        ([{"ceiling": "long"}], {}, GENEROUS, ("long", "price")),
        ([{"floor": "direct"}], {}, MISERLY, ("direct", "price")),
    ],
)
async def test_precedence(
    backend: Backend,
    rules: list[dict[str, Any]],
    body: dict[str, Any],
    price: float,
    expected: tuple[str, str],
) -> None:
    """A fixed tier wins over floors, floors over ceilings and client limits, and these over the price."""
    async with serving(ruled(backend.url, *rules, price=price)) as running:
        assert decided(await chat(running, body)) == expected


async def test_rule_named_in_the_decision_is_the_one_that_decided(backend: Backend) -> None:
    """Of several matching rules, the record names the one whose bound decided."""
    settings = ruled(
        backend.url, {"floor": "short"}, {"name": "strict", "floor": "medium"}, {"floor": "short"}
    )
    async with serving(settings) as running:
        await chat(running)

        assert running.records[-1].decision.rule == "strict"  # type: ignore[union-attr]


async def test_rule_and_key_limit_each_other(backend: Backend) -> None:
    """The lowest ceiling and the highest floor apply, whether a rule or a key sets them."""
    low = {"name": "low", "key": "sk-low", "ceiling": "short"}
    high = {"name": "high", "key": "sk-high", "floor": "medium"}
    async with serving(
        ruled(backend.url, {"ceiling": "medium"}, price=GENEROUS, keys=[low, high])
    ) as running:
        assert decided(await chat(running, x_api_key="sk-low")) == ("short", "key_ceiling")
        assert decided(await chat(running, x_api_key="sk-high")) == ("medium", "rule_ceiling")
    async with serving(ruled(backend.url, {"floor": "short"}, keys=[low, high])) as running:
        assert decided(await chat(running, x_api_key="sk-high")) == ("medium", "key_floor")
        assert decided(await chat(running, x_api_key="sk-low")) == ("short", "rule_floor")


LIFTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = [
    # a condition that clients can fulfil, a body and headers that fulfil it
    ({"prompt": "contract"}, user("contract: a poem"), {}),
    ({"metadata": {"class": "vip"}}, {"metadata": {"class": "vip"}}, {}),
    ({"header": {"x-class": "vip"}}, {}, {"x_class": "vip"}),
    ({"tools": True}, {"tools": [TOOL]}, {}),
    ({"model": ["tiny"]}, {}, {}),
]
WISHES: list[dict[str, Any]] = [
    {"model": "tiny:long"},
    {"reasoning_effort": "max"},
    {"thinking_token_budget": 100_000, "max_tokens": 100_000},
]


@pytest.mark.parametrize("promise", [{"tier": "long"}, {"floor": "long"}], ids=["tier", "floor"])
async def test_no_request_passes_the_ceiling_of_its_key(backend: Backend, promise: dict[str, Any]) -> None:
    """A client that fulfils a rule's condition gets no more than its key's ceiling, whatever else it asks."""
    rules = [promise | {"when": when} for when, _, _ in LIFTS]
    settings = ruled(backend.url, *rules, price=GENEROUS, model={"floor": "medium"})
    settings["keys"] = [{"name": "interns", "key": "sk-i", "ceiling": "short"}]
    async with serving(settings) as running:
        for _, body, headers in LIFTS:
            for wish in [{}, *WISHES]:
                answer = await chat(running, body | wish, x_api_key="sk-i", **headers)

                assert answer.headers["x-thinkmeter-tier"] == "short"
                sent = backend.requests[-1].json
                assert sent["max_completion_tokens"] <= 48
                # with tools, the token limit alone bounds the thought
                assert sent.get("thinking_token_budget", 0 if "tools" in body else 17) <= 16
                assert backend.requests[-1].json["max_completion_tokens"] <= 48


async def test_rule_over_keys_passes_the_ceiling(backend: Backend) -> None:
    """A rule that says `over_keys` lifts the request; its neighbour that does not say so stays below."""
    lifting = {"when": {"prompt": "contract"}, "tier": "long", "over_keys": True}
    plain = {"when": {"prompt": "diagnosis"}, "tier": "long"}
    settings = ruled(backend.url, lifting, plain)
    settings["keys"] = [{"name": "interns", "key": "sk-i", "ceiling": "short"}]
    async with serving(settings) as running:
        assert decided(await chat(running, user("contract"), x_api_key="sk-i")) == ("long", "rule_tier")
        assert decided(await chat(running, user("diagnosis"), x_api_key="sk-i")) == ("short", "key_ceiling")


async def test_patterns_search_only_the_end_of_a_conversation(backend: Backend) -> None:
    """Rules search only the last 20,000 characters, so that a slow pattern cannot stall the gateway."""
    async with serving(ruled(backend.url, {"when": {"prompt": "needle"}, "tier": "long"})) as running:
        early, late = user("needle" + "x" * 1_000_000), user("x" * 1_000_000 + "needle")

        assert decided(await chat(running, early)) == ("direct", "price")
        assert decided(await chat(running, late)) == ("long", "rule_tier")


async def test_rules_hold_for_legacy_completions(backend: Backend) -> None:
    """A legacy completion has no chat template, but a rule still limits `max_tokens`."""
    async with serving(ruled(backend.url, {"ceiling": "short"}, price=GENEROUS)) as running:
        body = {"model": "tiny", "prompt": "hello", "max_tokens": 1000}
        answer = await ask(running.http, running.url, "/v1/completions", body)

    assert decided(answer) == ("short", "rule_ceiling")
    assert backend.requests[-1].json["max_tokens"] == 48
