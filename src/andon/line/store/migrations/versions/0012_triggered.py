"""Whether the line took the image of a part for a request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column; rows that are there do not say it."""
    op.add_column("inspection", sa.Column("triggered", sa.Boolean()))
