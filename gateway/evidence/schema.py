"""The tables of the evidence store.

A change of a table needs a migration in `gateway/evidence/migrations/versions` and its number in `REVISION`.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from gateway.evidence.rows import CandidateRow, DecisionRow, FeedbackRow, MeasuredRow, Row, ShadowRow

REVISION = "0002"
"""The newest migration."""

metadata = MetaData()

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Double, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("route", String(128), nullable=False),
    Column("key", String(128)),
    Column("team", String(128)),
    Column("conversation", String(32)),
    Column("model", String(128), nullable=False),
    Column("head", String(160), nullable=False),
    Column("config", String(64), nullable=False),
    Column("arm", String(16), nullable=False),
    Column("tier", String(32), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("rule", String(128)),
    Column("requested", String(32), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("wanted_rung", Integer),
    Column("thinking", Integer, nullable=False),
    Column("cap", Integer),
    Column("price", Double, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("correct", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String(64)),
    Column("stream", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("finish_reason", String(64)),
    Column("truncated", Boolean, nullable=False),
    Column("duration", Double, nullable=False),
    Column("first_byte", Double),
    # The long ones come last: SQLite reads a row up to the last column that a query needs.
    Column("rungs", LargeBinary, nullable=False),
    Column("features", LargeBinary),
    Column("prompt", Text),
    Index("decisions_at", "at"),
    Index("decisions_conversation", "conversation"),
    Index("decisions_request", "request_id", "key"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("decision", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("key", String(128)),
    Column("source", String(64), nullable=False),
    Column("score", Double, nullable=False),
    Column("comment", Text),
    PrimaryKeyConstraint("decision", "source"),
    Index("feedback_at", "at"),
)

shadow_pairs = Table(
    "shadow_pairs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("decision", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("model", String(128), nullable=False),
    Column("head", String(160), nullable=False),
    Column("served_rung", Integer, nullable=False),
    Column("shadow_rung", Integer, nullable=False),
    Column("served_thinking", Integer, nullable=False),
    Column("shadow_thinking", Integer, nullable=False),
    Column("served_tokens", Integer),
    Column("shadow_tokens", Integer),
    Column("grader", String(64), nullable=False),
    Column("served_score", Double),
    Column("shadow_score", Double),
    Column("flipped", Boolean),
    Column("note", Text),
    Index("shadow_pairs_at", "at"),
    Index("shadow_pairs_decision", "decision"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("run", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("model", String(128), nullable=False),
    Column("prompt_id", String(128), nullable=False),
    Column("dataset", String(128)),
    Column("rung", String(64), nullable=False),
    Column("thinking", Integer, nullable=False),
    Column("sample", Integer, nullable=False),
    Column("correct", Double),
    Column("grader", String(64), nullable=False),
    Column("tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("finish_reason", String(64)),
    Column("note", Text),
    Column("features", LargeBinary),
    Column("prompt", Text),
    PrimaryKeyConstraint("run", "prompt_id", "rung", "sample"),
    Index("measurements_at", "at"),
)

candidate_decisions = Table(
    "candidate_decisions",
    metadata,
    Column("decision", String(64), nullable=False),
    Column("candidate", String(160), nullable=False),
    Column("at", Double, nullable=False),
    Column("model", String(128), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("correct", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("served_correct", Double, nullable=False),
    Column("served_tokens", Double, nullable=False),
    PrimaryKeyConstraint("decision", "candidate"),
    Index("candidate_decisions_at", "at"),
)

heads = Table(
    "heads",
    metadata,
    Column("version", String(160), primary_key=True),
    Column("made_at", Double, nullable=False),
    Column("models", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("verdict", Text),
    Column("size", Integer, nullable=False),
    # Both files of the artefact.
    Column("manifest", LargeBinary, nullable=False),
    Column("arrays", LargeBinary, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("action", String(16), nullable=False),
    Column("head", String(160)),
    Column("previous", String(160)),
    Column("by", String(128), nullable=False),
    Column("why", Text, nullable=False),
)
"""Which head decides, and who said so. Lines are only ever added."""

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""The key of the pseudonyms, made when the store is."""

chores = Table(
    "chores",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("at", Double, nullable=False),
)
"""When a gateway last did what only one of them does at a time."""

STORED: dict[type[Row], Table] = {
    DecisionRow: decisions,
    FeedbackRow: feedback,
    ShadowRow: shadow_pairs,
    MeasuredRow: measurements,
    CandidateRow: candidate_decisions,
}
"""The table of each kind of row."""
