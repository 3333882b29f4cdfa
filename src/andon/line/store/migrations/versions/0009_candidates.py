"""Models that are compared with the one in use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0009"
down_revision = "0008"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create `candidate`, `candidate_step` and `candidate_score`, whose rows stay as they are."""
    op.create_table(
        "candidate",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_candidate_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate")),
        sa.UniqueConstraint("station_id", "sha256", name=op.f("uq_candidate_station_id_sha256")),
        comment="rows are added, never changed; file: path of the packed file below the data folder",
    )
    op.create_table(
        "candidate_step",
        sa.Column("id", Id, nullable=False),
        sa.Column("candidate_id", Id, nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("detail_json", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["candidate_id"], ["candidate.id"], name=op.f("fk_candidate_step_candidate_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate_step")),
        comment="what was done with a candidate; rows are added, never changed",
    )
    op.create_index(op.f("ix_candidate_step_candidate_id"), "candidate_step", ["candidate_id"])
    op.create_table(
        "candidate_score",
        sa.Column("id", Id, nullable=False),
        sa.Column("step_id", Id, nullable=False),
        sa.Column("inspection_id", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.SmallInteger(), nullable=False),
        sa.Column("score", sa.Float()),
        sa.Column("ms", sa.Float(), nullable=False),
        sa.Column("base_verdict", sa.SmallInteger(), nullable=False),
        sa.Column("base_score", sa.Float()),
        sa.Column("base_ms", sa.Float(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["step_id"], ["candidate_step.id"], name=op.f("fk_candidate_score_step_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidate_score")),
        sa.UniqueConstraint(
            "step_id", "inspection_id", name=op.f("uq_candidate_score_step_id_inspection_id")
        ),
        comment="rows are added, never changed; base: the model in use. Verdict 0: the part was left out because of cause",
    )
    protect(op.get_bind(), ["candidate", "candidate_step", "candidate_score"])
