"""Rows of inspections: insert once for each request, with counters and the names they refer to."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, func, insert, select

from andon.line.clock import HOUR, Clock
from andon.line.store import rows
from andon.line.store.errors import RequestConflict, StoreError
from andon.line.store.images import Images
from andon.line.store.records import (
    ImageState,
    Inspection,
    NewInspection,
    Recorded,
    Reviewed,
    ms_to_text,
    regions_from_text,
    regions_to_text,
)
from andon.line.store.requests import Request, first_answer, is_answer
from andon.line.store.reviews import enqueue
from andon.line.store.schema import FROM_FOLDER, counter, inspection, model, recipe, review_item, station
from andon.line.verdicts import Cause, Opinion, Queued, Verdict

LOG = logging.getLogger(__name__)

FOLDER_REQUEST = "folder-"
"""Start of the request ids of drop folders, as in `FROM_FOLDER`."""
JOINED = (
    select(
        inspection,
        station.c.name.label("station"),
        model.c.sha256.label("model_sha256"),
        recipe.c.code.label("recipe"),
        review_item.c.opinion,
        review_item.c.defect_type,
        review_item.c.who.label("reviewer"),
        review_item.c.overridden,
    )
    .join(station, inspection.c.station_id == station.c.id)
    .join(model, inspection.c.model_id == model.c.id)
    .outerjoin(recipe, inspection.c.recipe_id == recipe.c.id)
    .outerjoin(review_item, review_item.c.id == inspection.c.id)
)
"""Inspections with the names they refer to, and what people said."""


class Inserter:
    """Writes inspections to one database; used by the writer thread alone."""

    def __init__(self, session: int, images: Images, clock: Clock, box: int) -> None:
        """`box`: the line to which stations belong that are new."""
        self._box = box
        self._session, self._images, self._clock = session, images, clock
        self._ids: dict[tuple[str, ...], int] = {}

    def forget(self) -> None:
        """Drop what was remembered of rows that have been taken back."""
        self._ids.clear()

    def insert(self, connection: Connection, new: NewInspection, number: Callable[[], int]) -> Recorded:
        """Insert the row with the id that `number` gives, or return the first one of the same request."""
        first = connection.execute(JOINED.where(inspection.c.request_id == new.request_id)).one_or_none()
        if first is not None:
            return first_answer(to_inspection(first), Request.of(new))
        self._check_trigger(connection, new)
        state = self._images.admit(new)
        if state is ImageState.NOT_STORED and self._images.required(new):
            new = new.failed(Cause.DISK_FULL)
        row = self._row(new, number(), state, self._same_image(connection, new))
        connection.execute(insert(inspection).values(_columns(row, *self._references(connection, new))))
        self._note(connection, row)
        return Recorded(row.id, False, row)

    def adopt(self, connection: Connection, row: Inspection) -> bool:
        """Insert a row of another database with its id; False where it is there, or its request was answered before.

        A trigger number that is taken is left out; a request id that another part has is marked with the number of the
        row. Raises `StoreError` where the id belongs to another request.
        """
        for request_id in (row.request_id, f"{row.request_id[:250]} ({row.id})"):
            first = connection.execute(JOINED.where(inspection.c.request_id == request_id)).one_or_none()
            if first is None:
                break
            if is_answer(to_inspection(first), Request.of(row)):
                return False
            LOG.warning("inspection %d has a request id of another part: %s", row.id, request_id)
        row = replace(row, request_id=request_id)
        columns = _columns(row, *self._references(connection, row))
        for trigger_no in (row.trigger_no, None):
            new = rows.dialect(connection).insert(inspection).values({**columns, "trigger_no": trigger_no})
            if (
                connection.execute(new.on_conflict_do_nothing().returning(inspection.c.id)).first()
                is not None
            ):
                self._note(connection, row)
                return True
        raise StoreError(f"inspection {row.id} exists with another request: the database has a second writer")

    def station(self, connection: Connection, name: str) -> int:
        """Id of the station, which is added where it is new."""
        return self._id(connection, "station", {"name": name}, {"box_id": self._box})

    def model(self, connection: Connection, sha256: str) -> int:
        """Id of the packed file with this hash, which is added where it is new."""
        return self._id(connection, "model", {"sha256": sha256}, {"created": self._clock()})

    def _note(self, connection: Connection, row: Inspection) -> None:
        """What goes with a new row that is no golden part: its counter, and its place in the queue of reviews."""
        if row.cause == Cause.GOLDEN_PART:
            return
        station_id = self.station(connection, row.station)
        count(connection, station_id, row.t_done, row.verdict)
        enqueue(connection, row, station_id)

    def _check_trigger(self, connection: Connection, new: NewInspection) -> None:
        if new.trigger_no is None:
            return
        same = select(inspection.c.id).where(
            inspection.c.station_id == self.station(connection, new.station),
            inspection.c.session_id == self._session,
            inspection.c.trigger_no == new.trigger_no,
        )
        if (earlier := connection.execute(same).scalar()) is not None:
            raise RequestConflict(
                f"trigger {new.trigger_no} of {new.station} has a result (inspection {earlier}): count triggers up"
            )

    def _same_image(self, connection: Connection, new: NewInspection) -> int | None:
        """The first part of a drop folder with the same bytes."""
        if not new.request_id.startswith(FOLDER_REQUEST) or new.image_sha256 is None:
            return None
        of_station = inspection.c.station_id == self.station(connection, new.station)
        same = select(func.min(inspection.c.id)).where(
            FROM_FOLDER, of_station, inspection.c.image_sha256 == new.image_sha256
        )
        return connection.execute(same).scalar()

    def _row(self, new: NewInspection, number: int, state: ImageState, same_as: int | None) -> Inspection:
        image_key, map_key = self._images.keys(number, new, state, self._clock())
        return Inspection(
            id=number,
            station=new.station,
            session=self._session,
            request_id=new.request_id,
            trigger_no=new.trigger_no,
            part_id=new.part_id,
            lot=new.lot,
            recipe=new.recipe,
            model_sha256=new.model_sha256,
            threshold_version=new.threshold_version,
            t_trigger=new.t_trigger,
            t_done=new.t_done,
            verdict=new.verdict,
            score_raw=new.score_raw,
            score=new.score,
            regions=new.regions,
            ms=json.loads(ms_to_text(new.ms)),
            cause=new.cause,
            image_state=state,
            image_key=image_key,
            map_key=map_key,
            image_sha256=new.image_sha256,
            image_bytes=None if image_key is None else len(new.image or b"") + len(new.map or b""),
            same_as=same_as,
            review_why=new.review_why,
            sample_rate=new.sample_rate,
            triggered=new.triggered,
        )

    def _references(
        self, connection: Connection, new: NewInspection | Inspection
    ) -> tuple[int, int, int | None]:
        station_id = self.station(connection, new.station)
        model_id = self.model(connection, new.model_sha256)
        if new.recipe is None:
            return station_id, model_id, None
        named = {
            "station_id": station_id,
            "code": new.recipe,
            "model_id": model_id,
            "threshold_version_id": new.threshold_version,
        }
        return station_id, model_id, self._id(connection, "recipe", named, {"active_from": new.t_done})

    def _id(
        self, connection: Connection, table: str, named: dict[str, Any], also: dict[str, Any] | None = None
    ) -> int:
        """Id of the row with these values; it is added, with `also`, where there is none."""
        key = (table, *map(str, named.values()))
        if key not in self._ids:
            self._ids[key] = rows.ensure(connection, table, named, **(also or {}))
        return self._ids[key]


def count(connection: Connection, station_id: int, t_done: int, verdict: Verdict, n: int = 1) -> None:
    """Add `n` parts to the counter of their hour."""
    new = (
        rows.dialect(connection)
        .insert(counter)
        .values(station_id=station_id, hour=t_done // HOUR, verdict=verdict.value, n=n)
    )
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["station_id", "hour", "verdict"], set_={"n": counter.c.n + new.excluded.n}
        )
    )


def to_inspection(row: Row[Any]) -> Inspection:
    """An `Inspection` from a row of `JOINED`."""
    values = row._mapping
    return Inspection(
        id=values["id"],
        station=values["station"],
        session=values["session_id"],
        request_id=values["request_id"],
        trigger_no=values["trigger_no"],
        part_id=values["part_id"],
        lot=values["lot"],
        recipe=values["recipe"],
        model_sha256=values["model_sha256"],
        threshold_version=values["threshold_version_id"],
        t_trigger=values["t_trigger"],
        t_done=values["t_done"],
        verdict=Verdict(values["verdict"]),
        score_raw=values["score_raw"],
        score=values["score"],
        regions=regions_from_text(values["regions_json"]),
        ms=json.loads(values["ms_json"]),
        cause=values["cause"],
        image_state=ImageState(values["image_state"]),
        image_key=values["image_key"],
        map_key=values["map_key"],
        image_sha256=values["image_sha256"],
        image_bytes=values["image_bytes"],
        same_as=values["same_as"],
        review_why=None if values["review_why"] is None else Queued(values["review_why"]),
        sample_rate=values["sample_rate"],
        reviewed=_reviewed(values),
        triggered=values["triggered"],
    )


def _reviewed(values: RowMapping) -> Reviewed | None:
    if values["opinion"] is None:
        return None
    return Reviewed(
        Opinion(values["opinion"]), values["defect_type"], values["reviewer"], bool(values["overridden"])
    )


def _columns(row: Inspection, station_id: int, model_id: int, recipe_id: int | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "station_id": station_id,
        "session_id": row.session,
        "trigger_no": row.trigger_no,
        "request_id": row.request_id,
        "part_id": row.part_id,
        "lot": row.lot,
        "recipe_id": recipe_id,
        "model_id": model_id,
        "threshold_version_id": row.threshold_version,
        "t_trigger": row.t_trigger,
        "t_done": row.t_done,
        "verdict": row.verdict.value,
        "score_raw": row.score_raw,
        "score": row.score,
        "regions_json": regions_to_text(row.regions),
        "ms_json": ms_to_text(row.ms),
        "cause": row.cause,
        "image_state": row.image_state.value,
        "image_key": row.image_key,
        "map_key": row.map_key,
        "image_sha256": row.image_sha256,
        "image_bytes": row.image_bytes,
        "same_as": row.same_as,
        "review_why": row.review_why,
        "sample_rate": row.sample_rate,
        "triggered": row.triggered,
    }
