"""Table of the packed files that stations were told to use."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text

from andon.line.store.schema.base import id_column, metadata

model_choice = Table(
    "model_choice",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("code", String(300)),
    Column("pack", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index(None, "station_id"),
    comment="rows are added, never changed; code: of the recipe, NULL for a packed file without one",
)
