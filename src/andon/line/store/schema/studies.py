"""Table of signed gauge studies."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text

from andon.line.store.schema.base import id_column, metadata

study = Table(
    "study",
    metadata,
    id_column(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("content_json", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("audit_seq", BigInteger, nullable=False),
    Index(None, "station_id", "id"),
    comment="rows are added, never changed; sha256: of content_json, also in the audit row audit_seq",
)
