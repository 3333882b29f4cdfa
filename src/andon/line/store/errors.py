"""Errors of the store that callers tell apart.

AndonError
└── StoreError             the row was not written, or the question was not answered
    ├── RequestConflict    the request id or trigger number belongs to another part
    ├── StoreFull          no space left for the database
    ├── StoreUnavailable   the database cannot be reached, or the store is closed
    └── QueryTimeout       the query took longer than its time limit
"""

from __future__ import annotations

from andon.core.errors import AndonError


class StoreError(AndonError):
    """The row was not written, or the question was not answered."""


class RequestConflict(StoreError):  # noqa: N818 (names what happened)
    """The request id or trigger number belongs to another part."""


class StoreFull(StoreError):  # noqa: N818
    """No space left for the database."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The database cannot be reached, or the store is closed."""


class QueryTimeout(StoreError):  # noqa: N818
    """The query took longer than its time limit."""
