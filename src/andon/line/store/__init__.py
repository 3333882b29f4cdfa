"""Inspection store: rows in SQLite or PostgreSQL, images as files. SQLAlchemy and alembic are imported here.

`Connection` is what `Store.write` and `Store.ask` give to a function; other packages hand it on to functions of the store.
"""

from sqlalchemy import Connection as Connection

from andon.line.store.connection import Durability as Durability
from andon.line.store.errors import QueryTimeout as QueryTimeout
from andon.line.store.errors import RequestConflict as RequestConflict
from andon.line.store.errors import StoreError as StoreError
from andon.line.store.errors import StoreFull as StoreFull
from andon.line.store.errors import StoreUnavailable as StoreUnavailable
from andon.line.store.images import DiskLevel as DiskLevel
from andon.line.store.images import DiskLimits as DiskLimits
from andon.line.store.queries import ReviewFilter as ReviewFilter
from andon.line.store.records import ImageState as ImageState
from andon.line.store.records import Inspection as Inspection
from andon.line.store.records import NewInspection as NewInspection
from andon.line.store.records import PastScore as PastScore
from andon.line.store.records import PastVerdict as PastVerdict
from andon.line.store.records import Recorded as Recorded
from andon.line.store.requests import Request as Request
from andon.line.store.store import Store as Store
