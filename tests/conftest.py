"""What many tests share: a temporary home, one thread, a tiny data set, a finished tiny run, the command line in process."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

if TYPE_CHECKING:
    from andon.nn.backbones import Backbone, BackboneConfig

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in every process the tests start
gc.disable()  # until all test modules are loaded

ROOT = Path(__file__).parent.parent
"""Of the repository."""
LONG = {"network": 3, "test_efficientad_ast": 2, "test_runs": 2, "test_history": 1, "test_cli": 1}
"""Groups of tests that take long; the higher, the earlier they begin."""
SIDE = 64
RUN_SETTINGS: dict[str, object] = {
    "extractor.weights": "random",
    "extractor.taps": ["layer2"],
    "extractor.image_size": SIDE,
    "extractor.project": 16,
    "teacher.hidden": 8,
    "teacher.kernels": [3, 3],
    "teacher.epochs": 1,
    "student.width": 16,
    "student.blocks": 1,
    "student.penalty": 0.0,
    "autoencoder.bottleneck": 8,
    "epochs": 1,
    "precision": "32-true",
}
"""Changes to the starter recipe of `efficientad_ast` at which it learns something in a second."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file run in one process, which makes their fixtures once; the long groups begin first.

    Groups across files: `network` for what exports, so that one process alone loads the exporter.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: -LONG.get(item.get_closest_marker("xdist_group").args[0], 0))


def pytest_collection_finish() -> None:
    """What is loaded stays: full garbage collections, each of which would search it again, leave it out."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A shell starts background jobs with Ctrl-C switched off; the tests of interruption need it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything andon keeps between runs goes here."""
    import andon.nn.backbones
    import andon.nn.training  # noqa: F401
    from andon.exporting.latency import Effort

    gc.freeze()  # as above, with PyTorch and timm
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDON_HOME", str(folder))
        patch.delenv("ANDON_OFFLINE", raising=False)
        patch.setenv("ANDON_RUNTIME", "torch")  # exporting each run before it answers costs seconds
        patch.setattr("andon.datasets.penalty_images.PROCEDURAL", 8)  # drawing more costs seconds
        patch.setattr("andon.exporting.latency.QUICK", Effort(1, 0.0, calls=5, seconds=0.0))
        yield folder


BACKBONES: dict[tuple[object, ...], Backbone] = {}


@pytest.fixture(scope="module", autouse=True)
def backbones_built_once(home: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand out copies of backbones with random or embedded weights: their state follows from their configuration.

    Building takes longer than most tests. The tests of backbones themselves get new ones.
    """
    import torch

    from andon.nn.backbones import Backbone

    create = Backbone.create.__func__

    def copied(cls: type[Backbone], config: BackboneConfig, **options: bool) -> Backbone:
        if config.weights not in ("random", "starter"):
            return create(cls, config, **options)
        key = (cls, config.model_dump_json(), *sorted(options.items()), torch.get_default_device())
        if key not in BACKBONES:
            BACKBONES[key] = create(cls, config, **options)
        return deepcopy(BACKBONES[key])

    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_backbones.py":
            patch.setattr(Backbone, "create", classmethod(copied))
        yield


def texture(seed: int, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """(side, side, 3) picture of a woven cloth."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    phase = rng.uniform(0, 2 * np.pi)
    grey = 120 + 40 * np.sin(columns / 3 + phase) * np.cos(rows / 4) + rng.normal(0, 5, (side, side))
    return np.clip(grey[:, :, None] * np.array([1.0, 0.9, 0.8]), 0, 255).astype(np.uint8)


def write_picture(path: Path, pixels: npt.NDArray[np.generic], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


def write_dataset(root: Path, *, train: int = 12, good: int = 4, bad: int = 4) -> Path:
    """One category in the layout of MVTec AD: cloth, and cloth with a red stain."""
    for k in range(train):
        write_picture(root / f"train/good/{k:03d}.png", texture(k))
    for k in range(good):
        write_picture(root / f"test/good/{k:03d}.png", texture(100 + k))
    for k in range(bad):
        pixels, mask = texture(200 + k), np.zeros((SIDE, SIDE), np.uint8)
        mask[10 + k : 26 + k, 20:40] = 255
        pixels[mask > 0] = (230, 20, 20)
        write_picture(root / f"test/stain/{k:03d}.png", pixels)
        write_picture(root / f"ground_truth/stain/{k:03d}_mask.png", mask)
    return root


def names(folder: Path) -> list[str]:
    """Names of what lies directly inside a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training, 4 good and 4 stained test pictures of 64 px; not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("data") / "cloth")


@pytest.fixture
def own_dataset(dataset_folder: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return shutil.copytree(dataset_folder, tmp_path / "cloth")


@pytest.fixture(scope="session")
def tiny_run(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; not to be changed."""
    from andon.detectors._recipes import load_recipe, resolve
    from andon.runs.fit import fit_run
    from andon.runs.source import Source

    run = tmp_path_factory.mktemp("runs") / "cloth"
    recipe = resolve(load_recipe("efficientad_ast/starter"), RUN_SETTINGS)
    fit_run(run, Source(str(dataset_folder)), recipe, device="cpu")
    return run


@pytest.fixture(scope="session")
def network(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's detector as an ONNX file; not to be changed. Tests that use it belong to the group `network`."""
    from andon.detectors._saving import load_detector
    from andon.exporting.network import export

    path = tmp_path_factory.mktemp("network") / "cloth.onnx"
    export(load_detector(tiny_run), path)
    gc.freeze()  # as above, with the exporter
    return path


@pytest.fixture(scope="session")
def packed(tiny_run: Path, network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as a packed file; not to be changed. Tests that use it belong to the group `network`."""
    from andon.exporting import packed as packing
    from andon.runs.export import pack_run

    path = tmp_path_factory.mktemp("packed") / "cloth.andon"
    with pytest.MonkeyPatch.context() as patch:  # exporting once is enough
        patch.setattr(packing, "_network", lambda detector, pictures: (network.read_bytes(), ""))
        pack_run(tiny_run, path)
    return path


@pytest.fixture
def exported_once(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting the tiny run copies `network` instead of writing it again, which costs seconds."""
    from andon.core.files import write_bytes

    monkeypatch.setattr(
        "andon.exporting.network._write_onnx", lambda detector, path: write_bytes(path, network.read_bytes())
    )


@pytest.fixture
def own_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def set_options(**changes: object) -> list[str]:
    """The recipe of `RUN_SETTINGS`, and those settings with `changes` (a dot is `__`), as options."""
    settings = RUN_SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["--recipe", "efficientad_ast/starter", *pairs]


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def complaint(self) -> str:
        """The one line on stderr of a refused command."""
        assert self.code == 2, self
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if not line.startswith("andon: warning")]
        assert len(lines) == 1, lines
        assert lines[0].startswith("andon: ")
        return lines[0]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The command line, in this process."""
    from andon.cli.main import main

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
    monkeypatch.setenv("ANDON_OFFLINE", "")  # --offline sets it

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["andon", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run
