"""Tables of golden parts: sets of known parts, their items, checks of them, and what a check found."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    Table,
    Text,
)

from andon.line.store.schema.base import id_column, metadata

golden_set = Table(
    "golden_set",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("model_id", ForeignKey("model.id")),
    Column("threshold_version_id", ForeignKey("threshold_version.id")),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index(None, "station_id", "id"),
    comment="rows are added, never changed; the newest one of a station and a model counts. No model: not bound yet",
)
golden_item = Table(
    "golden_item",
    metadata,
    id_column(),
    Column("set_id", ForeignKey("golden_set.id"), nullable=False),
    Column("name", String(300), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("defect_type", Text, nullable=False, server_default=""),
    Column("expected", SmallInteger),
    Column("score", Float),
    Column("low", Float),
    Column("high", Float),
    Column("has_part", Boolean, nullable=False),
    Column("image_key", Text, nullable=False),
    Column("image_sha256", String(64), nullable=False),
    Column("inspection_id", BigInteger),
    Index(None, "set_id"),
    comment="rows are added, never changed; a new set has copies of the items that stay",
)
golden_run = Table(
    "golden_run",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("set_id", ForeignKey("golden_set.id"), nullable=False),
    Column("mode", String(40), nullable=False),
    Column("is_trial", Boolean, nullable=False),
    Column("accept", Float, nullable=False),
    Column("reject", Float, nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
    Index(None, "station_id", "id"),
    comment="rows are added, never changed; is_trial: of a model or thresholds that were not in use",
)
golden_result = Table(
    "golden_result",
    metadata,
    id_column(),
    Column("run_id", ForeignKey("golden_run.id"), nullable=False),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("name", String(300), nullable=False),
    Column("mode", String(40), nullable=False),
    Column("verdict", SmallInteger, nullable=False),
    Column("score", Float),
    Column("cause", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("ms", Float, nullable=False),
    Column("inspection_id", BigInteger),
    Index(None, "run_id"),
    Index(None, "station_id", "id"),
    comment="rows are added, never changed; why: how the item differs from what is expected, empty where it does not",
)
golden_gate = Table(
    "golden_gate",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False, unique=True),
    Column("state_json", Text, nullable=False),
    comment="state_json: what is due, what failed, override; outlives restarts",
)
