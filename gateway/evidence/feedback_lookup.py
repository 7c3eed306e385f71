"""Reads what feedback is about: decisions, and what was said about them before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from msgspec import Struct, field
from sqlalchemy import Connection, Engine, select

from gateway.evidence.database import explained
from gateway.evidence.feedback import Decided, Feedback, Rater
from gateway.evidence.schema import decisions, feedback

_ENOUGH = 2
"""Decisions of one request ID that are looked up. More than one are too many already."""

_DECIDED = tuple(decisions.c[name] for name in Decided.__struct_fields__)


class KnownDecisions(Struct):
    """What the store has about some items of feedback."""

    decisions: dict[str, list[Decided]] = field(default_factory=lambda: defaultdict(list))
    """The decisions that an item may be about, by the ID that it gives: see `id_of`."""
    said: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """Scores by decision and source."""


def id_of(item: Feedback) -> str:
    """What an item calls its decision. The two kinds of IDs do not mix."""
    return f"r:{item.request_id}" if item.decision_id is None else f"d:{item.decision_id}"


def look_up(engine: Engine, items: Collection[Feedback], rater: Rater) -> KnownDecisions:
    """Find the decisions of some items, and what was said about them. It blocks.

    Raises: EvidenceUnavailable.
    """
    known = KnownDecisions()
    with explained(), engine.connect() as connection:
        ids = {item.decision_id for item in items if item.decision_id is not None}
        if ids:
            for row in connection.execute(select(*_DECIDED).where(decisions.c.id.in_(ids))):
                known.decisions[f"d:{row[0]}"].append(Decided(*row))
        for request_id in {item.request_id for item in items if item.request_id is not None}:
            found = _of_request(connection, request_id, rater)
            known.decisions[f"r:{request_id}"] = found
        about = {decision.id for found in known.decisions.values() for decision in found}
        if about:
            said = select(feedback.c.decision, feedback.c.source, feedback.c.score)
            for name, source, score in connection.execute(said.where(feedback.c.decision.in_(about))):
                known.said[name][source] = score
    return known


def _of_request(connection: Connection, request_id: str, rater: Rater) -> list[Decided]:
    """The decisions of this rater whose requests had this ID and were answered."""
    kept = select(*_DECIDED).where(decisions.c.request_id == request_id, decisions.c.status < 400)
    if not rater.everybody:
        kept = kept.where(decisions.c.key == rater.key)
    return [Decided(*row) for row in connection.execute(kept.limit(_ENOUGH))]
