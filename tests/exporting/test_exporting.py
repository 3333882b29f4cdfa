"""Exported networks answer as their detector, whatever the size of the picture and whatever executes them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from andon.api import create
from andon.core.errors import ConfigError, DataError, NotFittedError, OutputError
from andon.core.files import file_sha256
from andon.core.progress import NoProgress
from andon.core.records import Record
from andon.detectors._base import Detector
from andon.detectors._saving import load_detector
from andon.exporting import network as exporting
from andon.exporting.network import (
    ExportedDetector,
    ExportError,
    compare,
    displayed,
    export,
)
from andon.exporting.resizing import enlarged, resized, windows
from andon.runs.loading import load
from andon.runtime import Model, open_model, runtimes
from andon.runtime.predictor import UnlikeTrainingWarning
from andon.thresholds.calibration import Calibration
from andon.thresholds.display import AffineDisplay

pytestmark = pytest.mark.xdist_group("network")
VERDICTS = ("OK", "look", "NG", "ERROR")


@pytest.fixture(scope="module")
def detector(tiny_run) -> Detector:
    return load_detector(tiny_run)


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(8, 64), st.integers(0, 2**32 - 1))
def test_resizing_is_that_of_training(height, width, size, seed):
    rng = np.random.default_rng(seed)
    pictures = torch.from_numpy(rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8))
    expected = F.interpolate(
        pictures.permute(0, 3, 1, 2).float() / 255, size=(size, size), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(resized(pictures, (size, size)), expected, atol=2e-6, rtol=0)


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1)
)
def test_maps_are_enlarged_by_bilinear_interpolation(h, w, height, width, seed):
    cells = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, h, w)).astype(np.float32))
    expected = F.interpolate(cells[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(enlarged(cells, (height, width)), expected, atol=1e-5, rtol=0)


def test_resizing_to_the_same_size_changes_nothing():
    places, weights = windows(32, 32, torch.device("cpu"))
    whole = torch.zeros(2, 16, 32).scatter_add_(2, places[:, None].expand(weights.shape), weights)
    assert torch.equal(whole.flatten(0, 1), torch.eye(32))


@given(
    st.floats(-10, 10), st.floats(1e-3, 10), st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9)
)
def test_displayed_scores_are_those_of_the_detector(typical, span, raw):
    display = AffineDisplay(typical, float(np.float32(typical + span)))
    values = torch.tensor([*raw, display.threshold], dtype=torch.float32)
    shown = displayed(values, display)
    np.testing.assert_allclose(shown.numpy(), display(values.numpy()), rtol=1e-4, atol=1e-4)
    assert torch.equal(shown >= 1, values >= display.threshold)


@given(
    st.floats(-10, 10), st.floats(1e-3, 10), st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9)
)
def test_undone_display_keeps_the_decision(typical, span, shown):
    display = AffineDisplay(typical, float(np.float32(typical + span)))
    raw = display.inverse(np.float32(shown))
    assert (raw >= np.float32(display.threshold)).tolist() == [x >= 1 for x in shown]


@pytest.mark.parametrize("size", [(64, 64), (50, 131), (400, 260)])
@pytest.mark.parametrize("batch", [1, 3])
def test_network_answers_as_the_detector(detector, network, size, batch):
    pictures = np.stack([np.resize(texture(k, 512)[: size[0], : size[1]], (*size, 3)) for k in range(batch)])
    model = open_model(network)
    found = model.scan(list(pictures), batch_size=batch)
    for raw, expected in zip(found, detector.judged(list(pictures)), strict=True):
        answer = model.judge(raw)
        assert answer.anomaly_map.shape == size
        assert answer.score == pytest.approx(expected.score, abs=1e-4)
        assert answer.raw_score == pytest.approx(expected.raw_score, rel=1e-4)
        assert answer.is_anomalous == expected.is_anomalous
        np.testing.assert_allclose(answer.anomaly_map, expected.anomaly_map, atol=1e-3)
        assert (answer.mask != expected.mask).mean() < 1e-3


def test_openvino_answers_as_the_detector(detector, network, tmp_path):
    pytest.importorskip("openvino")
    model = open_model(network, "openvino")
    assert compare(detector, model, network, [texture(9)]).difference < 1e-3
    assert model.session.name.startswith("openvino")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images", "settings"),
    [
        ("patchcore", 8, {"extractor__image_size": 72}),  # `same` padding is one-sided
        ("east", 24, {"extractor__image_size": 64, "composition": True, "threshold_scores": "held_out"}),
    ],
)
def test_lite0_answers_alike_in_every_runtime(tmp_path, name, images, settings):
    files = [write_picture(tmp_path / f"{k}.png", texture(k)) for k in range(images)]
    good = [Record(file, file.stem, label=0) for file in files]
    detector = create(name, "lite0", **settings)
    detector.fit(good[:-3], validation=good[-3:])
    found = export(detector, tmp_path / "cloth.onnx")
    assert found.difference < 1e-3
    scratched = texture(9, 131)
    scratched[40:60, 30:90] = 255
    for runtime in ("onnx", "openvino"):
        pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
        model = open_model(tmp_path / "cloth.onnx", runtime)
        for pixels, anomalous in ((texture(0), False), (scratched, True)):
            answer, expected = (next(found.judged([pixels])) for found in (model, detector))
            assert answer.is_anomalous == expected.is_anomalous == anomalous
            assert answer.score == pytest.approx(expected.score, abs=1e-3)
            np.testing.assert_allclose(answer.anomaly_map, expected.anomaly_map, atol=1e-2)


@pytest.mark.slow
def test_openvino_file(detector, tmp_path):
    pytest.importorskip("openvino")
    found = export(detector, tmp_path / "cloth.xml", form="openvino")
    assert found.difference < 1e-3
    assert {p.name for p in tmp_path.iterdir()} == {"cloth.xml", "cloth.bin"}


@pytest.mark.parametrize("fails_at", ["bin", "xml", None])
def test_the_two_files_of_openvino_appear_together_or_not_at_all(fails_at, tmp_path, monkeypatch):
    """An earlier network is whole or gone, never half old and half new."""

    def replace(source, target):
        if fails_at and target.name == f"model.{fails_at}":
            raise PermissionError(13, "Permission denied")
        return source.rename(target)

    monkeypatch.setattr(Path, "replace", replace)
    for name in ("model.xml", "model.bin", "made/model.xml", "made/model.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("new" if "made" in name else "old")
    with contextlib.nullcontext() if fails_at is None else pytest.raises(OutputError):
        exporting._put_in_place(tmp_path / "made/model.xml", tmp_path / "model.xml")
    shutil.rmtree(tmp_path / "made")
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert (
        left
        == {
            "bin": {"model.bin": "old"},
            "xml": {"model.bin": "new"},
            None: {"model.xml": "new", "model.bin": "new"},
        }[fails_at]
    )


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, ExportError, None])
def test_an_earlier_export_stays_until_the_new_one_was_compared(
    detector, tmp_path, monkeypatch, form, raised
):
    def write(source, path):
        path.write_text("new")
        path.with_suffix(".bin").write_text("new")

    target = tmp_path / {"onnx": "model.onnx", "openvino": "model.xml"}[form]
    files = [target] if form == "onnx" else [target, target.with_suffix(".bin")]
    for file in files:
        file.write_text("old")

    def compare_it(detector, made, path, images):
        assert (made.read_text(), target.read_text()) == ("new", "old")
        assert (made.name, path) == (target.name, target)
        if raised is not None:
            raise raised("stopped")

    monkeypatch.setattr(exporting, "_write_onnx", lambda detector, path: path.write_text("new"))
    monkeypatch.setattr(exporting, "_write_openvino", write)
    monkeypatch.setattr(exporting, "open_model", lambda path: path)
    monkeypatch.setattr(exporting, "compare", compare_it)
    with contextlib.nullcontext() if raised is None else pytest.raises(raised):
        export(detector, target, form=form)
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {file.name: "old" if raised else "new" for file in files}


def test_the_bin_of_another_export_is_refused(network, tmp_path):
    pytest.importorskip("openvino")
    path, weights = tmp_path / "cloth.xml", tmp_path / "cloth.bin"
    exporting._write_openvino(network, path)
    expected, found = open_model(network).description, open_model(path).description
    own = {"file_sha256": found["file_sha256"], "bin_sha256": file_sha256(weights)}
    assert found == expected | own
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"cloth\.bin is not the file that was exported with cloth\.xml"):
        open_model(path)
    text = path.read_text().replace("bin_sha256", "of_another").replace("file_sha256", "of_nothing")
    path.write_text(text)  # as of earlier exports
    assert open_model(path).name == "efficientad_ast"


@pytest.mark.parametrize("form", ["onnx", "xml"])
def test_a_changed_file_is_refused(network, tmp_path, form):
    """The threshold in the description, another word of it, and a number of the network."""
    path = tmp_path / f"cloth.{form}"
    if form == "xml":
        pytest.importorskip("openvino")
        exporting._write_openvino(network, path)
    else:
        shutil.copy(network, path)
    content = path.read_bytes()
    assert open_model(path).name == "efficientad_ast"
    for place in (content.index(b"conformal"), content.index(b"file_sha256") + 20, len(content) // 2):
        digit = content[place]
        path.write_bytes(content[:place] + bytes([digit ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError):
            open_model(path)


@pytest.mark.slow
def test_a_file_that_differs_is_not_handed_out(detector, network, tmp_path, monkeypatch):
    class Worn:
        name = "worn"

        def __call__(self, images):
            found = open_model(network).session(images)
            return found._replace(score=found.score + 0.01, raw_score=found.raw_score * 1.01)

    model = open_model(network)
    model.session = Worn()
    with pytest.raises(ExportError, match="differs from the detector"):
        compare(detector, model, network, [texture(0)])
    monkeypatch.setattr(exporting, "open_model", lambda path: model)
    monkeypatch.setattr(exporting, "_write_onnx", lambda detector, path: path.write_bytes(b"network"))
    with pytest.raises(ExportError):
        export(detector, tmp_path / "bad.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_threads_wait_as_those_of_torch(network, monkeypatch):
    key = "session.intra_op.allow_spinning"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    options = open_model(network, "onnx").session._session.get_session_options()
    assert options.get_session_config_entry(key) == "0"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    options = open_model(network, "onnx").session._session.get_session_options()
    with pytest.raises(RuntimeError, match=key):
        options.get_session_config_entry(key)


def test_runs_without_torch(network, tmp_path, detector):
    """In a process where torch cannot be imported."""
    picture = write_picture(tmp_path / "picture.png", texture(7, 72))
    script = (
        "import sys\n"
        "for name in ('torch', 'timm', 'torchvision', 'matplotlib'): sys.modules[name] = None\n"
        "from andon.runtime import open_model\n"
        "from andon.cli.main import app\n"
        "print(open_model(sys.argv[1]).predict(sys.argv[2]).raw_score)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, network, picture], capture_output=True, text=True, check=True
    )
    assert float(found.stdout) == pytest.approx(detector.predict(picture).raw_score, rel=1e-4)


@pytest.mark.slow
def test_example_without_andon(network, tmp_path, detector):
    """With the thresholds as fitted, and with others, between two of which a person decides."""
    example = ROOT / "examples" / "onnx_only.py"
    pictures = [write_picture(tmp_path / f"{k}.png", texture(k, 77)) for k in range(4)]
    low, middle, high = sorted(detector.predict(picture).score for picture in pictures[:3])
    changed = with_thresholds(detector, (middle + high) / 2, (low + middle) / 2)
    export(changed, tmp_path / "changed.onnx")
    for file, answering in ((network, detector), (tmp_path / "changed.onnx", changed)):
        found = subprocess.run(
            [sys.executable, example, file, *pictures], capture_output=True, text=True, check=True
        )
        expected = [answering.predict(picture) for picture in pictures]
        for line, answer in zip(found.stdout.splitlines(), expected, strict=True):
            verdict, score, _, _ = line.split(maxsplit=3)
            assert float(score) == pytest.approx(answer.score, abs=1e-3)
            assert verdict == answer.verdict
    assert {answer.verdict for answer in expected} == {"OK", "look", "NG"}


def openvino_flags():
    """Where CMake finds OpenVINO: its wheel brings headers, libraries and CMake package."""
    import openvino

    return [f"-DOpenVINO_DIR={Path(openvino.__path__[0]) / 'cmake'}"]


def onnxruntime_flags():
    """ONNX Runtime's headers from a Debian package or a folder that is named, its library from the wheel."""
    folders = [os.environ.get("ONNXRUNTIME_INCLUDE", ""), "/usr/include/onnxruntime"]
    headers = [folder for folder in folders if folder and (Path(folder) / "onnxruntime_cxx_api.h").is_file()]
    import onnxruntime

    libraries = sorted((Path(onnxruntime.__path__[0]) / "capi").glob("libonnxruntime.so.*"))
    if not headers or not libraries:
        pytest.skip(
            "ONNX Runtime's wheel has no C++ headers: they need libonnxruntime-dev (Debian 13) or ONNXRUNTIME_INCLUDE"
        )
    return [f"-DONNXRUNTIME_INCLUDE={headers[0]}", f"-DONNXRUNTIME_LIBRARY={libraries[0]}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "program,flags", [("score", openvino_flags), ("score_onnxruntime", onnxruntime_flags)]
)
def test_example_in_cpp(tmp_path, detector, program, flags):
    """Builds an example against its runtime and Debian's libpng-dev, and compares its answers with the detector's."""
    if shutil.which("cmake") is None or not Path("/usr/include/png.h").is_file():
        pytest.skip("needs cmake and libpng-dev")
    folder, build = ROOT / "examples" / "cpp", tmp_path / "build"
    subprocess.run(["cmake", "-S", folder, "-B", build, *flags()], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build, "--target", program], check=True, capture_output=True)
    pictures = [write_picture(tmp_path / f"{k}.png", texture(k, 48 + 16 * k)) for k in range(3)]
    with pytest.warns(UnlikeTrainingWarning, match="48 x 48 pixels"):
        low, middle, high = sorted(answer.score for answer in detector.predict(pictures))
    changed = with_thresholds(detector, (middle + high) / 2, (low + middle) / 2)
    network = tmp_path / "changed.onnx"
    export(changed, network)
    found = subprocess.run([build / program, network, *pictures], capture_output=True, text=True, check=True)
    answers = list(changed.judged(pictures))
    assert {answer.verdict for answer in answers} == {"OK", "look", "NG"}
    for line, expected in zip(found.stdout.splitlines(), answers, strict=True):
        verdict, score, _, _ = line.split(maxsplit=3)
        assert float(score) == pytest.approx(expected.score, abs=1e-3)
        assert verdict == expected.verdict
    missing = subprocess.run([build / program, network, tmp_path / "no.png"], capture_output=True, text=True)
    assert missing.returncode == 2
    assert "no.png cannot be read" in missing.stderr


