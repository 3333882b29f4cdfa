"""A line: all stations of one process, their store, alarms and events.

line = Line(LineSettings.load(Path("line.toml")))
line.start()
line.stations["press"].submit(Part(image_bytes, request_id="4711")).result()
line.stop()
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from andon.line import rule_versions, showing, versions
from andon.line.accounts import Accounts
from andon.line.alarms import Alarms
from andon.line.cameras.follower import Cameras, OpenCamera
from andon.line.cameras.opening import make_camera
from andon.line.candidates.candidates import Candidates
from andon.line.clock import Clock, now_us
from andon.line.drift.follower import DriftFollower
from andon.line.drift.view import DriftView
from andon.line.drift.view import view as drift_view
from andon.line.events import Events
from andon.line.faults import Fault
from andon.line.follower import Follower
from andon.line.golden.golden import Golden
from andon.line.inbox import Inbox
from andon.line.judge import Judge, Judgement, Thresholds
from andon.line.models import Models, OpenJudge
from andon.line.opcua import connect as opcua
from andon.line.outbox.commands import LineActs
from andon.line.outbox.outbox import Outbox, Views
from andon.line.plant import PlantReports
from andon.line.plc import connect as plc
from andon.line.plc.unit import Shoot
from andon.line.prometheus import Metrics
from andon.line.reports.mail import follower as shift_mail
from andon.line.retention_watch import RetentionWatch
from andon.line.review.reviews import Reviews
from andon.line.rule_versions import RuleVersion
from andon.line.rules import Rule
from andon.line.settings import LineSettings, StationSettings, ThresholdSettings, of_station
from andon.line.station import Station
from andon.line.store import Connection, Inspection, Recorded, Store
from andon.line.store_watch import StoreWatch
from andon.line.tally import STRIP, Tally, shift_begin
from andon.line.verdicts import Cause
from andon.line.versions import Also, Version
from andon.line.views import AlarmView, Health, Shown, StationView, summary

LOG = logging.getLogger(__name__)

TICK_SECONDS = 1.0
LIVE_SECONDS = 10.0
"""Longest time between two ticks of a process that works."""
FAULT = "fault: "
"""Start of the names of alarms that faults of a station raise; they call a person."""
MISSING = {Fault.LINE: "alarms", Fault.FOLLOWER: "reports, messages or metrics"}
"""What may be missing after a failure of the line or of what follows it."""


class Line:
    """Stations, store, alarms and events of one process."""

    def __init__(
        self,
        settings: LineSettings,
        *,
        clock: Clock = now_us,
        open_judge: OpenJudge = Judge,
        shoot: Mapping[str, Shoot] | None = None,
        open_camera: OpenCamera = make_camera,
    ) -> None:
        """Open models and store; `shoot`: what takes the images of stations that a PLC triggers, by default their cameras.

        Raises `DataError` and `ConfigError` for what cannot work.
        """
        self.settings, self.clock = settings, clock
        threads = max(1, (os.cpu_count() or 1) // max(1, len(settings.stations)))
        self.store = Store.open(
            settings.database or settings.data,
            folder=settings.data,
            line=settings.name,
            stations=[station.name for station in settings.stations],
            durability=settings.durability,
            clock=clock,
        )
        try:
            self.accounts = Accounts(self.store, clock=clock)
            self.events, self._changing = Events(), threading.Lock()
            self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
            self._shown: dict[str, tuple[Shown, str, int]] = {}
            self.alarms = Alarms(self.store, settings, clock=clock, changed=self._alarms_changed)
            self._models = Models(self.store, partial(open_judge, threads=threads), settings.recipe_memory_mb)
            self._tallies = {station.name: self._tally(station.name) for station in settings.stations}
            self.stations: Mapping[str, Station] = {s.name: self._station(s) for s in settings.stations}
            self.store_watch = StoreWatch(self.store, self.stations, self.alarms)
            self.retention = RetentionWatch(
                self.store, settings.retention, self.stations, self.alarms, line=settings.name, clock=clock
            )
            self.reviews = Reviews(self.store, {each.name: each.review for each in settings.stations})
            self._inboxes = [
                Inbox(station.folder, self.stations[station.name], self.store, self.alarms, clock=clock)
                for station in settings.stations
                if station.folder is not None
            ]
            self.drift = DriftFollower(self.store, settings.drift, self.stations, self.alarms, clock=clock)
            views = Views(lambda name: self.stations[name].view(), self.alarms.active, self.drift_view)
            self.outbox = Outbox(settings, self.store, views, clock, LineActs(self))
            self.golden = Golden(
                self.stations, self.store, self.alarms, clock=clock, changed=self._state_changed
            )
            open_alone = partial(open_judge, threads=1)
            self.candidates = Candidates(self.stations, self.store, self._models, self.golden, open_alone)
            self.plant = PlantReports(self.store, self.stations, views.station, settings.address)
            self.metrics = Metrics(self) if settings.metrics else None
            self.cameras = Cameras(self, open_camera)
            self.followers = self._followers({**self.cameras.shoots, **(shoot or {})})
        except BaseException:
            self.store.close()
            raise
        self._thread = threading.Thread(target=self._run, name="andon-line", daemon=True)
        self._last_tick, self._started = time.monotonic(), clock()

    def _followers(self, shoots: Mapping[str, Shoot]) -> list[Follower]:
        """What is told of committed parts, in this order; `shoots` takes the images of stations that a PLC triggers."""
        found: list[Follower] = [self.outbox, self.golden, self.plant, self.candidates]
        found += [self.metrics] if self.metrics else []
        found += [self.drift] if self.settings.drift.watch else []
        email, mailer = self.settings.email, self.outbox.mailer
        if mailer and email and email.shift_report:
            found.append(shift_mail(self.stations, self.settings.name, self.store, mailer, self.clock))
        return [*found, self.cameras, *plc.followers(self, shoots), *opcua.followers(self, shoots)]

    def start(self) -> None:
        """Verify the models and judge parts. A station is ready once its model has passed its self-check."""
        self._last_tick = time.monotonic()
        self._thread.start()
        self.retention.start()
        self.accounts.start()
        for station in self.stations.values():
            station.start()
        for follower in self.followers:
            follower.start()
        for inbox in self._inboxes:
            inbox.start()
        self.cameras.open()

    def stop(self, timeout: float = 10.0) -> None:
        """Judge what waits, at most for `timeout` seconds, store everything, end all threads."""
        self.retention.end()
        end = time.monotonic() + timeout
        self.cameras.close(max(0.0, end - time.monotonic()))
        for inbox in self._inboxes:
            inbox.stop(max(0.0, end - time.monotonic()))
        for station in self.stations.values():
            station.stop(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        for follower in self.followers:
            follower.stop(max(0.0, end - time.monotonic()))
        self.retention.join()
        self.accounts.stop()
        self.events.close()
        self.store.close()

    def health(self) -> Health:
        """Whether the process works, and whether every station can judge."""
        works = self._thread.is_alive() and time.monotonic() - self._last_tick < LIVE_SECONDS
        return showing.health(self.stations.values(), works=works)

    def activate_thresholds(
        self,
        station: str,
        accept: float,
        reject: float,
        *,
        who: str,
        why: str,
        based_on: int | None = None,
        also: Also | None = None,
    ) -> Version:
        """Store new thresholds of a station and judge by them from the next part on: every change of a running line.

        `based_on`: as in `versions.check_base`; `also` writes what is committed with them. Raises `NotAllowed` where a golden
        part would come out wrong.
        """
        target = self._known(station)
        with self._changing:
            model = target.model
            versions.check_base(target.thresholds, based_on)
            ThresholdSettings.parse({"accept": accept, "reject": reject}, where=f"station {station}")
            trial = self.golden.try_thresholds(station, Thresholds(accept, reject), who, why)
            version = versions.add_version(
                self.store, station, model, accept, reject, who=who, why=why, also=also
            )
            target.set_thresholds(version.thresholds, of=model)
            self.golden.accept(station, trial)
        self._state_changed(station)
        return version

    def set_rules(
        self, station: str, rules: Sequence[Rule], *, who: str, why: str, based_on: int | None = None
    ) -> RuleVersion:
        """Store a new version of the stop rules of a station; they count from the next part on, with empty windows.

        `based_on`: the version that the person saw. Raises `Stale` where another one is in use.
        """
        with self._changing:
            rule_versions.check_base(self.alarms.rules(station), based_on)
            version = rule_versions.add_version(self.store, station, rules, who=who, why=why)
            self.alarms.use_rules(station, version)
        self._state_changed(station)
        return version

    def set_model(
        self,
        station: str,
        pack: Path,
        *,
        who: str,
        why: str,
        also: Callable[[Connection], object] | None = None,
    ) -> None:
        """Judge by another packed model from the next part on, also after a restart, until the settings name another one.

        `also` writes what is committed with the choice. Raises `AndonError` where it cannot be opened, its self-check fails or
        a golden part comes out wrong; the model before stays then.
        """
        check = partial(self.golden.try_model, station, who=who, why=why)
        trial = self._models.set_model(self._known(station), pack, who=who, why=why, check=check, also=also)
        self.golden.accept(station, trial)

    def set_recipe(self, station: str, code: str, *, who: str, why: str = "") -> None:
        """Judge by another recipe of the settings, as `Models.set_recipe`, also after a restart."""
        self._models.set_recipe(self._known(station), code, who=who, why=why)

    def threshold_versions(self, station: str) -> list[Version]:
        """Versions of the thresholds of a station and its model, newest first."""
        return versions.versions(self.store, station, self._known(station).model.sha256)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What a station reports; its threads do not wait ---------------------------------------------------------------

    def recorded(self, station: Station, recorded: Recorded) -> None:
        """A new row was committed."""
        self._jobs.put(lambda: self._part(recorded.row))

    def judged(self, station: Station, request_id: str, judgement: Judgement) -> None:
        """An image was judged."""
        try:
            for follower in self.followers:
                follower.judged(station.name, request_id, judgement)
        except Exception:  # the part has its verdict, whatever becomes of who follows
            LOG.exception("an image was not followed")

    def condition_changed(self, station: Station) -> None:
        """Whether the model is verified, or what fails, changed."""
        self._jobs.put(lambda: self._condition(station))

    def drift_view(self, station: str) -> DriftView | None:
        """The drift watch of a station now; None where it is switched off."""
        return self.drift.read(station, drift_view) if self.settings.drift.watch else None

    def view(self, station: Station) -> StationView:
        """The station now."""
        name = station.name
        return showing.station_view(
            station,
            self.alarms.station(name),
            self.alarms.active(name),
            self._tallies[name],
            rule_version=self.alarms.rules(name).id,
            golden=self.golden.view(name),
            started=self._started,
            now=self.clock(),
        )

    # Inside --------------------------------------------------------------------------------------------------------

    def _station(self, settings: StationSettings) -> Station:
        judge, thresholds, recipe = self._models.at_start(settings)
        return Station(
            settings, judge, self.store, self, thresholds=thresholds, recipe=recipe, clock=self.clock
        )

    def _tally(self, name: str) -> Tally:
        now = self.clock()
        counts = self.store.counts(name, since=shift_begin(now))
        return Tally(counts, self.store.last_verdicts(name, STRIP), now)

    def _known(self, station: str) -> Station:
        return of_station(self.stations, station)

    def _alarms_changed(self, station: str, alarms: Sequence[AlarmView]) -> None:
        for alarm in alarms:
            self.events.publish("alarm", alarm.to_json())
        self._state_changed(station)

    def _state_changed(self, station: str) -> None:
        self._jobs.put(lambda: self._publish_state(station))

    def _run(self) -> None:
        next_tick = time.monotonic()
        while True:
            try:
                job: Callable[[], None] | None = self._jobs.get(
                    timeout=max(0.0, next_tick - time.monotonic())
                )
            except queue.Empty:
                job = self._nothing
            if job is None:
                return
            self._safely(job)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + TICK_SECONDS
                self._safely(self._tick)

    def _safely(self, job: Callable[[], None], fault: Fault = Fault.LINE) -> None:
        """Run `job`; the stations show its failure."""
        try:
            job()
        except Exception as error:
            LOG.exception("the line failed")
            for station in self.stations.values():
                station.set_fault(
                    fault, f"{MISSING[fault]} may be missing ({error}): see the log and restart"
                )

    def _tell(self, tell: Callable[[Follower], None]) -> None:
        """Call all followers, whichever of them fail; golden parts are not only told, they stop the line."""
        for follower in self.followers:
            self._safely(partial(tell, follower), Fault.LINE if follower is self.golden else Fault.FOLLOWER)

    def _nothing(self) -> None:
        """Nothing came up to the next tick."""

    def _tick(self) -> None:
        self._last_tick = time.monotonic()
        self.alarms.tick()
        self.store.note_head()
        self.store_watch.tick()
        self._tell(lambda follower: follower.tick())
        self.events.publish("tick", {"t": self.clock()}, keep=False)
        for name, station in self.stations.items():
            view = station.view()
            if self._shown.get(name) != (view.state, view.reason, view.per_minute):
                self._publish_state(name)

    def _part(self, row: Inspection) -> None:
        if row.cause != Cause.GOLDEN_PART:
            self._tallies[row.station].add(row)
            self.alarms.part(row)
            self._tell(lambda follower: follower.part(row))
        self.events.publish("inspection", summary(row))
        self._publish_state(row.station)

    def _condition(self, station: Station) -> None:
        name, faults = station.name, station.faults
        self.alarms.ready(name, verified=station.is_verified, faults=faults)
        self.alarms.signal(name, "store_lost", Fault.STORE in faults)
        for fault, why in faults.items():
            if fault != Fault.DISK:  # has its alarm before it is a fault
                self.alarms.condition(name, FAULT + fault, True, why)
        for alarm in self.alarms.active(name):
            if alarm.rule.startswith(FAULT) and alarm.rule.removeprefix(FAULT) not in faults:
                self.alarms.condition(name, alarm.rule, False)
        self._publish_state(name)

    def _publish_state(self, name: str) -> None:
        view = self.stations[name].view()
        self._shown[name] = (view.state, view.reason, view.per_minute)
        self.events.publish("state", {"station": name, **view.to_json()})
