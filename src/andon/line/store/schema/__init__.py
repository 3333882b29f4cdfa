"""Tables of the store, alike on SQLite and PostgreSQL. Times are microseconds UTC, enumerations small integers or short texts.

One module for each subject. The migrations in `migrations/` create them; `tests/line/test_store_schema.py` compares both.
"""

from andon.line.store.schema.accounts import account, api_token, login
from andon.line.store.schema.base import metadata
from andon.line.store.schema.candidates import candidate, candidate_score, candidate_step
from andon.line.store.schema.choices import model_choice
from andon.line.store.schema.drift import drift_point, drift_reference, drift_state
from andon.line.store.schema.golden import golden_gate, golden_item, golden_result, golden_run, golden_set
from andon.line.store.schema.inspections import (
    FROM_FOLDER,
    NOT_OK,
    alarm,
    alarm_event,
    audit,
    counter,
    inspection,
    model,
    recipe,
    station,
)
from andon.line.store.schema.outbox import outbox
from andon.line.store.schema.plant import box, station_report
from andon.line.store.schema.proposals import threshold_decision, threshold_proposal
from andon.line.store.schema.reviews import review, review_item
from andon.line.store.schema.studies import study

__all__ = [
    "FROM_FOLDER",
    "NOT_OK",
    "account",
    "alarm",
    "alarm_event",
    "api_token",
    "audit",
    "box",
    "candidate",
    "candidate_score",
    "candidate_step",
    "counter",
    "drift_point",
    "drift_reference",
    "drift_state",
    "golden_gate",
    "golden_item",
    "golden_result",
    "golden_run",
    "golden_set",
    "inspection",
    "login",
    "metadata",
    "model",
    "model_choice",
    "outbox",
    "recipe",
    "review",
    "review_item",
    "station",
    "station_report",
    "study",
    "threshold_decision",
    "threshold_proposal",
]
