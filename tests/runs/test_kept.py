"""The network kept in a run folder: `andon predict` answers as PyTorch does, on the fastest runtime, without importing it."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from andon.cli.main import main
from andon.core.errors import ConfigError
from andon.core.files import write_bytes
from andon.detectors._saving import load_detector
from andon.exporting import network as exporting
from andon.runs import kept
from andon.runs.loading import load, open_predictor
from andon.thresholds import history

pytestmark = pytest.mark.xdist_group("network")


@pytest.fixture(autouse=True)
def automatic(monkeypatch):
    """As for users; other tests leave the runtime to PyTorch."""
    monkeypatch.delenv("ANDON_RUNTIME")
    monkeypatch.setattr(kept, "ROUNDS", 1)
    monkeypatch.setattr(exporting, "SIZES", ((60, 97),))
    monkeypatch.setattr("andon.runs.export.COMPARED", 2)


@pytest.fixture(scope="module")
def kept_run(tiny_run, network, tmp_path_factory) -> Path:
    """A run that has been answered for; not to be changed."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("kept") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            exporting, "_write_onnx", lambda detector, path: write_bytes(path, network.read_bytes())
        )
        kept.keep(run, load_detector(run))
    return run


@pytest.fixture
def own_kept(kept_run, tmp_path) -> Path:
    return shutil.copytree(kept_run, tmp_path / "kept")


@pytest.fixture
def picture(dataset_folder) -> Path:
    return dataset_folder / "test/stain/000.png"


def record(run: Path) -> dict[str, object]:
    return json.loads((run / kept.RECORD).read_text())


def rewrite(run: Path, **changes: object) -> None:
    (run / kept.RECORD).write_text(json.dumps(record(run) | changes))


@pytest.mark.usefixtures("exported_once")
def test_the_first_answer_makes_it_and_the_next_ones_use_it(own_run, dataset_folder, cli, monkeypatch):
    pictures = dataset_folder / "test"
    first = cli("predict", own_run, pictures, "--json")
    by_torch = cli("predict", own_run, pictures, "--json", "--runtime", "torch")
    monkeypatch.setattr(kept, "keep", None)  # not made a second time
    second = cli("predict", own_run, pictures, "--json")
    assert first.out == second.out
    found, expected = json.loads(first.out), json.loads(by_torch.out)
    assert found["runtime"].startswith(("onnx ", "openvino "))
    assert f"executed by {found['runtime']}\n" in second.err
    assert expected["runtime"].startswith("torch ")
    assert [a["verdict"] for a in found["predictions"]] == [a["verdict"] for a in expected["predictions"]]
    assert [a["score"] for a in found["predictions"]] == pytest.approx(
        [a["score"] for a in expected["predictions"]], abs=1e-3
    )
    table = cli("predict", own_run, pictures, "--out", own_run.parent / "t.csv", "--json")
    assert json.loads(table.out)["runtime"] == found["runtime"]


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "openvino"])
def test_a_runtime_can_be_named(kept_run, name):
    found = open_predictor(kept_run, name)
    assert found.runtime.split()[0] == name.removesuffix("runtime")
    assert load(kept_run).runtime.startswith("torch")  # from Python, unless told otherwise
    assert load(kept_run, "auto").runtime.split()[0] in ("onnx", "openvino")


