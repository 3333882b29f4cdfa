"""Candidates of all stations: kept, compared with the model in use, run beside it. Nothing of it is waited for by judging.

    made = line.candidates.add("press", Path("upload/part-2.andon"), who="eva", why="trained with the parts of May")
    line.candidates.compare("press", made.id, who="eva")

One thread of low priority does all of it, with one processor core, and gives way while a station judges.
"""

from __future__ import annotations

import logging
import re
import shutil
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from andon.core.errors import AndonError, DataError, UsageError
from andon.core.files import writing_errors
from andon.line import versions
from andon.line.andon_states import NotAllowed
from andon.line.candidates.comparing import (
    SECONDS,
    Comparison,
    chosen_parts,
    resumed,
)
from andon.line.candidates.shadow import Shadow
from andon.line.candidates.standing import Action, Standing, standing
from andon.line.candidates.work import Work
from andon.line.judge import Judging, Thresholds
from andon.line.settings import of_station
from andon.line.station import Station
from andon.line.store import DiskLevel
from andon.line.store import candidates as stored
from andon.line.store.audit import Entry, append
from andon.line.store.candidates import Candidate, Step

LOG = logging.getLogger(__name__)

FOLDER, SUFFIX = "candidates", ".andon"
"""Of the packed files, below the data folder."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
SAMPLE, MOST_SAMPLE = 500, 10_000
"""Parts of the random sample of a comparison."""


class View(NamedTuple):
    """A candidate and where it stands."""

    candidate: Candidate
    standing: Standing
    done: int
    """Parts of the newest comparison that are judged."""
    total: int
    shadowed: int
    """Parts of the newest shadow run that are judged."""
    dropped: int
    """Parts that shadow mode has left out since the start, because too many waited."""
    is_used: bool
    """Whether it judges now."""


class Candidates(Work):
    """Any thread may ask and act. Errors of people are `UsageError`s, of files `DataError`s."""

    # What is there -------------------------------------------------------------------------------------------------

    def all(self, station: str) -> list[View]:
        """Candidates of a station, newest first."""
        found = self._store.ask(lambda connection: stored.candidates(connection, self._known(station).name))
        return [self._view(candidate) for candidate in found]

    def one(self, station: str, id: int) -> View:
        """A candidate of a station. Raises `UsageError` where there is none."""
        return self._view(self._candidate(station, id))

    def pack_in_use(self, station: str) -> Path:
        """Packed file of the model in use."""
        return self._models.pack(station)

    def pairs(self, step: Step) -> list[stored.Pair]:
        """What both models say of the parts of a comparison or a shadow run."""
        return self._store.ask(lambda connection: stored.pairs(connection, step.id), seconds=SECONDS)

    # What people do ------------------------------------------------------------------------------------------------

    @contextmanager
    def incoming(self, name: str) -> Iterator[Path]:
        """Path for the packed file of a new candidate, which is deleted at the end unless `add` has taken it."""
        stem = name.removesuffix(SUFFIX)
        if not NAME.fullmatch(stem):
            raise UsageError(
                f"{name!r} is no name of a candidate: give 1 to 60 letters a-z, digits, -, _ and ."
            )
        if self._store.disk() is not DiskLevel.OK:
            raise UsageError(f"no candidate is taken: {self._store.disk().says}")
        folder = self._store.folder / FOLDER / f"incoming-{uuid.uuid4().hex}"
        with writing_errors(folder):
            folder.mkdir(parents=True)
        try:
            yield folder / f"{stem}{SUFFIX}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def delivered(self, name: str) -> Path:
        """A packed file that somebody laid into `candidates/` of the data folder."""
        path = self._store.folder / FOLDER / name
        if Path(name).name != name or not path.is_file():
            raise UsageError(f"there is no file {name!r} in {path.parent}: copy it there")
        return path

    def add(self, station: str, pack: Path, *, who: str, why: str, given: str = "") -> Candidate:
        """Verify a packed file and keep it; the same file again is the same candidate. `pack`: a path of `incoming`.

        `given`: the name by which its sender knows it, for messages.

        Raises `DataError` where it is no packed model, or does not answer as where it was made.
        """
        known, named = self._known(station), given or pack.name
        try:
            judge = self._open(pack)
            judge.self_check()
        except AndonError as error:
            raise DataError(f"{named} is not taken: {str(error).replace(str(pack), named)}") from None
        if judge.sha256 == known.model.sha256:
            raise UsageError(f"{named} judges at station {station} already: give another file")
        place = f"{FOLDER}/{judge.sha256[:16]}/{pack.name}"
        values = {"sha256": judge.sha256, "name": judge.name, "file": place}

        def write(connection: Any) -> Candidate:
            at, number = self._store.clock(), versions.station_id(connection, station)
            id = stored.add(connection, number, **values, why=why, who=who, at=at)
            new = {"candidate": id, **values}
            append(connection, Entry(who, "candidate added", f"station {station}", new=new, reason=why), at)
            return Candidate(id, station, **values, why=why, who=who, at=at)

        with self._acting:
            known_ones = self._store.ask(lambda connection: stored.candidates(connection, station))
            same = next((each for each in known_ones if each.sha256 == judge.sha256), None)
            if same is not None:
                return same
            target = self._store.folder / place
            with writing_errors(target):
                target.parent.mkdir(exist_ok=True)
                pack.chmod(0o444)
                pack.replace(target)
            return self._store.write(write).result()

    def compare(self, station: str, id: int, *, who: str, sample: int = SAMPLE) -> Step:
        """Judge reviewed parts and a random sample of the newest ones by the candidate and the model in use.

        Returns at once; an unfinished comparison goes on after a restart. Raises `NotAllowed` where one runs.
        """
        known, candidate = self._known(station), self._candidate(station, id)
        if not 0 <= sample <= MOST_SAMPLE:
            raise UsageError(f"a sample has 0 to {MOST_SAMPLE} parts, not {sample}")
        with self._acting:
            if self._standing(candidate).is_comparing:
                raise NotAllowed(f"candidate {id} is being compared: wait for the result")
            parts = chosen_parts(self._store, station, known.recipe, sample, seed=candidate.id)
            if not parts:
                raise NotAllowed(f"station {station} has no parts with images to compare with")
            judge, thresholds = self._opened(known, candidate)
            detail = {**_models(known, thresholds), "sample": sample, "parts": parts}
            step = self.note(
                candidate, Action.COMPARE, detail, who, "", shown={"parts": len(parts), "sample": sample}
            )
            with self._news:
                self._comparisons.append(Comparison(candidate, step, deque(parts), judge=judge))
                self._news.notify_all()
        return step

    def shadow_on(self, station: str, id: int, *, who: str, why: str = "") -> None:
        """Let the candidate score parts after their answers, at most `MOST_PARTS`. Its verdicts reach nobody.

        It takes the place of another candidate of the station. Raises `NotAllowed` where it judges or runs already.
        """
        known, candidate = self._known(station), self._candidate(station, id)
        with self._acting:
            if self._standing(candidate).is_shadow or candidate.sha256 == known.model.sha256:
                raise NotAllowed(f"candidate {id} scores the parts of station {station} already")
            judge, thresholds = self._opened(known, candidate)
            self._end_shadow(station, who, f"candidate {id} takes its place")
            step = self.note(candidate, Action.SHADOW_ON, _models(known, thresholds), who, why)
            with self._news:
                self._shadows[station] = Shadow(candidate, step, judge=judge)

    def shadow_off(self, station: str, *, who: str, why: str = "") -> None:
        """End shadow mode. Raises `NotAllowed` where no candidate runs."""
        with self._acting:
            if not self._end_shadow(station, who, why):
                raise NotAllowed(f"no candidate of station {self._known(station).name} is in shadow mode")

    # What the line reports -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Go on with what was not complete."""
        for station in self._stations:
            for view in reversed(self.all(station)):
                step, shadow = view.standing.comparison, view.standing.shadow
                if view.standing.is_comparing and step is not None:
                    self._comparisons.append(resumed(self._store, view.candidate, step))
                if view.standing.is_shadow and shadow is not None:
                    self._shadows[station] = Shadow(view.candidate, shadow, count=view.shadowed)
        self._thread.start()

    # Inside --------------------------------------------------------------------------------------------------------

    def _opened(self, station: Station, candidate: Candidate) -> tuple[Judging, Thresholds]:
        """The candidate with the thresholds that it would judge by."""
        judge = self._open(self.pack(candidate))
        return judge, versions.at_start(self._store, station.name, judge, station.settings.thresholds)

    def _standing(self, candidate: Candidate) -> Standing:
        return standing(self._store.ask(lambda connection: stored.steps(connection, candidate.id)))

    def _view(self, candidate: Candidate) -> View:
        found = self._standing(candidate)
        shadow = self._shadows.get(candidate.station)
        runs = shadow is not None and shadow.candidate.id == candidate.id
        return View(
            candidate,
            found,
            self._count(found.comparison),
            len(found.comparison.detail["parts"]) if found.comparison else 0,
            self._count(found.shadow),
            shadow.dropped if shadow is not None and runs else 0,
            self._stations[candidate.station].model.sha256 == candidate.sha256,
        )

    def _count(self, step: Step | None) -> int:
        return 0 if step is None else self._store.ask(lambda connection: stored.count(connection, step.id))

    def _known(self, station: str) -> Station:
        return of_station(self._stations, station)

    def _candidate(self, station: str, id: int) -> Candidate:
        name = self._known(station).name
        found = self._store.ask(lambda connection: stored.candidates(connection, name))
        chosen = next((each for each in found if each.id == id), None)
        if chosen is None:
            raise UsageError(f"station {station} has no candidate {id}: choose one of its list")
        return chosen


def _models(station: Station, thresholds: Thresholds) -> dict[str, Any]:
    """Both models of a step: hash and thresholds of the one in use, thresholds of the candidate."""
    return {
        "base_sha256": station.model.sha256,
        "base_name": station.model.name,
        "base_thresholds": [*station.thresholds],
        "thresholds": [*thresholds],
    }
