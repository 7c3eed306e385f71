"""What clients say about answers, and whether it is taken. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from gateway.errors import GatewayError, InvalidRequest
from gateway.evidence.errors import DecisionNotFound, FeedbackContradicts
from gateway.evidence.rows import FeedbackRow
from gateway.openai_api.requests import decode_exactly

MOST_ITEMS = 1_000
"""In one request."""
MOST_SOURCES = 16
"""Sources that may judge one answer. Their names are the client's, so their number needs a bound."""
# PostgreSQL takes no NUL in a text
_Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
_Source: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
_Comment: TypeAlias = Annotated[str, Meta(max_length=2_000, pattern=r"^[^\x00]*\Z")]

FeedbackOutcome = Literal[
    "taken", "replaced", "repeated", "contradicted", "unknown", "refused", "unavailable"
]


class Feedback(Struct, forbid_unknown_fields=True):
    """What a client says about one answer."""

    decision_id: _Id | None = None
    request_id: _Id | None = None
    """In place of `decision_id`."""
    correct: bool | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    """In place of `correct`: 0 is wrong, 1 is right."""
    source: _Source = "client"
    comment: _Comment | None = None
    replace: bool = False
    """It replaces what the same source has said before."""

    @property
    def value(self) -> float:
        """The score, from 0 for wrong to 1 for right."""
        return float(self.correct or 0) if self.score is None else self.score


_BODY: Any = Feedback | Annotated[list[Feedback], Meta(min_length=1, max_length=MOST_ITEMS)]


class Decided(Struct, frozen=True):
    """A decision that is kept."""

    id: str
    key: str | None
    """The name of the key that made the request."""
    model: str = ""
    tier: str = ""
    arm: str = ""
    correct: float = 0.0
    """The head's P(right)."""


class Rater(Struct, frozen=True):
    """Who gives feedback."""

    key: str | None
    everybody: bool
    """No keys are configured, so that everybody may judge every answer."""

    def made(self, decision: Decided) -> bool:
        """Whether this rater made the request."""
        return self.everybody or decision.key == self.key


class Ruling(Struct, frozen=True):
    """What becomes of one item."""

    outcome: FeedbackOutcome
    row: FeedbackRow | None = None
    """What is to be kept; None for a repetition."""
    error: GatewayError | None = None
    judged: Decided | None = None
    """The decision, if this source judges it for the first time."""


def read_feedback(body: bytes) -> tuple[list[Feedback], bool]:
    """The items of a request, and whether they came as a list.

    Raises: InvalidJson, InvalidRequest.
    """
    read = decode_exactly(_BODY, body)
    listed = isinstance(read, list)
    items = read if isinstance(read, list) else [read]
    for position, item in enumerate(items):
        at = f"[{position}]." if listed else ""
        if (item.decision_id is None) is (item.request_id is None):
            raise InvalidRequest(f"{at}decision_id: give it or request_id", param=f"{at}decision_id")
        if (item.correct is None) is (item.score is None):
            raise InvalidRequest(f"{at}correct: give it or score", param=f"{at}correct")
    return items, listed


def judge(
    item: Feedback, rater: Rater, found: Sequence[Decided], earlier: Mapping[str, float], now: float
) -> Ruling:
    """Decide what becomes of an item.

    found: the decisions that it may be about. A client may have used a request ID several times.
    earlier: what was said about that decision before, by source.
    now: Unix time.
    """
    own = [decision for decision in found if rater.made(decision)]
    if not own:
        text = "No decision with this ID is kept for this key"
        return Ruling("unknown", error=DecisionNotFound(text, param=_named(item)))
    if len(own) > 1:
        text = "Several requests had this ID: give the decision_id"
        return Ruling("refused", error=InvalidRequest(text, param="request_id"))
    said = earlier.get(item.source)
    if said is None and len(earlier) >= MOST_SOURCES:
        text = f"{MOST_SOURCES} sources have judged this answer, which is the most"
        return Ruling("refused", error=InvalidRequest(text, param="source"))
    if said is not None and said != item.value and not item.replace:
        text = "This source has judged the answer otherwise: set replace to change that"
        return Ruling("contradicted", error=FeedbackContradicts(text, param=_given(item)))
    if said == item.value and item.comment is None:
        return Ruling("repeated")
    row = FeedbackRow(own[0].id, now, own[0].key, item.source, item.value, item.comment)
    outcome: FeedbackOutcome = "taken" if said is None or said == item.value else "replaced"
    return Ruling(outcome, row, judged=own[0] if said is None else None)


def _named(item: Feedback) -> str:
    return "request_id" if item.decision_id is None else "decision_id"


def _given(item: Feedback) -> str:
    return "correct" if item.score is None else "score"
