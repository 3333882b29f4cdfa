"""The embedded data sets are neither trivial nor impossible. Slow: generates and measures profile small."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT

from andon.datasets.embedded import CATEGORIES, generate

BENCHMARK = ROOT / "benchmarks" / "embedded_difficulty.py"
MS_PER_PICTURE = 3 * 40
"""Mean at 256 px on one core, with a tolerance of 3 for busy machines."""


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embedded_difficulty", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_nearest_distance(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    queries, bank = (rng.standard_normal((n, 5), dtype=np.float32) for n in (7, 11))
    expected = np.linalg.norm(queries[:, None] - bank[None], axis=2).min(axis=1)
    assert np.allclose(benchmark.nearest_distance(queries, bank), expected, rtol=1e-4)


def test_local_neighbours_stay_near(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((3, 12, 11, 4), dtype=np.float32)
    test = rng.standard_normal((2, 12, 11, 4), dtype=np.float32)
    found = benchmark.local_neighbours(train, test)
    reach = benchmark.REACH // benchmark.GRID
    for n, row, column in ((0, 0, 0), (1, 11, 10), (0, 6, 5)):
        expected = min(
            np.linalg.norm(test[n, row, column] - train[k, r, c])
            for k in range(3)
            for r in range(12)
            for c in range(11)
            if abs(r - row) <= reach and abs(c - column) <= reach
        )
        assert found[n, row, column] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_difficulty_and_speed(benchmark: ModuleType, tmp_path: Path) -> None:
    start = time.perf_counter()
    counted: list[int] = []
    generate(tmp_path, "small", workers=1, progress=lambda done, total: counted.append(total))
    milliseconds = 1000 * (time.perf_counter() - start) / len(counted)
    found = benchmark.measure_all(tmp_path, CATEGORIES)
    print(benchmark.table(found))
    assert benchmark.complaints(found) == []
    assert milliseconds <= MS_PER_PICTURE
