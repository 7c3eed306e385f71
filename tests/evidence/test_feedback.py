"""What clients may say about answers, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidJson, InvalidRequest
from gateway.evidence.feedback import (
    MOST_ITEMS,
    MOST_SOURCES,
    Decided,
    Feedback,
    Rater,
    judge,
    read_feedback,
)

WEB = Rater("web", everybody=False)
DECIDED = Decided("d1", "web")
ITEM = {"decision_id": "d1", "correct": True}


def outcome(item: Feedback, found: list[Decided] | None = None, **earlier: float) -> str:
    return judge(item, WEB, [DECIDED] if found is None else found, earlier, 7.0).outcome


@pytest.mark.parametrize(
    ("fields", "score"),
    [({"correct": True}, 1), ({"correct": False}, 0), ({"score": 0.25}, 0.25), ({"score": 1}, 1)],
)
def test_both_ways_to_judge(fields: dict[str, Any], score: float) -> None:
    """`correct` and `score` say the same, and the row has the score."""
    [item], listed = read_feedback(json.dumps({"decision_id": "d1", "comment": "why"} | fields).encode())
    row = judge(item, WEB, [DECIDED], {}, 7.0).row

    assert not listed
    assert row is not None
    assert (row.decision, row.at, row.key, row.source) == ("d1", 7.0, "web", "client")
    assert (row.score, row.comment) == (score, "why")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"correct": None}, "correct"),
        ({"score": 1}, "correct"),
        ({"decision_id": None}, "decision_id"),
        ({"request_id": "r"}, "decision_id"),
        ({"decision_id": ""}, "decision_id"),
        ({"decision_id": "a b"}, "decision_id"),
        ({"decision_id": 7}, "decision_id"),
        ({"correct": "yes"}, "correct"),
        ({"correct": None, "score": 1.01}, "score"),
        ({"correct": None, "score": -0.01}, "score"),
        ({"source": ""}, "source"),
        ({"source": "a\n"}, "source"),
        ({"source": "x" * 65}, "source"),
        ({"comment": "x" * 2_001}, "comment"),
        ({"comment": "a\x00b"}, "comment"),
        ({"replace": "no"}, "replace"),
        ({"corect": True}, None),
    ],
)
def test_wrong_values_are_named(fields: dict[str, Any], param: str | None) -> None:
    """A value that cannot be kept is refused with its name, alone and in a list."""
    body = ITEM | fields
    with pytest.raises(InvalidRequest) as alone:
        read_feedback(json.dumps(body).encode())
    with pytest.raises(InvalidRequest) as listed:
        read_feedback(json.dumps([ITEM, body]).encode())

    assert alone.value.param == param
    assert listed.value.param == (f"[1].{param}" if param else "[1]")


@pytest.mark.parametrize("body", [b"", b"{", b"[{}", b'{"comment":"\\ud800"}', b"\xff"])
def test_broken_json(body: bytes) -> None:
    """A body that is not JSON is refused, also one with half a character, which no database takes."""
    with pytest.raises(InvalidJson):
        read_feedback(body)


@pytest.mark.parametrize("count", [0, MOST_ITEMS + 1])
def test_lists_are_bounded(count: int) -> None:
    """A list has at least one item, and not too many."""
    with pytest.raises(InvalidRequest):
        read_feedback(json.dumps([ITEM] * count).encode())
    assert len(read_feedback(json.dumps([ITEM] * MOST_ITEMS).encode())[0]) == MOST_ITEMS


def test_only_the_key_that_made_the_request() -> None:
    """For another key, a decision looks as if it did not exist."""
    item, foreign = Feedback("d1", correct=True), Decided("d1", "other")
    unknown = judge(item, WEB, [], {}, 7.0)
    hidden = judge(item, WEB, [foreign], {"client": 0.0}, 7.0)

    assert (unknown.outcome, hidden.outcome) == ("unknown", "unknown")
    assert unknown.error
    assert hidden.error
    assert unknown.error.body() == hidden.error.body()
    assert judge(item, Rater(None, everybody=True), [foreign], {}, 7.0).outcome == "taken"


def test_contradiction() -> None:
    """Another score of the same source needs `replace`; another source may have another opinion."""
    assert outcome(Feedback("d1", correct=True), client=0.0) == "contradicted"
    assert outcome(Feedback("d1", correct=True, replace=True), client=0.0) == "replaced"
    assert outcome(Feedback("d1", correct=True, source="judge"), client=0.0) == "taken"


def test_repetition() -> None:
    """The same again is fine and writes nothing, so that a client may retry; a comment may come later."""
    again = judge(Feedback("d1", correct=True), WEB, [DECIDED], {"client": 1.0}, 7.0)

    assert (again.outcome, again.row, again.error) == ("repeated", None, None)
    assert outcome(Feedback("d1", correct=True, comment="well done"), client=1.0) == "taken"


def test_sources_are_bounded() -> None:
    """Clients invent the names of sources, so one answer takes only so many."""
    earlier = {f"s{i}": 1.0 for i in range(MOST_SOURCES)}

    assert outcome(Feedback("d1", correct=True, source="new"), **earlier) == "refused"
    assert outcome(Feedback("d1", correct=False, source="s3", replace=True), **earlier) == "replaced"


def test_request_id_of_several_requests() -> None:
    """A request ID that was used again does not say which answer is meant."""
    ruling = judge(Feedback(request_id="r", correct=True), WEB, [DECIDED, Decided("d2", "web")], {}, 7.0)

    assert ruling.outcome == "refused"
    assert ruling.error
    assert ruling.error.param == "request_id"


scores = st.sampled_from([0.0, 0.5, 1.0])


@given(st.lists(st.tuples(scores, st.booleans(), st.none() | st.just("x")), max_size=8))
def test_the_store_has_the_last_that_was_taken(said: list[tuple[float, bool, str | None]]) -> None:
    """Whatever is said in turn: what is kept changes only when `replace` is set, and else stays."""
    kept: dict[str, float] = {}
    for score, change, comment in said:
        before = kept.get("client")
        item = Feedback("d1", score=score, replace=change, comment=comment)
        ruling = judge(item, WEB, [DECIDED], kept, 7.0)
        assert (ruling.error is None) == (before in (None, score) or change)
        if ruling.row:
            kept["client"] = ruling.row.score
        assert kept["client"] == (score if ruling.error is None else before)