def test_a_runtime_that_is_unknown_or_missing_is_refused(kept_run, picture, cli, monkeypatch):
    assert (
        "choose auto, torch, onnx or openvino"
        in cli("predict", kept_run, picture, "--runtime", "tensorrt").complaint()
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install openvino" in cli("predict", kept_run, picture, "--runtime", "openvino").complaint()


def test_the_fastest_that_was_measured_answers(own_kept):
    for first, second in (("onnx", "openvino"), ("openvino", "onnx")):
        proof = {"milliseconds": {first: 1.0, second: 2.0}, "refused": {}}
        rewrite(own_kept, proofs={kept.this_machine(): proof})
        assert kept.kept_model(own_kept).runtime.split()[0] == first
    proof = {"milliseconds": {"onnx": 1.0}, "refused": {"openvino": "it differs by 2"}}
    rewrite(own_kept, proofs={kept.this_machine(): proof})
    with pytest.raises(ConfigError, match="it differs by 2; --runtime torch executes it"):
        open_predictor(own_kept, "openvino")


def test_it_has_the_thresholds_of_the_run(own_kept):
    fitted = load_detector(own_kept).fitted()
    other = replace(fitted, image=replace(fitted.image, value=fitted.image.value + 1))
    history.change(own_kept / "detector", other, reason="a new lamp", rule="by hand")
    assert kept.kept_model(own_kept).fitted().image.value == fitted.image.value + 1


def test_it_is_never_used_for_another_detector_version_or_machine(own_kept, monkeypatch):
    before = record(own_kept)
    rewrite(own_kept, andon="0.0.1")
    assert kept.kept_model(own_kept) is None
    rewrite(own_kept, andon=before["andon"])
    assert kept.kept_model(own_kept) is not None
    with (own_kept / kept.NETWORK).open("ab") as stream:
        stream.write(b"x")
    assert kept.kept_model(own_kept) is None
    shutil.copy(own_kept / kept.NETWORK, own_kept / "x")
    detector = load_detector(own_kept)
    detector.calibration = replace(detector.fitted(), scores=(0.5, *detector.fitted().scores[1:]))
    detector.save(own_kept / "detector")
    assert kept.read_kept(own_kept) is None


@pytest.mark.slow
def test_another_machine_proves_it_anew_and_exports_nothing(own_kept, monkeypatch):
    monkeypatch.setattr(kept, "processor", lambda: "another")
    assert kept.kept_model(own_kept) is None
    monkeypatch.setattr(kept, "_export", None)
    kept.keep(own_kept, load_detector(own_kept))
    assert kept.kept_model(own_kept) is not None
    assert len(record(own_kept)["proofs"]) == 2


def test_a_runtime_that_is_installed_under_another_name_has_a_version(monkeypatch):
    import onnxruntime

    monkeypatch.setattr("importlib.metadata.version", raise_not_found)
    assert f"onnxruntime {onnxruntime.__version__}" in kept.this_machine()


def raise_not_found(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_a_runtime_that_answers_otherwise_is_not_used(own_kept, picture, cli, monkeypatch):
    rewrite(own_kept, proofs={})
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    for _ in range(2):
        found = cli("predict", own_kept, picture)
        assert found.code == 0
        assert "executed by torch" in found.err
        assert "differs from the detector" in found.err.splitlines()[-1]


def test_without_packages_or_a_folder_to_write_torch_answers(own_run, picture, cli, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("andon.exporting.installed.WRITERS", ("no_such_package",))
        found = cli("predict", own_run, picture)
        assert "since exporting needs no_such_package" in found.err.splitlines()[-1]
        assert (
            "--runtime torch executes it" in cli("predict", own_run, picture, "--runtime", "onnx").complaint()
        )
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    assert "cannot be written" in cli("predict", own_run, picture).err.splitlines()[-1]
    assert not (own_run / "runtime").exists()


def test_what_cannot_be_exported_is_tried_once(own_run, monkeypatch):
    monkeypatch.setattr(exporting, "_write_onnx", lambda detector, path: [][0])
    assert "cannot export this efficientad_ast (IndexError)" in open_predictor(own_run).note
    monkeypatch.setattr(kept, "keep", None)
    assert "IndexError" in open_predictor(own_run).note
    with pytest.raises(ConfigError, match="IndexError"):
        open_predictor(own_run, "onnx")


def test_pictures_of_more_than_8_bits_are_left_to_torch(own_run):
    deep, detector = np.full((16, 16, 3), 1000 / 65535, np.float32), load_detector(own_run)
    fitted = detector.fitted()
    detector.calibration = replace(fitted, seen=None)  # as of runs that do not know it: the pictures tell
    with pytest.raises(ConfigError, match="more than 8 bits"):
        kept.keep(own_run, detector, [deep])
    kept._check_bits(detector.fitted(), [np.arange(256, dtype=np.float32)[:, None, None] / np.float32(255)])
    kept._check_bits(fitted, [deep])
    detector.calibration = replace(fitted, seen=replace(fitted.seen, bits=(16,), largest=4000))
    with pytest.raises(ConfigError, match="learned from pictures of more than 8 bits"):
        kept.keep(own_run, detector)


def test_ctrl_c_leaves_nothing_that_is_used(own_run, monkeypatch):
    def interrupted(detector, path):
        write_bytes(path, b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_write_onnx", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_predictor(own_run)
    assert kept.kept_model(own_run) is None


def test_torch_is_not_imported(kept_run, picture, tmp_path):
    """One process: the run, its stream, and help; the modules that are there afterwards."""
    program = """
import sys, andon.cli.main
given = sys.argv[1:]
def run(*arguments):
    sys.argv = ["andon", *arguments]
    try:
        andon.cli.main.main()
    except SystemExit as end:
        assert not end.code, end.code
    print("##", *(m for m in ("numpy", "scipy", "torch", "timm", "torchvision") if m in sys.modules))
run("--help")
run("predict", *given)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, kept_run, picture], capture_output=True, text=True, check=True
    )
    ends = [line for line in done.stdout.splitlines() if line.startswith("##")]
    assert ends[0] == "##"
    assert ends[1] == "## numpy"
    assert "1 picture" in done.stdout


class Pipe:
    """Standard input of bytes."""

    def __init__(self, lines=()):
        self.buffer = iter(lines)


@pytest.mark.slow
def test_a_stream_answers_each_path_at_once(kept_run, dataset_folder, tmp_path, monkeypatch):
    paths = sorted((dataset_folder / "test").rglob("*.png"))[::3]
    answered = []

    def lines():
        for path in [tmp_path / "none.png", tmp_path, *paths]:
            yield f"{path}\n\n".encode()
            answered.append(len(sys.stdout.getvalue().splitlines()))  # before the next path is read

    monkeypatch.setattr(
        "sys.stdin", Pipe(part for line in lines() for part in line.splitlines(keepends=True))
    )
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr(
        "sys.argv", ["andon", "predict", str(kept_run), "-", "--save", str(tmp_path / "maps")]
    )
    main()
    found = [json.loads(line) for line in sys.stdout.getvalue().splitlines()]
    assert answered == [1, 2, *range(3, 3 + len(paths))]
    assert [one["path"] for one in found[2:]] == [str(path) for path in paths]
    assert [one["verdict"] for one in found[:2]] == ["unreadable", "unreadable"]
    assert "none.png" in found[0]["reason"]
    expected = [load(kept_run, "onnx").predict(path).score for path in paths]
    assert [one["score"] for one in found[2:]] == pytest.approx(expected, abs=1e-4)
    assert len(list((tmp_path / "maps/heatmaps").rglob("*.png"))) == len(paths)


@pytest.mark.slow
def test_a_stream_ends_quietly(kept_run, picture, cli, monkeypatch):
    def stopped():
        yield f"{picture}\n".encode()
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Pipe(stopped()))
    found = cli("predict", kept_run, "-")
    assert found.code == 130
    assert len(found.out.splitlines()) == 1
    assert [line.split()[0] for line in found.err.splitlines()] == ["executed"]
    monkeypatch.setattr("sys.stdin", Pipe())
    assert cli("predict", kept_run, "-").code == 0
    assert "leave other pictures out" in cli("predict", kept_run, "-", picture).complaint()
