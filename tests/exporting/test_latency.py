"""Latency: the worked example T12, and a device that is waited for on both sides of every call."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.records import Record
from andon.detectors._saving import load_detector
from andon.exporting.latency import Effort, describe_machine, measure, predict_latency, summarise


def test_t12():
    """T12."""
    found = summarise([10.2, 9.8, 10.0, 10.4, 9.9, 30.0, 10.1, 10.3, 9.7, 10.0], scope="x", machine="y")
    assert found.n == 10
    assert found.mean == pytest.approx(12.04)
    assert found.std == pytest.approx(6.314216763, abs=1e-9)
    assert found.p50 == pytest.approx(10.05)
    assert found.p95 == pytest.approx(21.18)
    assert found.min == 9.7
    assert 1000 / found.p50 == pytest.approx(99.502487562, abs=1e-9)
    assert found.throughput == pytest.approx(83.056478405, abs=1e-9)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=50))
@settings(deadline=None, max_examples=50)
def test_statistics_are_ordered(values):
    found = summarise(values, scope="", machine="")
    assert found.min <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= max(values)
    assert found.n == len(values)
    assert found.std == pytest.approx(np.std(values, ddof=1) if len(values) > 1 else 0.0)


class Device:
    """A clock in nanoseconds, and a device that works on after a call has returned."""

    def __init__(self, *, launch: int = 1_000, work: int = 5_000_000) -> None:
        self.now, self.busy_until = 0, 0
        self.launch, self.work = launch, work
        self.events: list[str] = []

    def clock(self) -> int:
        self.events.append("clock")
        return self.now

    def call(self, k: int) -> None:
        self.events.append("call")
        self.now += self.launch
        self.busy_until = max(self.busy_until, self.now) + self.work

    def synchronise(self) -> None:
        self.events.append("synchronise")
        self.now = max(self.now, self.busy_until)


EFFORT = Effort(warmup_calls=3, warmup_seconds=0.0, calls=20, seconds=0.0)


def test_work_of_an_asynchronous_device_is_measured():
    device = Device()
    found = measure(device.call, scope="x", synchronise=device.synchronise, clock=device.clock, effort=EFFORT)
    assert found.n == 20
    assert found.min == found.p99 == pytest.approx(5.001)  # launch and work, nothing of earlier calls


def test_without_synchronising_the_number_would_be_wrong():
    device = Device()
    found = measure(device.call, scope="x", clock=device.clock, effort=EFFORT)
    assert found.mean == pytest.approx(0.001)


def test_device_is_waited_for_before_start_and_before_stop():
    device = Device()
    measure(device.call, scope="x", synchronise=device.synchronise, clock=device.clock, effort=EFFORT)
    calls = [k for k, event in enumerate(device.events) if event == "call"][EFFORT.warmup_calls :]
    assert len(calls) == 20
    for k in calls:
        assert device.events[k - 2 : k + 3] == ["synchronise", "clock", "call", "synchronise", "clock"]


def test_warm_up_is_left_out_and_every_input_comes_in_turn():
    device, seen = Device(), []

    def call(k: int) -> None:
        seen.append(k)
        device.work = 50_000_000 if len(seen) <= 3 else 1_000_000  # the first calls are slow
        device.call(k)

    found = measure(call, scope="x", synchronise=device.synchronise, clock=device.clock, effort=EFFORT)
    assert found.p99 == pytest.approx(1.001)
    assert seen == [0, 1, 2, *range(20)]


@pytest.mark.parametrize(
    ("effort", "work_ms", "calls"),
    [
        (Effort(0, 0.0, calls=10, seconds=1.0), 10, 100),  # at least so many seconds
        (Effort(0, 0.0, calls=10, seconds=0.0), 10, 10),  # at least so many calls
        (Effort(0, 0.0, calls=10, seconds=9.0, most_calls=30), 10, 30),  # at most so many calls
        (Effort(0, 0.0, calls=100, seconds=1.0, most_seconds=3.0), 500, 6),  # at most so many seconds
        (Effort(0, 0.0, calls=100, seconds=1.0, most_seconds=0.0), 500, 1),  # but one
    ],
)
def test_effort_bounds_the_calls(effort, work_ms, calls):
    device = Device(launch=0, work=work_ms * 1_000_000)
    found = measure(device.call, scope="x", synchronise=device.synchronise, clock=device.clock, effort=effort)
    assert found.n == calls


def test_warm_up_lasts_for_its_seconds():
    device, seen = Device(launch=100_000_000, work=0), []
    measure(
        lambda k: (seen.append(k), device.call(k)),
        scope="x",
        clock=device.clock,
        effort=Effort(warmup_calls=2, warmup_seconds=1.0, calls=1, seconds=0.0),
    )
    assert len(seen) == 10 + 1


@pytest.mark.parametrize("before", [True, False])
def test_garbage_collection_is_off_and_restored(before):
    states = []
    (gc.enable if before else gc.disable)()
    try:
        measure(lambda k: states.append(gc.isenabled()), scope="x", effort=EFFORT)
        assert gc.isenabled() is before
        assert not any(states[3:])
        with pytest.raises(ZeroDivisionError):
            measure(lambda k: 1 / (3 - k), scope="x", effort=EFFORT)
        assert gc.isenabled() is before
    finally:
        gc.enable()


def test_latency_of_a_detector(tiny_run, dataset_folder):
    records = [Record(path, path.stem) for path in sorted((dataset_folder / "test/good").iterdir())]
    found = predict_latency(load_detector(tiny_run), records, effort=Effort(1, 0.0, calls=5, seconds=0.0))
    assert found.n == 5
    assert found.scope == "predict"
    assert found.min > 0
    assert "threads" in found.machine
    assert found.machine == describe_machine()
    assert found.to_json()["p95"] == found.p95
