"""Proposed thresholds and what a second person decided."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0004"
down_revision = "0003"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create `threshold_proposal` and `threshold_decision`, whose rows stay as they are."""
    op.create_table(
        "threshold_proposal",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("accept", sa.Float(), nullable=False),
        sa.Column("reject", sa.Float(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("based_on", Id),
        sa.ForeignKeyConstraint(
            ["based_on"], ["threshold_version.id"], name=op.f("fk_threshold_proposal_based_on")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_threshold_proposal_model_id")),
        sa.ForeignKeyConstraint(
            ["station_id"], ["station.id"], name=op.f("fk_threshold_proposal_station_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold_proposal")),
        comment="rows are added, never changed; based_on: the version in use, NULL for the thresholds of the packed file",
    )
    op.create_index(
        op.f("ix_threshold_proposal_station_id_model_id"), "threshold_proposal", ["station_id", "model_id"]
    )
    op.create_table(
        "threshold_decision",
        sa.Column("id", Id, nullable=False),
        sa.Column("proposal_id", Id, nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("version_id", Id),
        sa.ForeignKeyConstraint(
            ["proposal_id"], ["threshold_proposal.id"], name=op.f("fk_threshold_decision_proposal_id")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["threshold_version.id"], name=op.f("fk_threshold_decision_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold_decision")),
        sa.UniqueConstraint("proposal_id", name=op.f("uq_threshold_decision_proposal_id")),
        comment="rows are added, never changed; one for each proposal",
    )
    protect(op.get_bind(), ["threshold_proposal", "threshold_decision"])
