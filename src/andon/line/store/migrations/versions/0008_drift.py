"""Tables of the drift watch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0008"
down_revision = "0007"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create tables and indices; references stay as they are."""
    op.create_table(
        "drift_reference",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("parts", sa.BigInteger(), nullable=False),
        sa.Column("content_json", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_drift_reference_station_id")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_drift_reference_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_reference")),
        comment="rows are added, never changed; the newest one of a station and a model counts",
    )
    op.create_index(
        op.f("ix_drift_reference_station_id_model_id_id"), "drift_reference", ["station_id", "model_id", "id"]
    )
    op.create_table(
        "drift_point",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_drift_point_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_point")),
        comment="value: moving average of a number, standard deviations of the reference; n: parts since the reference",
    )
    op.create_index(op.f("ix_drift_point_station_id_at"), "drift_point", ["station_id", "at"])
    op.create_index(op.f("ix_drift_point_at"), "drift_point", ["at"])
    op.create_table(
        "drift_state",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("state_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_drift_state_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_state")),
        sa.UniqueConstraint("station_id", name=op.f("uq_drift_state_station_id")),
        comment="moving averages and what is being learned, which outlive restarts",
    )
    protect(op.get_bind(), ["drift_reference"])