def test_refusals(detector, network, tmp_path, monkeypatch):
    unfitted = type(detector)(detector.config, pretrained=False)
    with pytest.raises(NotFittedError):
        export(unfitted, tmp_path / "x.onnx")
    with pytest.raises(DataError, match="does not exist"):
        open_model(tmp_path / "none.onnx")
    with pytest.raises(DataError, match="no exported network"):
        open_model(write_picture(tmp_path / "a.png", texture(0)))
    with pytest.raises(ConfigError, match="unknown"):
        open_model(network, "tensorrt")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(network.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be opened"):
        open_model(broken)
    with pytest.raises(ConfigError, match="run folders"):
        load(network, "torch")
    with pytest.raises(DataError, match="int64 is no picture"):
        open_model(network).predict(np.zeros((9, 9), np.int64))  # type: ignore[call-overload]
    monkeypatch.setattr(exporting, "LARGEST", 10)
    with pytest.raises(ConfigError, match="at most 2"):
        export(detector, tmp_path / "x.onnx")


def test_suffixes_in_capitals_and_files_of_another_runtime(network, packed, tmp_path):
    capital = shutil.copy(network, tmp_path / "CLOTH.ONNX")
    for runtime in (None, "openvino"):
        assert load(capital, runtime).name == "efficientad_ast"
    assert load(shutil.copy(packed, tmp_path / "CLOTH.ANDON"), "onnx").name == "efficientad_ast"
    (tmp_path / "cloth.xml").write_text("<net/>")
    with pytest.raises(ConfigError, match=r"cloth\.xml is made for openvino.*leave --runtime out"):
        load(tmp_path / "cloth.xml", "onnx")


def test_foreign_networks_are_refused(network, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(network))
    onnx.helper.set_model_props(model, {})
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(DataError, match="no description"):
        open_model(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(model, {"andon": '{"format": 99}'})
    onnx.save(model, str(tmp_path / "later.onnx"))
    with pytest.raises(DataError, match="format 99"):
        open_model(tmp_path / "later.onnx")


@pytest.mark.slow
@pytest.mark.usefixtures("exported_once")
def test_commands(own_run, dataset_folder, cli):
    stain = dataset_folder / "test"
    by_torch = json.loads(cli("predict", own_run, stain, "--json").out)["predictions"]
    by_onnx = json.loads(cli("predict", own_run, stain, "--runtime", "onnx", "--json").out)["predictions"]
    assert [a["verdict"] for a in by_torch] == [a["verdict"] for a in by_onnx]
    assert [a["score"] for a in by_torch] == pytest.approx([a["score"] for a in by_onnx], abs=1e-3)
    assert cli("export", own_run, "--format", "tflite").code == 2
    assert cli("export", own_run, "--out", "model.pt").code == 2
    assert cli("export", own_run, "--int8", "--format", "openvino").code == 2


@pytest.mark.slow
@pytest.mark.usefixtures("exported_once")
def test_latency_command(own_run, network, dataset_folder, cli, monkeypatch):
    monkeypatch.setattr("andon.exporting.latency.Effort.__init__.__defaults__", (1, 0.0, 5, 0.0, 5, 1.0))
    by_torch = cli("latency", own_run, "--cycle-ms", "0.001", "--json")
    assert "the cycle is 0.001 ms" in by_torch.err
    stages = json.loads(by_torch.out)["stages"]
    assert list(stages) == ["decode", "resize", "network", "post-processing", "total"]
    parts = sum(stages[name]["mean"] for name in list(stages)[:-1])
    assert parts <= stages["total"]["mean"]
    assert stages["total"]["n"] == 5
    other = cli(
        "latency",
        own_run,
        dataset_folder / "test",
        "--runtime",
        "onnx",
        "--threads",
        "1",
        "--cycle-ms",
        "1e6",
    )
    assert "post-processing" in other.out
    assert "warning" not in other.err
    assert "no pictures of its own" in cli("latency", network).complaint()


@pytest.mark.slow
def test_export_command_and_int8(own_run, cli):
    whole = json.loads(cli("export", own_run, "--json").out)
    assert whole["difference"] < 1e-3
    small = json.loads(cli("export", own_run, "--int8", "--int8-limit", "1", "--json").out)
    assert small["int8"]["convolutions"] > 0
    assert small["bytes"] < whole["bytes"]
    refused = cli("export", own_run, "--int8", "--int8-limit", "0", "--out", own_run / "other.onnx")
    if small["int8"]["image_auroc_after"] < small["int8"]["image_auroc_before"]:
        assert refused.code == 1
        assert not (own_run / "other.onnx").exists()


def test_the_range_of_a_convolution_is_that_behind_its_activation():
    """Clips of other values, and activations behind convolutions that stay in float32, are not quantised."""
    pytest.importorskip("onnxruntime")
    from onnx import helper

    from andon.exporting.int8 import _with_activations

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], name="first"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], name="relu6"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second"),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("Conv", ["d", "w3"], ["e"], name="after"),
        helper.make_node("Relu", ["e"], ["f"], name="relu_after"),
        helper.make_node("Clip", ["image", "zero", "six"], ["g"], name="other"),
    ]
    graph = helper.make_graph(nodes, "network", [], [])
    assert _with_activations(graph, ["first", "second"]) == ["first", "second", "relu6", "relu"]


