"""First tables: stations, models, thresholds, recipes, inspections, counters, rules, alarms, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = ("audit", "threshold_version", "rule_version", "alarm_event")
"""Tables whose rows can neither be changed nor deleted."""


def upgrade() -> None:
    """Create tables, indices and the triggers of the append-only tables."""
    _create_tables()
    protect(op.get_bind(), APPEND_ONLY)


def _create_tables() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", Id, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("old_json", sa.Text()),
        sa.Column("new_json", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        comment="hash chain; triggers refuse UPDATE and DELETE",
    )
    op.create_table(
        "model",
        sa.Column("id", Id, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("origin_json", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
        sa.UniqueConstraint("sha256", name=op.f("uq_model_sha256")),
    )
    op.create_table(
        "station",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("line", sa.Text(), server_default="", nullable=False),
        sa.Column("takt_ms", sa.Integer()),
        sa.Column("config_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("state_json", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_station")),
        sa.UniqueConstraint("name", name=op.f("uq_station_name")),
        comment="state_json: state machine of the station, which outlives restarts",
    )
    op.create_table(
        "counter",
        sa.Column("station_id", Id, autoincrement=False, nullable=False),
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("verdict", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_counter_station_id")),
        sa.PrimaryKeyConstraint("station_id", "hour", "verdict", name=op.f("pk_counter")),
        comment="parts of one hour of t_done, written in the transaction of their rows",
    )
    op.create_table(
        "rule_version",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("rule", sa.String(length=300), nullable=False),
        sa.Column("settings_json", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("prev_id", Id),
        sa.ForeignKeyConstraint(["prev_id"], ["rule_version.id"], name=op.f("fk_rule_version_prev_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_rule_version_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_version")),
        comment="rows are added, never changed",
    )
    op.create_index(
        op.f("ix_rule_version_station_id_rule"), "rule_version", ["station_id", "rule"], unique=False
    )
    op.create_table(
        "threshold_version",
        sa.Column("id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("accept", sa.Float(), nullable=False),
        sa.Column("reject", sa.Float(), nullable=False),
        sa.Column("region_sha", sa.String(length=64)),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("prev_id", Id),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_threshold_version_model_id")),
        sa.ForeignKeyConstraint(
            ["prev_id"], ["threshold_version.id"], name=op.f("fk_threshold_version_prev_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_threshold_version")),
        comment="rows are added, never changed",
    )
    op.create_table(
        "alarm",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("rule", sa.String(length=300), nullable=False),
        sa.Column("rule_version_id", Id),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("state_json", sa.Text(), server_default="{}", nullable=False),
        sa.Column("n", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("raised", sa.BigInteger(), nullable=False),
        sa.Column("acked", sa.BigInteger()),
        sa.Column("ack_by", sa.Text()),
        sa.Column("cleared", sa.BigInteger()),
        sa.Column("resolved", sa.BigInteger()),
        sa.Column("resolved_by", sa.Text()),
        sa.Column("cause_code", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("inspection_from", sa.BigInteger()),
        sa.Column("inspection_to", sa.BigInteger()),
        sa.ForeignKeyConstraint(
            ["rule_version_id"], ["rule_version.id"], name=op.f("fk_alarm_rule_version_id")
        ),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_alarm_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm")),
        comment="state_json: state machine of the alarm, which outlives restarts; n: how often it was raised",
    )
    op.create_index(
        "ix_alarm_open",
        "alarm",
        ["station_id", "rule"],
        unique=False,
        sqlite_where=sa.text("resolved IS NULL"),
        postgresql_where=sa.text("resolved IS NULL"),
    )
    op.create_index(op.f("ix_alarm_station_id_id"), "alarm", ["station_id", "id"], unique=False)
    op.create_table(
        "recipe",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("code", sa.String(length=300), nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("threshold_version_id", Id),
        sa.Column("active_from", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_recipe_model_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_recipe_station_id")),
        sa.ForeignKeyConstraint(
            ["threshold_version_id"], ["threshold_version.id"], name=op.f("fk_recipe_threshold_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipe")),
    )
    op.create_index(op.f("ix_recipe_station_id_code"), "recipe", ["station_id", "code"], unique=False)
    op.create_table(
        "alarm_event",
        sa.Column("id", Id, nullable=False),
        sa.Column("alarm_id", Id),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("from_state", sa.String(length=40), nullable=False),
        sa.Column("to_state", sa.String(length=40), nullable=False),
        sa.Column("who", sa.Text(), server_default="", nullable=False),
        sa.Column("cause", sa.Text(), server_default="", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("n", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("inspection_id", sa.BigInteger()),
        sa.ForeignKeyConstraint(["alarm_id"], ["alarm.id"], name=op.f("fk_alarm_event_alarm_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_alarm_event_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alarm_event")),
        comment="every transition; rows are added, never changed. Without alarm_id: a transition of the station",
    )
    op.create_index(op.f("ix_alarm_event_alarm_id"), "alarm_event", ["alarm_id"], unique=False)
    op.create_index(op.f("ix_alarm_event_station_id_id"), "alarm_event", ["station_id", "id"], unique=False)
    op.create_table(
        "inspection",
        sa.Column("id", Id, autoincrement=False, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("session_id", sa.BigInteger(), nullable=False),
        sa.Column("trigger_no", sa.BigInteger()),
        sa.Column("request_id", sa.String(length=300), nullable=False),
        sa.Column("part_id", sa.String(length=300)),
        sa.Column("lot", sa.String(length=300)),
        sa.Column("recipe_id", Id),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("threshold_version_id", Id),
        sa.Column("t_trigger", sa.BigInteger(), nullable=False),
        sa.Column("t_done", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.SmallInteger(), nullable=False),
        sa.Column("score_raw", sa.Float()),
        sa.Column("score", sa.Float()),
        sa.Column("regions_json", sa.Text()),
        sa.Column("ms_json", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("image_state", sa.SmallInteger(), nullable=False),
        sa.Column("image_key", sa.Text()),
        sa.Column("map_key", sa.Text()),
        sa.Column("image_sha256", sa.String(length=64)),
        sa.Column("image_bytes", sa.BigInteger()),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_inspection_model_id")),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipe.id"], name=op.f("fk_inspection_recipe_id")),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_inspection_station_id")),
        sa.ForeignKeyConstraint(
            ["threshold_version_id"],
            ["threshold_version.id"],
            name=op.f("fk_inspection_threshold_version_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inspection")),
        sa.UniqueConstraint("request_id", name=op.f("uq_inspection_request_id")),
        sa.UniqueConstraint(
            "station_id",
            "session_id",
            "trigger_no",
            name=op.f("uq_inspection_station_id_session_id_trigger_no"),
        ),
    )
    op.create_index(
        "ix_inspection_lot",
        "inspection",
        ["lot", "id"],
        unique=False,
        sqlite_where=sa.text("lot IS NOT NULL"),
        postgresql_where=sa.text("lot IS NOT NULL"),
    )
    op.create_index(
        "ix_inspection_not_ok",
        "inspection",
        ["station_id", "verdict", "id"],
        unique=False,
        sqlite_where=sa.text("verdict <> 1"),
        postgresql_where=sa.text("verdict <> 1"),
    )
    op.create_index(
        "ix_inspection_part_id",
        "inspection",
        ["part_id"],
        unique=False,
        sqlite_where=sa.text("part_id IS NOT NULL"),
        postgresql_where=sa.text("part_id IS NOT NULL"),
    )
    op.create_index(
        "ix_inspection_pending",
        "inspection",
        ["id"],
        unique=False,
        sqlite_where=sa.text("image_state = 1"),
        postgresql_where=sa.text("image_state = 1"),
    )
    op.create_index(
        op.f("ix_inspection_station_id_id_verdict_t_done"),
        "inspection",
        ["station_id", "id", "verdict", "t_done"],
        unique=False,
    )
    op.create_index(
        op.f("ix_inspection_station_id_t_done_verdict"),
        "inspection",
        ["station_id", "t_done", "verdict"],
        unique=False,
    )
    op.create_index(
        "ix_inspection_verdict",
        "inspection",
        ["verdict", "id"],
        unique=False,
        sqlite_where=sa.text("verdict <> 1"),
        postgresql_where=sa.text("verdict <> 1"),
    )
