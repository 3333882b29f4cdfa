"""Reviews by people, and the parts that wait for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0007"
down_revision = "0006"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create `review` and `review_item`, change `inspection`."""
    op.create_table(
        "review",
        sa.Column("id", Id, nullable=False),
        sa.Column("inspection_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("opinion", sa.SmallInteger(), nullable=False),
        sa.Column("verdict", sa.SmallInteger(), nullable=False),
        sa.Column("defect_type", sa.String(length=100)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("blind", sa.SmallInteger(), nullable=False),
        sa.Column("prev_id", Id),
        sa.ForeignKeyConstraint(["prev_id"], ["review.id"], name=op.f("fk_review_prev_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
        comment="rows are added, never changed; opinion: 1 for the first person, 2 for the second",
    )
    op.create_index(op.f("ix_review_inspection_id_id"), "review", ["inspection_id", "id"])
    op.create_table(
        "review_item",
        sa.Column("id", Id, autoincrement=False, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("why", sa.SmallInteger()),
        sa.Column("wanted", sa.SmallInteger(), nullable=False),
        sa.Column("given", sa.SmallInteger(), nullable=False),
        sa.Column("first_who", sa.Text()),
        sa.Column("lease_who", sa.Text()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("review_id", Id),
        sa.Column("opinion", sa.SmallInteger()),
        sa.Column("defect_type", sa.String(length=100)),
        sa.Column("who", sa.Text()),
        sa.Column("overridden", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_review_item_station_id")),
        sa.ForeignKeyConstraint(["review_id"], ["review.id"], name=op.f("fk_review_item_review_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_item")),
        comment="id: of the inspection; opinions wanted and given, who looks at the part now, and the opinion that counts",
    )
    _partial_index("ix_review_item_open", "review_item", ["id"], "given < wanted")
    _partial_index("ix_review_item_lease", "review_item", ["lease_who"], "lease_who IS NOT NULL")
    _partial_index("ix_review_item_judged", "review_item", ["id", "overridden"], "opinion IS NOT NULL")
    protect(op.get_bind(), ["review"])
    op.add_column("inspection", sa.Column("review_why", sa.SmallInteger()))
    op.add_column("inspection", sa.Column("sample_rate", sa.Float()))
    _partial_index("ix_inspection_drawn", "inspection", ["station_id", "id"], "sample_rate IS NOT NULL")


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
