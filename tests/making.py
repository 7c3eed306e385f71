"""Builds small settings, ladders, requests and stream events for tests of modules without I/O."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import strategies as st

from gateway.config.access import Key
from gateway.config.loader import parse
from gateway.config.models import EFFORTS
from gateway.config.rules import Rule
from gateway.config.settings import Settings
from gateway.openai_api.requests import ClientLimits, Fields, Request, encode, parse_chat
from gateway.routing.bounds import Bounds, collect_bounds
from gateway.routing.decision import Decision, Rungs
from gateway.routing.tiers import TierLadder
from router_model.allocation import PriceTable

TIERS = {
    "direct": {"thinking": 0, "answer": 100},
    "short": {"thinking": 200, "answer": 100},
    "medium": {"thinking": 400, "answer": 100},
    "long": {"thinking": 800, "answer": 100},
}
SWITCH = {
    "no_thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "thinking": {"chat_template_kwargs": {"enable_thinking": True}, "thinking_token_budget": "$budget"},
}
"""A family whose thinking can be switched off and budgeted."""


def settings(**sections: Any) -> Settings:
    """Settings as read from a file, with a model `tiny`; `model` changes it, `models` adds others."""
    replicas = [{"name": "a", "url": "http://a"}]
    model = {"family": "qwen3", "replicas": replicas, "tiers": TIERS} | sections.pop("model", {})
    models = {"tiny": model} | sections.pop("models", {})
    return parse(yaml.safe_dump({"models": models} | sections), {})


def ladder(tiers: dict[str, Any] = TIERS, family: dict[str, Any] = SWITCH, **model: Any) -> TierLadder:
    """The ladder of a model, built fast for property tests; of its tiers alone unless it has `rungs`."""
    entry = {"family": "f", "replicas": [{"url": "http://a"}], "tiers": tiers, "rungs": None} | model
    made = Settings.model_validate({"families": {"f": family}, "models": {"tiny": entry}})
    return TierLadder.of(made.models["tiny"], made.tiers_of(made.models["tiny"]), made.families["f"])


def chat(content: Any = "hello", **fields: Any) -> Request:
    """A parsed chat request."""
    return parse_chat(chat_body(content, **fields))


def chat_body(content: Any = "hello", **fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": [{"role": "user", "content": content}]} | fields).encode()


def plain(fields: Fields) -> dict[str, Any]:
    """Request fields, parsed as the backend parses them."""
    read: dict[str, Any] = json.loads(encode(fields))
    return read


tokens = st.integers(0, 40_000)
efforts = st.sampled_from([*EFFORTS, "HIGH", "bogus", ""])
any_limits = st.builds(
    ClientLimits,
    effort=st.none() | efforts,
    thinking=st.none() | tokens,
    max_tokens=st.none() | st.integers(1, 40_000),
    min_tokens=st.just(0) | st.integers(1, 40_000),
).filter(lambda limits: limits.max_tokens is None or limits.min_tokens <= limits.max_tokens)
tier_values = st.fixed_dictionaries(
    {"thinking": st.just(0) | tokens, "answer": st.none() | st.integers(1, 9_000)},
    optional={"effort": st.sampled_from(EFFORTS)},
)
families = st.sampled_from(
    [
        SWITCH,
        {"thinking": {"reasoning_effort": "$effort"}, "efforts": ["low", "medium", "high"]},
        {"no_thinking": {"thinking_token_budget": 0}, "thinking": {"thinking_token_budget": "$budget"}},
        {"no_thinking": {}},
    ]
)
names = ("direct", "short", "medium", "long", "quick", "t-1", "t_2")
ladders = st.builds(
    ladder,
    st.dictionaries(st.sampled_from(names), tier_values, min_size=1, max_size=5),
    families,
    thinking_budget=st.booleans(),
    rungs=st.none() | st.integers(2, 32),
)


def decision(tier: str, correct: dict[str, float], tokens: dict[str, float], **changes: Any) -> Decision:
    """A decision for a named tier, of a model that has no other rungs than the tiers of these estimates."""
    names = tuple(correct)
    at = names.index(tier)
    eligible = changes.pop("eligible", names)
    usual: dict[str, Any] = {"id": "d1", "model": "tiny", "reason": "price", "rule": None}
    usual |= {"requested": "adaptive", "thinking": 100 * at, "cap": 32, "difficulty": 0.5, "price": 1.0}
    usual |= {"propensity": 1.0, "versions": {"head": "h"}}
    rungs = Rungs(
        thinking=tuple(100 * rung for rung in range(len(names))),
        correct=tuple(correct.values()),
        tokens=tuple(tokens.values()),
        named=tuple(range(len(names))),
        lowest=names.index(eligible[0]),
        highest=names.index(eligible[-1]),
    )
    chosen = {"rung": at, "rung_correct": correct[tier], "rung_tokens": tokens[tier], "rungs": rungs}
    estimates = {"tier": tier, "correct": correct, "tokens": tokens, "eligible": eligible}
    return Decision(**(usual | chosen | estimates | changes))


TABLE = PriceTable([10, 30, 60, 100], [20, 6, 1, 0.01])
"""A price table: the price at each of four numbers of tokens per request."""


def bounds_of(
    rules: list[Rule] | None = None,
    key: dict[str, Any] | None = None,
    limits: ClientLimits | None = None,
    pin: str | None = None,
    **model: Any,
) -> Bounds:
    """The bounds of a request to a model with the four TIERS."""
    made = settings(model=model)
    known = Key(name="k", hash="0" * 64, **key) if key is not None else None
    return collect_bounds(
        ladder(),
        model=made.models["tiny"],
        key=known,
        rules=rules or [],
        limits=limits or ClientLimits(),
        pin=pin,
    )


@st.composite
def positions(draw: st.DrawFn) -> tuple[TierLadder, int]:
    """A ladder and the position of a rung on it."""
    made = draw(ladders)
    return made, draw(st.integers(0, len(made.rungs) - 1))


USAGE = {"prompt_tokens": 7, "total_tokens": 49, "completion_tokens": 42}


def event(chunk: object) -> bytes:
    """A stream event as a backend sends it."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
