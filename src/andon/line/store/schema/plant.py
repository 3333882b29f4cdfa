"""Tables of the lines that share a database, and what each says of its stations."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, String, Table, Text

from andon.line.store.schema.base import Id, metadata

box = Table(
    "box",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("name", String(300), nullable=False, unique=True),
    Column("address", Text, nullable=False, server_default=""),
    Column("seen", BigInteger),
    comment="one line, run by one process; seen: its last sign of life, by the clock of the database",
)
station_report = Table(
    "station_report",
    metadata,
    Column("station_id", ForeignKey("station.id"), primary_key=True, autoincrement=False),
    Column("report_json", Text, nullable=False),
    comment="what the line of a station said last of its state and counts",
)
