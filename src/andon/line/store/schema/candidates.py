"""Tables of models that are compared with the one in use: files, what was done with them, scores of both on the same parts."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from andon.line.store.schema.base import id_column, metadata

candidate = Table(
    "candidate",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("name", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    UniqueConstraint("station_id", "sha256"),
    comment="rows are added, never changed; file: path of the packed file below the data folder",
)
candidate_step = Table(
    "candidate_step",
    metadata,
    id_column(),
    Column("candidate_id", ForeignKey("candidate.id"), nullable=False),
    Column("action", String(40), nullable=False),
    Column("detail_json", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index(None, "candidate_id"),
    comment="what was done with a candidate; rows are added, never changed",
)
candidate_score = Table(
    "candidate_score",
    metadata,
    id_column(),
    Column("step_id", ForeignKey("candidate_step.id"), nullable=False),
    Column("inspection_id", BigInteger, nullable=False),
    Column("verdict", SmallInteger, nullable=False),
    Column("score", Float),
    Column("ms", Float, nullable=False),
    Column("base_verdict", SmallInteger, nullable=False),
    Column("base_score", Float),
    Column("base_ms", Float, nullable=False),
    Column("cause", Text, nullable=False),
    UniqueConstraint("step_id", "inspection_id"),
    comment="rows are added, never changed; base: the model in use. Verdict 0: the part was left out because of cause",
)
