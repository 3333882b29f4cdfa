"""Tables of proposed thresholds and of what a second person decided."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Table, Text

from andon.line.store.schema.base import id_column, metadata

threshold_proposal = Table(
    "threshold_proposal",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("model_id", ForeignKey("model.id"), nullable=False),
    Column("accept", Float, nullable=False),
    Column("reject", Float, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("based_on", ForeignKey("threshold_version.id")),
    Index(None, "station_id", "model_id"),
    comment="rows are added, never changed; based_on: the version in use, NULL for the thresholds of the packed file",
)
threshold_decision = Table(
    "threshold_decision",
    metadata,
    id_column(),
    Column("proposal_id", ForeignKey("threshold_proposal.id"), nullable=False, unique=True),
    Column("approved", Boolean, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    Column("version_id", ForeignKey("threshold_version.id")),
    comment="rows are added, never changed; one for each proposal",
)
