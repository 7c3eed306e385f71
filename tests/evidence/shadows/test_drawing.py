"""Which rung a drawn request is asked at, and how its budget counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.evidence import ShadowBudget, ShadowSettings
from gateway.config.loader import parse_file
from gateway.evidence.shadows.drawing import most_tokens_a_day, shadow_limit, shadow_rung
from gateway.openai_api.endpoints import CHAT
from gateway.routing.call import Call
from gateway.snapshot import Snapshot
from router_model.predictor import Prediction
from tests.making import TIERS, chat, decision

TOKENS = {name: 100.0 + 100 * at for at, name in enumerate(TIERS)}
CORRECT = {name: 0.5 + 0.1 * at for at, name in enumerate(TIERS)}


def shadow(against: Any, **changes: Any) -> ShadowSettings:
    return ShadowSettings.model_validate(
        {"share": 1, "against": against, "budget": {"tokens": 1_000}} | changes
    )


@pytest.fixture(scope="module")
def call() -> Call:
    """A chat with a model whose rungs are its four tiers."""
    text = "models: {tiny: {family: qwen3, rungs: null, replicas: [{url: 'http://127.0.0.1:1'}], tiers: {"
    tiers = ", ".join(f"{name}: {{thinking: {t['thinking']}, answer: 100}}" for name, t in TIERS.items())
    settings, digest = parse_file(f"{text}{tiers}}}}}}}\n".encode())
    return Snapshot.build(settings, digest).call(CHAT, None, {}, chat())


class Before:
    """A head that finds one rung much better than the others."""

    def __init__(self, best: int) -> None:
        self._best = best

    def predict(self, _prompt: str, _model: str, lengths: Any) -> Prediction:
        correct = tuple(float(at == self._best) for at in range(len(lengths)))
        return Prediction(0.5, correct, tuple(100.0 for _ in lengths))


@pytest.mark.parametrize(
    ("against", "served", "rung"),
    [
        ("long", "direct", 3),
        ("long", "long", None),
        ("direct", "long", 0),
        (0, "long", 0),
        (399, "long", 1),
        (400, "long", 2),
        (10_000, "direct", 3),
        (10_000, "long", None),
    ],
)
def test_rung(call: Call, against: Any, served: str, rung: int | None) -> None:
    """A tier by its name, or the longest rung within so many thinking tokens."""
    made = decision(served, CORRECT, TOKENS)
    assert shadow_rung(shadow(against), call, made, None) == rung


@pytest.mark.parametrize(("against", "rung"), [("long", 2), ("direct", None)])
def test_within_the_bounds(call: Call, against: str, rung: int | None) -> None:
    """Nothing is asked that a key, a rule or the client rules out: the nearest rung takes its place."""
    made = decision("short", CORRECT, TOKENS, eligible=("short", "medium"))
    assert shadow_rung(shadow(against), call, made, None) == rung


def test_previous_head(call: Call) -> None:
    """What the head before would choose at the same price; nothing without one, or if it agrees."""
    made = decision("short", CORRECT, TOKENS)
    settings = shadow("previous_head")
    assert shadow_rung(settings, call, made, Before(2)) == 2  # type: ignore[arg-type]
    assert shadow_rung(settings, call, made, Before(1)) is None  # type: ignore[arg-type]
    assert shadow_rung(settings, call, made, None) is None


def test_limit_is_strict_and_apart() -> None:
    """No budget of a client can have its key in Redis. It counts prompts, and is closed without Redis."""
    limit = shadow_limit(ShadowBudget(tokens=500, window=60), "p")
    assert limit.window.key.startswith("{p}:%shadow:")
    assert (limit.budget.reserve, limit.budget.count, limit.budget.when_redis_fails) == (
        "strict",
        "total",
        "closed",
    )


@given(st.integers(1, 10**9), st.floats(1, 366 * 86_400))
def test_tokens_a_day(tokens: int, seconds: float) -> None:
    """A window longer than a day may be spent in one day; a shorter one several times."""
    most = most_tokens_a_day(ShadowBudget(tokens=tokens, window=seconds))
    assert most >= tokens
    assert most == tokens or seconds < 86_400
