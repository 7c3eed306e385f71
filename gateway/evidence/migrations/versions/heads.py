"""Heads, the log of their promotions, and what candidates would have decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "candidate_decisions",
        sa.Column("decision", sa.String(64), nullable=False),
        sa.Column("candidate", sa.String(160), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("rung", sa.Integer, nullable=False),
        sa.Column("correct", sa.Double, nullable=False),
        sa.Column("tokens", sa.Double, nullable=False),
        sa.Column("served_correct", sa.Double, nullable=False),
        sa.Column("served_tokens", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("decision", "candidate"),
    )
    op.create_index("candidate_decisions_at", "candidate_decisions", ["at"])
    op.create_table(
        "heads",
        sa.Column("version", sa.String(160), primary_key=True),
        sa.Column("made_at", sa.Double, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "promotions",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("head", sa.String(160)),
        sa.Column("previous", sa.String(160)),
        sa.Column("by", sa.String(128), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
