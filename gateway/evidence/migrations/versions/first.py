"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    _decisions()
    _feedback()
    _shadow_pairs()
    _measurements()
    _secrets()
    _chores()


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("route", sa.String(128), nullable=False),
        sa.Column("key", sa.String(128)),
        sa.Column("team", sa.String(128)),
        sa.Column("conversation", sa.String(32)),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("head", sa.String(160), nullable=False),
        sa.Column("config", sa.String(64), nullable=False),
        sa.Column("arm", sa.String(16), nullable=False),
        sa.Column("tier", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("rule", sa.String(128)),
        sa.Column("requested", sa.String(32), nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("wanted_rung", sa.Integer),
        sa.Column("thinking", sa.Integer, nullable=False),
        sa.Column("cap", sa.Integer),
        sa.Column("price", sa.Double, nullable=False),
        sa.Column("propensity", sa.Double, nullable=False),
        sa.Column("correct", sa.Double, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.String(64)),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("reasoning_tokens", sa.Integer),
        sa.Column("finish_reason", sa.String(64)),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("duration", sa.Double, nullable=False),
        sa.Column("first_byte", sa.Double),
        sa.Column("rungs", sa.LargeBinary, nullable=False),
        sa.Column("features", sa.LargeBinary),
        sa.Column("prompt", sa.Text),
    )
    op.create_index("decisions_at", "decisions", ["at"])
    op.create_index("decisions_conversation", "decisions", ["conversation"])
    op.create_index("decisions_request", "decisions", ["request_id", "key"])


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("decision", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("key", sa.String(128)),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("comment", sa.Text),
        sa.PrimaryKeyConstraint("decision", "source"),
    )
    op.create_index("feedback_at", "feedback", ["at"])


def _shadow_pairs() -> None:
    op.create_table(
        "shadow_pairs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("decision", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("head", sa.String(160), nullable=False),
        sa.Column("served_rung", sa.Integer, nullable=False),
        sa.Column("shadow_rung", sa.Integer, nullable=False),
        sa.Column("served_thinking", sa.Integer, nullable=False),
        sa.Column("shadow_thinking", sa.Integer, nullable=False),
        sa.Column("served_tokens", sa.Integer),
        sa.Column("shadow_tokens", sa.Integer),
        sa.Column("grader", sa.String(64), nullable=False),
        sa.Column("served_score", sa.Double),
        sa.Column("shadow_score", sa.Double),
        sa.Column("flipped", sa.Boolean),
        sa.Column("note", sa.Text),
    )
    op.create_index("shadow_pairs_at", "shadow_pairs", ["at"])
    op.create_index("shadow_pairs_decision", "shadow_pairs", ["decision"])


def _measurements() -> None:
    op.create_table(
        "measurements",
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("prompt_id", sa.String(128), nullable=False),
        sa.Column("dataset", sa.String(128)),
        sa.Column("rung", sa.String(64), nullable=False),
        sa.Column("thinking", sa.Integer, nullable=False),
        sa.Column("sample", sa.Integer, nullable=False),
        sa.Column("correct", sa.Double),
        sa.Column("grader", sa.String(64), nullable=False),
        sa.Column("tokens", sa.Integer),
        sa.Column("reasoning_tokens", sa.Integer),
        sa.Column("finish_reason", sa.String(64)),
        sa.Column("note", sa.Text),
        sa.Column("features", sa.LargeBinary),
        sa.Column("prompt", sa.Text),
        sa.PrimaryKeyConstraint("run", "prompt_id", "rung", "sample"),
    )
    op.create_index("measurements_at", "measurements", ["at"])


def _secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )


def _chores() -> None:
    op.create_table(
        "chores",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
    )
