"""Lines that share a database, and what each says of its stations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables; a station belongs to the first line that claims it."""
    op.create_table(
        "box",
        sa.Column("id", Id, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_box")),
        sa.UniqueConstraint("name", name=op.f("uq_box_name")),
        comment="one line, run by one process; seen: its last sign of life, by the clock of the database",
    )
    op.create_table(
        "station_report",
        sa.Column("station_id", Id, autoincrement=False, nullable=False),
        sa.Column("report_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_station_report_station_id")),
        sa.PrimaryKeyConstraint("station_id", name=op.f("pk_station_report")),
        comment="what the line of a station said last of its state and counts",
    )
    op.add_column("station", sa.Column("box_id", sa.BigInteger()))
