"""Tables of accounts, their log-ins, and tokens of programs. Of every secret only a hash is stored."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, SmallInteger, String, Table, Text

from andon.line.store.schema.base import id_column, metadata

account = Table(
    "account",
    metadata,
    id_column(),
    Column("name", String(100), nullable=False, unique=True),
    Column("role", SmallInteger, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("pin_hash", Text),
    Column("is_disabled", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
)
login = Table(
    "login",
    metadata,
    id_column(),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
    comment="secret_hash: SHA-256 of the cookie",
)
api_token = Table(
    "api_token",
    metadata,
    id_column(),
    Column("name", String(100), nullable=False, unique=True),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("role", SmallInteger, nullable=False),
    Column("sends", Boolean, nullable=False),
    Column("station", String(300)),
    Column("created", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires", BigInteger),
)
