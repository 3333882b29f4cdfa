"""Tables of what people say about parts, and of the parts that wait for them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, SmallInteger, String, Table, Text, text

from andon.line.store.schema.base import Id, id_column, metadata

OPEN = text("review_item.given < review_item.wanted")
"""Condition of the partial index of parts that wait; queries repeat it word for word."""

review = Table(
    "review",
    metadata,
    id_column(),
    Column("inspection_id", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("opinion", SmallInteger, nullable=False),
    Column("verdict", SmallInteger, nullable=False),
    Column("defect_type", String(100)),
    Column("reason", Text, nullable=False),
    Column("blind", SmallInteger, nullable=False),
    Column("prev_id", ForeignKey("review.id")),
    Index(None, "inspection_id", "id"),
    comment="rows are added, never changed; opinion: 1 for the first person, 2 for the second",
)
review_item = Table(
    "review_item",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("why", SmallInteger),
    Column("wanted", SmallInteger, nullable=False),
    Column("given", SmallInteger, nullable=False),
    Column("first_who", Text),
    Column("lease_who", Text),
    Column("lease_until", BigInteger),
    Column("review_id", ForeignKey("review.id")),
    Column("opinion", SmallInteger),
    Column("defect_type", String(100)),
    Column("who", Text),
    Column("overridden", SmallInteger, nullable=False),
    Index("ix_review_item_open", "id", sqlite_where=text("given < wanted"),
          postgresql_where=text("given < wanted")),
    Index("ix_review_item_lease", "lease_who", sqlite_where=text("lease_who IS NOT NULL"),
          postgresql_where=text("lease_who IS NOT NULL")),
    Index("ix_review_item_judged", "id", "overridden", sqlite_where=text("opinion IS NOT NULL"),
          postgresql_where=text("opinion IS NOT NULL")),
    comment="id: of the inspection; opinions wanted and given, who looks at the part now, and the opinion that counts",
)  # fmt: skip
