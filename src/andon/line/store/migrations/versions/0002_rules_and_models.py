"""Versions hold all rules of a station; which packed file a station uses; images of a drop folder that came before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from andon.line.store.append_only import protect

revision = "0002"
down_revision = "0001"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FROM_FOLDER = sa.text("substr(request_id, 1, 7) = 'folder-'")


def upgrade() -> None:
    """Change `rule_version` and `inspection`, create `model_choice`."""
    op.drop_index(op.f("ix_rule_version_station_id_rule"), "rule_version")
    op.drop_column("rule_version", "rule")
    op.create_index(op.f("ix_rule_version_station_id"), "rule_version", ["station_id"])
    op.create_table(
        "model_choice",
        sa.Column("id", Id, nullable=False),
        sa.Column("station_id", Id, nullable=False),
        sa.Column("code", sa.String(length=300)),
        sa.Column("pack", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["station_id"], ["station.id"], name=op.f("fk_model_choice_station_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_choice")),
        comment="rows are added, never changed; code: of the recipe, NULL for a packed file without one",
    )
    op.create_index(op.f("ix_model_choice_station_id"), "model_choice", ["station_id"])
    protect(op.get_bind(), ["model_choice"])
    op.add_column("inspection", sa.Column("same_as", sa.BigInteger()))
    op.create_index(
        "ix_inspection_folder_image",
        "inspection",
        ["station_id", "image_sha256"],
        sqlite_where=FROM_FOLDER,
        postgresql_where=FROM_FOLDER,
    )
