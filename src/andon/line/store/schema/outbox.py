"""Table of what was delivered to other machines."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Table, UniqueConstraint

from andon.line.store.schema.base import id_column, metadata

outbox = Table(
    "outbox",
    metadata,
    id_column(),
    Column("sink", String(100), nullable=False),
    Column("stream", String(20), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False, server_default="0"),
    Column("lost", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("sink", "stream"),
    comment="position: id of the last inspection (stream result) or alarm_event (alarm) that the sink has",
)
