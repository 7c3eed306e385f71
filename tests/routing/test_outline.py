"""What requests that are alike share: it is what each of them would have worked out for itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.budgets import Reservations
from gateway.openai_api.endpoints import CHAT
from gateway.routing import router as routing_router
from gateway.routing.outline import Outline
from gateway.snapshot import Snapshot
from tests.making import chat
from tests.routing.test_plan import plans
from tests.routing.test_router import KEYS, snapshot

RULES = [
    {"name": "urgent", "when": {"header": {"x-urgent": "yes"}}, "ceiling": "short"},
    {"name": "tools", "when": {"tools": True}, "floor": "medium"},
]


@given(plans(), st.data())
def test_remembered_is_worked_out(plan: Any, data: st.DataObject) -> None:
    """An outline gives the same answers when asked again, in any order, as a new one."""
    known = plan.outline
    fresh = Outline(known.ladder, known.bounds, known.limits, known.context, known.room)
    count, reservations = len(known.ladder.rungs), Reservations()
    for wanted in data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)):
        stop = data.draw(st.integers(1, count))
        terms = known.terms(wanted, stop, reservations)

        assert terms == known.terms(wanted, stop, reservations) == fresh.terms(wanted, stop, reservations)
        assert known.length(wanted) == known.ladder.length(
            wanted, known.limits, known.guaranteed, known.context, known.room
        )
        assert terms.most == tuple(
            fresh.max_tokens(index, reservations.longest_answer) for index in terms.candidates
        )


def outline(made: Snapshot, key: str | None = "alice", header: bytes = b"no", **fields: Any) -> Outline:
    """The outline of a request to a model with four tiers."""
    known = next((entry for entry in made.settings.keys if entry.name == key), None)
    call = made.call(CHAT, known, {b"x-urgent": header}, chat(**{"model": "tiny"} | fields))
    return made.router.route(call, price=0.0).outline


def test_requests_that_are_alike_share() -> None:
    """The prompt and fields that limit nothing make no difference."""
    made = snapshot(keys=KEYS, rules=RULES)
    one = outline(made, max_tokens=500)

    assert outline(made, max_tokens=500, messages=[{"role": "user", "content": "another"}]) is one
    assert outline(made, max_completion_tokens=500, temperature=0.1) is one


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 501},
        {"max_tokens": 500, "min_tokens": 200},
        {"max_tokens": 500, "reasoning_effort": "low"},
        {"max_tokens": 500, "thinking_token_budget": 70},
        {"max_tokens": 500, "model": "tiny:short"},
        {"max_tokens": 500, "model": "other"},
        {"max_tokens": 500, "key": "carl"},
        {"max_tokens": 500, "header": b"yes"},
        {"max_tokens": 500, "tools": [{"type": "function"}]},
    ],
)
def test_requests_that_differ_do_not(other: dict[str, Any]) -> None:
    """Whatever can change a bound or a length makes another outline, before and after."""
    made, alone = snapshot(keys=KEYS, rules=RULES), snapshot(keys=KEYS, rules=RULES)
    usual, differing = outline(made, max_tokens=500), outline(made, **other)
    expected = outline(alone, **other)

    assert differing is not usual
    assert (differing.bounds, differing.limits) == (expected.bounds, expected.limits)
    assert differing.requested == expected.requested
    assert outline(made, max_tokens=500) is usual


def test_a_context_that_becomes_known_counts() -> None:
    """Lengths follow the context as soon as a backend has stated one."""
    made = snapshot(keys=KEYS)
    before = outline(made)
    made.pools["tiny"].backends[0].context = 300

    assert before.context is None
    after = outline(made)
    assert after.length(len(after.ladder.rungs) - 1).max_tokens == 300


def test_clients_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many different limits clients send, a bounded number of outlines is kept."""
    monkeypatch.setattr(routing_router, "_MOST_OUTLINES", 4)
    made = snapshot(keys=KEYS)
    for tokens in range(1, 30):
        assert outline(made, max_tokens=tokens).limits.max_tokens == tokens

    assert len(made.router._outlines) <= 4