@pytest.mark.parametrize(
    ("before", "after", "changed", "limit", "refused"),
    [
        (
            0.95,
            0.93,
            1,
            0.01,
            "image AUROC 0.9500 before, 0.9300 after, 1 of 8 verdicts changed, and 0.01 is allowed",
        ),
        (0.95, 0.945, 1, 0.01, ""),
        (0.90, 0.95, 3, 0.0, ""),  # nothing was lost
        (
            None,
            None,
            1,
            0.1,
            "1 of 8 verdicts changed, and 0.1 is allowed",
        ),  # without labels the verdicts count
        (None, None, 0, 0.0, ""),
    ],
)
def test_eight_bits_are_refused_above_their_limit(
    own_run, tmp_path, monkeypatch, before, after, changed, limit, refused
):
    from andon.exporting import int8 as quantisation
    from andon.runs.source import run_data

    loss = quantisation.Loss(8, before, after, changed, 0.2, 20)
    monkeypatch.setattr(quantisation, "export", lambda detector, path: path.write_bytes(b"whole"))
    monkeypatch.setattr(quantisation, "_quantise", lambda source, target, *_: target.write_bytes(b"small"))
    monkeypatch.setattr(quantisation, "_describe", lambda *_: None)
    monkeypatch.setattr(quantisation, "open_model", lambda path: None)
    monkeypatch.setattr(quantisation, "_compare", lambda *_: loss)
    path, detector, data = tmp_path / "small.onnx", load_detector(own_run), run_data(own_run)
    if refused:
        with pytest.raises(quantisation.QuantisationError, match=refused) as caught:
            quantisation.export_int8(detector, path, data, limit=limit)
        assert "raise --int8-limit" in str(caught.value)
    else:
        assert quantisation.export_int8(detector, path, data, limit=limit) == loss
    assert path.exists() is not bool(refused)


