"""The hold-out: the share is met, everybody stays in one arm, and a larger share only adds people."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.endpoints import CHAT
from gateway.openai_api.requests import Request, encode
from gateway.routing.holdout import Holdout, conversation_unit, fixed_choice
from gateway.routing.policy import Choice

HI = {"role": "user", "content": "Hi!"}
SHARES = st.floats(0, 0.5)


def chat(*messages: dict[str, str], **fields: object) -> Request:
    return CHAT.parse(encode({"model": "tiny", "messages": messages or (HI,)} | fields))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_the_share_is_met(share: float) -> None:
    held = sum(Holdout(share, "user", "long").arm(f"user-{number}") == "holdout" for number in range(10_000))
    assert held == pytest.approx(10_000 * share, abs=5 * (10_000 * share * (1 - share)) ** 0.5)


@given(st.text(), SHARES, SHARES)
def test_a_larger_share_only_adds_people(unit: str, one: float, other: float) -> None:
    small, large = (Holdout(share, "user", "long").arm(unit) for share in sorted((one, other)))
    assert small == "adaptive" or large == "holdout"


@given(st.lists(st.sampled_from(["system", "developer", "assistant"])), st.text(), st.lists(st.text()))
def test_all_turns_of_a_chat_have_one_unit(before: list[str], question: str, later: list[str]) -> None:
    opening = [*({"role": role, "content": role} for role in before), {"role": "user", "content": question}]
    turns = [{"role": "user", "content": text} for text in later]
    holdout = Holdout(0.5, "conversation", "long")
    assert holdout.unit("web", chat(*opening), {}) == holdout.unit("web", chat(*opening, *turns), {})


@pytest.mark.parametrize("size", [300_000, 5_000_000])
def test_a_chat_that_grows_large_keeps_its_unit(size: int) -> None:
    """Large requests are cut before they are read, but never their opening."""
    opening = ({"role": "system", "content": "Be brief."}, HI)
    large = ({"role": "assistant", "content": "x" * size}, {"role": "user", "content": "And now?"})
    parsed = chat(*opening, *large)
    assert parsed.opening == chat(*opening).opening == ("Be brief.", "Hi!")
    assert parsed.prompt == "And now?"


def test_a_chat_of_very_many_messages_keeps_its_unit() -> None:
    messages = [HI, *({"role": "assistant", "content": "y"} for _ in range(30_000)), HI]
    assert chat(*messages).opening == chat(HI).opening


def test_conversations_of_different_keys_and_openings_differ() -> None:
    texts = ([], [""], ["a"], ["a", ""], ["", "a"], ["aa"], ["a" * 9_000], ["a" * 9_001])
    units = {conversation_unit(key, opening) for key, opening in product(("web", None), texts)}
    assert len(units) == 2 * len(texts)


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({"user": "ann"}, "ann"),
        ({"safety_identifier": "hash", "user": "ann"}, "hash"),
        ({"user": "x" * 5_000}, "x" * 512),
    ],
)
def test_a_user_is_the_one_that_the_request_names(fields: dict[str, str], unit: str) -> None:
    assert Holdout(0.1, "user", "long").unit("web", chat(**fields), {}) == unit


@pytest.mark.parametrize("fields", [{}, {"user": ""}, {"user": None}, {"user": 7}, {"user": {"id": 1}}])
def test_who_names_no_user_is_told_apart_by_the_conversation(fields: dict[str, object]) -> None:
    expected = conversation_unit("web", ["Hi!"])
    assert Holdout(0.1, "user", "long").unit("web", chat(**fields), {}) == expected
    assert Holdout(0.1, "X-User", "long").unit("web", chat(**fields), {}) == expected


def test_a_header_names_the_unit() -> None:
    assert Holdout(0.1, "X-User", "long").unit("web", chat(), {b"x-user": b"ann"}) == "ann"


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 30))
def test_the_fixed_policy_stays_within_the_bounds(low: int, count: int, index: int) -> None:
    eligible = range(low, low + count)
    choice = fixed_choice(Choice(low, "price", None, eligible), index)
    assert choice.index == min(eligible, key=lambda at: abs(at - index))
    assert (choice.reason, choice.draw) == ("holdout", None)
