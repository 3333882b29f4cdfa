"""Tables of the store, alike on SQLite and PostgreSQL. Times are microseconds UTC, enumerations small integers or short texts.

The migrations in `migrations/` create them; `tests/line/test_store_schema.py` compares both.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from andon.line.verdicts import Verdict

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; SQLite numbers rows itself only where the type is INTEGER."""
NOT_OK = text(f"verdict <> {Verdict.OK.value}")
"""Condition of the partial index of parts that did not pass; queries repeat it word for word to use the index."""


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True)


station = Table(
    "station",
    metadata,
    _id(),
    Column("name", String(300), nullable=False, unique=True),
    Column("line", Text, nullable=False, server_default=""),
    Column("takt_ms", Integer),
    Column("config_json", Text, nullable=False, server_default="{}"),
    Column("state_json", Text),
    comment="state_json: state machine of the station, which outlives restarts",
)
model = Table(
    "model",
    metadata,
    _id(),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("kind", Text, nullable=False, server_default=""),
    Column("created", BigInteger, nullable=False),
    Column("origin_json", Text, nullable=False, server_default="{}"),
)
threshold_version = Table(
    "threshold_version",
    metadata,
    _id(),
    Column("model_id", ForeignKey("model.id"), nullable=False),
    Column("accept", Float, nullable=False),
    Column("reject", Float, nullable=False),
    Column("region_sha", String(64)),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("prev_id", ForeignKey("threshold_version.id")),
    comment="rows are added, never changed",
)
recipe = Table(
    "recipe",
    metadata,
    _id(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("code", String(300), nullable=False),
    Column("model_id", ForeignKey("model.id"), nullable=False),
    Column("threshold_version_id", ForeignKey("threshold_version.id")),
    Column("active_from", BigInteger, nullable=False),
    Column("who", Text, nullable=False, server_default=""),
    Index(None, "station_id", "code"),
)
inspection = Table(
    "inspection",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("session_id", BigInteger, nullable=False),
    Column("trigger_no", BigInteger),
    Column("request_id", String(300), nullable=False, unique=True),
    Column("part_id", String(300)),
    Column("lot", String(300)),
    Column("recipe_id", ForeignKey("recipe.id")),
    Column("model_id", ForeignKey("model.id"), nullable=False),
    Column("threshold_version_id", ForeignKey("threshold_version.id")),
    Column("t_trigger", BigInteger, nullable=False),
    Column("t_done", BigInteger, nullable=False),
    Column("verdict", SmallInteger, nullable=False),
    Column("score_raw", Float),
    Column("score", Float),
    Column("regions_json", Text),
    Column("ms_json", Text, nullable=False),
    Column("cause", Text, nullable=False),
    Column("image_state", SmallInteger, nullable=False),
    Column("image_key", Text),
    Column("map_key", Text),
    Column("image_sha256", String(64)),
    Column("image_bytes", BigInteger),
    UniqueConstraint("station_id", "session_id", "trigger_no"),
    Index(None, "station_id", "id", "verdict", "t_done"),
    Index("ix_inspection_part_id", "part_id", sqlite_where=text("part_id IS NOT NULL"),
          postgresql_where=text("part_id IS NOT NULL")),
    Index("ix_inspection_lot", "lot", "id", sqlite_where=text("lot IS NOT NULL"),
          postgresql_where=text("lot IS NOT NULL")),
    Index("ix_inspection_not_ok", "station_id", "verdict", "id", sqlite_where=NOT_OK, postgresql_where=NOT_OK),
    Index("ix_inspection_verdict", "verdict", "id", sqlite_where=NOT_OK, postgresql_where=NOT_OK),
    Index(None, "station_id", "t_done", "verdict"),
    Index("ix_inspection_pending", "id", sqlite_where=text("image_state = 1"),
          postgresql_where=text("image_state = 1")),
)  # fmt: skip
counter = Table(
    "counter",
    metadata,
    Column("station_id", ForeignKey("station.id"), primary_key=True, autoincrement=False),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("verdict", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
    comment="parts of one hour of t_done, written in the transaction of their rows",
)
rule_version = Table(
    "rule_version",
    metadata,
    _id(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("rule", String(300), nullable=False),
    Column("settings_json", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("prev_id", ForeignKey("rule_version.id")),
    Index(None, "station_id", "rule"),
    comment="rows are added, never changed",
)
alarm = Table(
    "alarm",
    metadata,
    _id(),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("rule", String(300), nullable=False),
    Column("rule_version_id", ForeignKey("rule_version.id")),
    Column("state", String(40), nullable=False),
    Column("state_json", Text, nullable=False, server_default="{}"),
    Column("n", BigInteger, nullable=False, server_default="1"),
    Column("raised", BigInteger, nullable=False),
    Column("acked", BigInteger),
    Column("ack_by", Text),
    Column("cleared", BigInteger),
    Column("resolved", BigInteger),
    Column("resolved_by", Text),
    Column("cause_code", Text),
    Column("note", Text),
    Column("inspection_from", BigInteger),
    Column("inspection_to", BigInteger),
    Index(None, "station_id", "id"),
    Index("ix_alarm_open", "station_id", "rule", sqlite_where=text("resolved IS NULL"),
          postgresql_where=text("resolved IS NULL")),
    comment="state_json: state machine of the alarm, which outlives restarts; n: how often it was raised",
)  # fmt: skip
alarm_event = Table(
    "alarm_event",
    metadata,
    _id(),
    Column("alarm_id", ForeignKey("alarm.id")),
    Column("station_id", ForeignKey("station.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("event", String(40), nullable=False),
    Column("from_state", String(40), nullable=False),
    Column("to_state", String(40), nullable=False),
    Column("who", Text, nullable=False, server_default=""),
    Column("cause", Text, nullable=False, server_default=""),
    Column("note", Text, nullable=False, server_default=""),
    Column("n", BigInteger, nullable=False, server_default="0"),
    Column("inspection_id", BigInteger),
    Index(None, "alarm_id"),
    Index(None, "station_id", "id"),
    comment="every transition; rows are added, never changed. Without alarm_id: a transition of the station",
)
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("old_json", Text),
    Column("new_json", Text),
    Column("reason", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    comment="hash chain; triggers refuse UPDATE and DELETE",
)
