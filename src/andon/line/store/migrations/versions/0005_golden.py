"""Tables of golden parts: sets, items, runs, results, and what is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0005"
down_revision = "0004"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create tables, indices and the triggers of the append-only tables."""
    op.create_table(
        "golden_gate",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("state_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_golden_gate_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_gate")),
        sa.UniqueConstraint("station_id", name=op.f("uq_golden_gate_station_id")),
        comment="state_json: what is due, what failed, override; outlives restarts",
    )
    op.create_table(
        "golden_set",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=True),
        sa.Column("threshold_version_id", Id, nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_golden_set_model_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_golden_set_station_id")),
        sa.ForeignKeyConstraint(
            ["threshold_version_id"],
            ["threshold_version.id"],
            name=op.f("fk_golden_set_threshold_version_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_set")),
        comment="rows are added, never changed; the newest one of a station and a model counts. No model: not bound yet",
    )
    op.create_index(op.f("ix_golden_set_station_id_id"), "golden_set", ["station_id", "id"], unique=False)
    op.create_table(
        "golden_item",
        sa.Column("id", Id, nullable=False),
        sa.Column("set_id", Id, nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("defect_type", sa.Text(), server_default="", nullable=False),
        sa.Column("expected", sa.SmallInteger(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("has_part", sa.Boolean(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("inspection_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["set_id"], ["golden_set.id"], name=op.f("fk_golden_item_set_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_item")),
        comment="rows are added, never changed; a new set has copies of the items that stay",
    )
    op.create_index(op.f("ix_golden_item_set_id"), "golden_item", ["set_id"], unique=False)
    op.create_table(
        "golden_run",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("set_id", Id, nullable=False),
        sa.Column("mode", sa.String(length=40), nullable=False),
        sa.Column("is_trial", sa.Boolean(), nullable=False),
        sa.Column("accept", sa.Float(), nullable=False),
        sa.Column("reject", sa.Float(), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["set_id"], ["golden_set.id"], name=op.f("fk_golden_run_set_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_golden_run_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_run")),
        comment="rows are added, never changed; is_trial: of a model or thresholds that were not in use",
    )
    op.create_index(op.f("ix_golden_run_station_id_id"), "golden_run", ["station_id", "id"], unique=False)
    op.create_table(
        "golden_result",
        sa.Column("id", Id, nullable=False),
        sa.Column("run_id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("mode", sa.String(length=40), nullable=False),
        sa.Column("verdict", sa.SmallInteger(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("ms", sa.Float(), nullable=False),
        sa.Column("inspection_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["golden_run.id"], name=op.f("fk_golden_result_run_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_golden_result_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_golden_result")),
        comment="rows are added, never changed; why: how the item differs from what is expected, empty where it does not",
    )
    op.create_index(op.f("ix_golden_result_run_id"), "golden_result", ["run_id"], unique=False)
    op.create_index(
        op.f("ix_golden_result_station_id_id"), "golden_result", ["station_id", "id"], unique=False
    )
    protect(op.get_bind(), ("golden_set", "golden_item", "golden_run", "golden_result"))
