"""What all tables share: the metadata with names of indices and keys, and the type of ids."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData

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


def id_column() -> Column[int]:
    """The key `id`, numbered by the database."""
    return Column("id", Id, primary_key=True)