def test_a_verdict_from_look_to_ok_counts_as_changed():
    from andon.exporting.int8 import _compare

    def model(verdict: str) -> Any:
        one = SimpleNamespace(raw_score=1.0, score=0.5, verdict=verdict, is_anomalous=False)
        return SimpleNamespace(judged=lambda records: [one for _ in records])

    records = [Record(image=Path("a.png"), id="a", label=0)]
    assert _compare(model("look"), model("OK"), records, 1, NoProgress()).verdicts_changed == 1
    assert _compare(model("look"), model("look"), records, 1, NoProgress()).verdicts_changed == 0


def test_a_network_without_convolutions_has_nothing_for_eight_bits(network, monkeypatch, tmp_path):
    from andon.exporting import int8 as quantisation

    monkeypatch.setattr(quantisation, "_convolutions", lambda graph: [])
    with pytest.raises(ConfigError, match="no convolutions"):
        quantisation._quantise(network, tmp_path / "small.onnx", [], (64, 64))


def test_a_threshold_that_is_not_1_on_its_scale_is_refused(detector):
    data = detector.fitted().to_json()
    assert Calibration.from_json(data) == detector.fitted()
    changed = data | {"image": data["image"] | {"value": 2 * data["image"]["value"]}}
    with pytest.raises(DataError, match=r"the image threshold is .* and 1 on the displayed scale is"):
        Calibration.from_json(changed)


