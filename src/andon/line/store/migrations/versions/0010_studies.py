"""Table of signed gauge studies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0010"
down_revision = "0009"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table; its rows stay as they are."""
    op.create_table(
        "study",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("content_json", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("audit_seq", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_study_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        comment="rows are added, never changed; sha256: of content_json, also in the audit row audit_seq",
    )
    op.create_index(op.f("ix_study_station_id_id"), "study", ["station_id", "id"])
    protect(op.get_bind(), ["study"])
