"""Outbox: how far other machines have been told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "outbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("sink", sa.String(length=100), nullable=False),
        sa.Column("stream", sa.String(length=20), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lost", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("sink", "stream", name=op.f("uq_outbox_sink_stream")),
        comment="position: id of the last inspection (stream result) or alarm_event (alarm) that the sink has",
    )
