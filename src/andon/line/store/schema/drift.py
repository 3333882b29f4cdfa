"""Tables of the drift watch: references, points over time, and its state."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, String, Table, Text

from andon.line.store.schema.base import id_column, metadata

drift_reference = Table(
    "drift_reference",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("model_id", ForeignKey("model.id"), nullable=False),
    Column("parts", BigInteger, nullable=False),
    Column("content_json", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index(None, "station_id", "model_id", "id"),
    comment="rows are added, never changed; the newest one of a station and a model counts",
)
drift_point = Table(
    "drift_point",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("name", String(40), nullable=False),
    Column("value", Float, nullable=False),
    Column("n", BigInteger, nullable=False),
    Index(None, "station_id", "at"),
    Index(None, "at"),
    comment="value: moving average of a number, standard deviations of the reference; n: parts since the reference",
)
drift_state = Table(
    "drift_state",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False, unique=True),
    Column("state_json", Text, nullable=False),
    comment="moving averages and what is being learned, which outlive restarts",
)