def test_wrapper_keeps_the_size_of_the_picture(detector):
    with torch.inference_mode():
        found = ExportedDetector(detector)(torch.zeros(2, 33, 71, 3, dtype=torch.uint8))
    assert [tuple(values.shape) for values in found] == [(2,), (2,), (2, 33, 71), (2,)]


def with_thresholds(detector: Detector, image: float, look: float | None = None) -> Detector:
    """A copy that shares the networks, with image thresholds at displayed scores."""
    changed, fitted = copy(detector), detector.fitted()
    values = [
        None if x is None else float(np.float32(fitted.score_display.inverse(x))) for x in (image, look)
    ]
    changed.calibration = fitted.with_thresholds(
        replace(fitted.image, value=values[0]),
        replace(fitted.pixel, value=float(np.float32(fitted.pixel_display.inverse(0.7)))),
        None if values[1] is None else replace(fitted.image, value=values[1]),
    )
    return changed


def test_the_verdict_of_the_network_is_that_of_the_thresholds_in_use(detector):
    """A program without andon, which reads this output, must not pass what andon rejects or shows to a person."""
    image = texture(3, 80)
    score = detector.predict(image).score
    cases = {
        "NG": (score - 0.2, score - 0.3),
        "look": (score + 0.2, score - 0.2),
        "OK": (score + 0.3, score + 0.2),
    }
    for expected, (reject, look) in cases.items():
        changed = with_thresholds(detector, reject, look)
        answer = changed.predict(image)
        with torch.inference_mode():
            raw, shown, cells, verdict = ExportedDetector(changed)(torch.from_numpy(image)[None])
        assert answer.verdict == expected
        assert VERDICTS[verdict] == expected
        assert (float(shown) >= 1) == (expected == "NG")
        assert float(shown) == pytest.approx(answer.score, abs=1e-4)
        np.testing.assert_allclose(cells[0].numpy(), answer.anomaly_map, atol=1e-3)
        assert float(raw) == pytest.approx(answer.raw_score, rel=1e-4)
    plain = with_thresholds(detector, score + 0.2)
    assert plain.predict(image).verdict == "OK"
    assert VERDICTS[ExportedDetector(plain)._verdict(raw, cells[:, :4, :4])] == "OK"
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert VERDICTS[ExportedDetector(plain)._verdict(torch.tensor([bad]), cells)] == "ERROR"
        spoilt = torch.full((1, 4, 4), bad)
        assert VERDICTS[ExportedDetector(plain)._verdict(raw, spoilt)] == "ERROR"


def test_a_network_kept_before_a_change_of_thresholds_gives_the_maps_of_the_detector(detector, network):
    """Its scale of the map stays that of the export; the detector's moved."""
    changed, image = with_thresholds(detector, 0.5), texture(3, 80)
    opened = runtimes.open_session(network)
    model = Model(opened.session, opened.description, "network", changed.fitted())
    answer, expected = model.predict(image), changed.predict(image)
    assert answer.score == pytest.approx(expected.score, abs=1e-3)
    assert expected.score != pytest.approx(detector.predict(image).score, abs=1e-2)
    np.testing.assert_allclose(answer.raw_map, expected.raw_map, atol=1e-4)
    np.testing.assert_allclose(answer.anomaly_map, expected.anomaly_map, atol=1e-3)
