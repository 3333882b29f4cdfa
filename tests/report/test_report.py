"""A saved report: which files there are, what the page says, and that nothing in it depends on anything outside."""

from __future__ import annotations

import base64
import csv
import errno
import io
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import tifffile
from made_report import make_calibration, make_cases, make_records, make_report
from matplotlib.axes import Axes
from PIL import Image

from andon.core.errors import DataError, OutputError
from andon.core.own_output import MARKER
from andon.detectors._base import enlarge
from andon.metrics import Metric
from andon.report import save_report
from andon.report.evaluation import Report
from andon.report.figures import draw_figures
from andon.report.page import render
from andon.report.text import percent

FIGURES = {"loss", "roc_image", "roc_pixel", "pr_image", "pr_pixel", "scores"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def saved(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_report(report, folder, maps=True)
    return folder


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second; most tests look at other things."""
    monkeypatch.setattr("andon.report.figures.draw_figures", lambda report: {})


def page_of(folder: Path) -> tuple[str, ElementTree.Element]:
    """Text and parsed tree; the page is well-formed XML, so that every tag is closed and every character escaped."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    return html, ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>"))


def words(tree: ElementTree.Element) -> str:
    return " ".join(" ".join(tree.itertext()).replace("\u00a0", " ").split())


def files(folder: Path) -> set[str]:
    """Names of all files but the markers of andon's own folders."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.name != MARKER}


def full_map(report: Report, k: int) -> np.ndarray:
    import torch

    return enlarge(torch.from_numpy(report.cases[k].raw_map)[None], report.cases[k].size)


# --- files --------------------------------------------------------------------------------------------------


def test_files_are_those_of_the_design(report: Report, saved: Path) -> None:
    places = {case.record.id.removeprefix("test/") for case in report.cases}
    assert files(saved) == (
        {"report.json", "report.html", "predictions.csv"}
        | {f"figures/{name}.png" for name in FIGURES}
        | {f"heatmaps/{place}.png" for place in places}
        | {f"masks/{place}.png" for place in places}
        | {f"maps/weave/test/{place}.tiff" for place in places}
    )
    assert all((saved / name / MARKER).is_file() for name in ("figures", "heatmaps", "masks", "maps"))


@pytest.mark.usefixtures("no_figures")
def test_images_and_maps_can_be_left_out(report: Report, tmp_path: Path) -> None:
    save_report(report, tmp_path, heatmaps=False)
    found = {name.split("/")[0] for name in files(tmp_path)}
    assert found == {"report.json", "report.html", "predictions.csv"}
    assert "data:image/jpeg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_report_json_is_that_of_the_report(report: Report, saved: Path) -> None:
    stored = json.loads((saved / "report.json").read_text(encoding="utf-8"))
    assert stored["metrics"]["image_auroc"] == report.metrics["image_auroc"].to_json()
    assert stored["time"]["stages"]["teacher"]["kept_epoch"] == 16


def test_predictions_csv_has_one_row_per_image_and_exact_scores(report: Report, saved: Path) -> None:
    with (saved / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "defect_type", "label", "score", "raw_score", "is_anomalous", "path"]
    assert [row["id"] for row in rows] == [case.record.id for case in report.cases]
    for row, case in zip(rows, report.cases, strict=True):
        assert np.float32(row["raw_score"]) == np.float32(case.raw_score)
        assert (float(row["raw_score"]) >= report.calibration.image.value) == (row["is_anomalous"] == "1")
        assert (row["label"], row["path"]) == (str(case.record.label), str(case.record.image))


def test_masks_are_the_thresholded_maps_at_the_images_size(report: Report, saved: Path) -> None:
    marked = 0
    for k, case in enumerate(report.cases):
        with Image.open(saved / "masks" / f"{case.record.id.removeprefix('test/')}.png") as opened:
            assert opened.mode == "L"
            mask = np.asarray(opened)
        expected = full_map(report, k) >= np.float32(report.calibration.pixel.value)
        np.testing.assert_array_equal(mask, np.where(expected, 255, 0))
        marked += int(expected.sum())
    assert marked > 0


@pytest.mark.usefixtures("no_figures")
def test_a_pixel_on_the_threshold_is_marked(report: Report, tmp_path: Path) -> None:
    limit = np.float32(report.calibration.pixel.value)
    case = report.cases[0]
    edge = np.full(case.size, np.nextafter(limit, np.float32(0)), np.float32)
    edge[:, case.size[1] // 2 :] = limit
    save_report(replace(report, cases=[replace(case, raw_map=edge)]), tmp_path)
    mask = np.asarray(Image.open(tmp_path / "masks/good/000.png"))
    np.testing.assert_array_equal(mask, np.where(edge >= limit, 255, 0))
    assert {0, 255} == set(np.unique(mask))


def test_float_maps_come_back_exactly(report: Report, saved: Path) -> None:
    for k, case in enumerate(report.cases):
        stored = tifffile.imread(saved / "maps" / "weave" / f"{case.record.id}.tiff")
        assert (stored.dtype, stored.shape) == (np.float32, case.size)
        np.testing.assert_array_equal(stored, full_map(report, k))


def test_an_earlier_report_is_replaced_and_nothing_else(report: Report, tmp_path: Path) -> None:
    own = tmp_path / "normal" / "mine.png"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    save_report(report, tmp_path)
    fewer = replace(report, cases=report.cases[:2], pixel_curve=None)
    save_report(fewer, tmp_path, maps=True)
    assert {name for name in files(tmp_path) if name.startswith("heatmaps")} == {
        "heatmaps/good/000.png",
        "heatmaps/good/001.png",
    }
    assert not (tmp_path / "figures/roc_pixel.png").exists()
    assert own.read_bytes() == b"mine"


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("name", ["heatmaps", "masks", "maps", "figures"])
def test_files_of_the_user_are_not_drawn_over(report: Report, tmp_path: Path, name: str) -> None:
    own = tmp_path / name / "scratch" / "000.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(OutputError, match=f"{name} holds files that andon did not write.*another folder"):
        save_report(report, tmp_path, maps=True)
    assert files(tmp_path) == {f"{name}/scratch/000.png", "report.json"}
    assert own.read_bytes() == b"mine"
    own.unlink()
    own.parent.rmdir()
    (tmp_path / name / ".gitkeep").touch()
    save_report(report, tmp_path, maps=True)
    save_report(report, tmp_path, maps=True)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("after", [0, 3, 5, -1])
def test_an_earlier_report_outlives_a_full_disk(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    save_report(report, tmp_path)
    before = content(tmp_path)
    fewer = replace(report, cases=report.cases[:2], pixel_curve=None)
    put, calls = Path.replace, []

    def full(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) - 1 == after or (after == -1 and target.name == "report.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="no space left"):
        save_report(fewer, tmp_path, maps=True)
    assert content(tmp_path) == before


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.usefixtures("no_figures")
def test_an_earlier_report_is_replaced_as_a_whole_or_not_at_all(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = replace(report, cases=report.cases[:2], pixel_curve=None)
    save_report(report, tmp_path / "old")
    save_report(fewer, tmp_path / "new", maps=True)
    before, wanted = content(tmp_path / "old"), content(tmp_path / "new")
    move, calls = Path.rename, []
    stops = {"at": 0, "for_good": False}

    def rename(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == stops["at"] or (stops["for_good"] and len(calls) > stops["at"]):
            raise Killed
        return move(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    save_report(fewer, shutil.copytree(tmp_path / "old", tmp_path / "count"), maps=True)
    total = len(calls)
    for at in (1, 2, 4, total // 2, total - 2, total):
        for for_good in (False, True):
            folder = shutil.copytree(tmp_path / "old", tmp_path / f"{at}-{for_good}")
            calls.clear()
            stops |= {"at": at, "for_good": for_good}
            with monkeypatch.context() as killed, pytest.raises(Killed):
                if for_good:  # nothing is tidied up either
                    killed.setattr(shutil, "rmtree", lambda *_, **__: None)
                save_report(fewer, folder, maps=True)
            if not for_good or at == 1:
                assert {n: c for n, c in content(folder).items() if ".evaluating" not in n} == before
            else:
                assert not (folder / "report.json").exists()
            stops["at"] = -1
            stops["for_good"] = False
            save_report(fewer, folder, maps=True)
            assert content(folder) == wanted


@pytest.mark.usefixtures("no_figures")
def test_an_image_that_is_gone_is_named(report: Report, tmp_path: Path) -> None:
    case = report.cases[0]
    gone = replace(case, record=replace(case.record, image=tmp_path / "gone.png"))
    with pytest.raises(DataError, match=r"gone\.png"):
        save_report(replace(report, cases=[gone]), tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()


def test_figures_leave_no_global_state_and_are_large_enough(report: Report) -> None:
    before = dict(matplotlib.rcParams)
    drawn = draw_figures(report)
    assert dict(matplotlib.rcParams) == before
    assert drawn.keys() == FIGURES
    for content in drawn.values():
        with Image.open(io.BytesIO(content)) as opened:
            assert min(opened.size) >= 500


# --- page ---------------------------------------------------------------------------------------------------


def test_page_needs_nothing_from_outside(saved: Path) -> None:
    html, tree = page_of(saved)
    addresses = [e.get(key) for e in tree.iter() for key in ("src", "href", "data", "poster") if e.get(key)]
    assert addresses and all(address.startswith("data:image/") for address in addresses if address)
    assert {e.tag for e in tree.iter()}.isdisjoint({"script", "link", "iframe", "object", "base", "form"})
    assert not re.search(r"https?://|@import|url\(|javascript:", html)
    assert not [key for e in tree.iter() for key in e.attrib if key.startswith("on")]


def test_page_says_the_verdict_first_and_every_key_number_with_its_basis(report: Report, saved: Path) -> None:
    text = words(page_of(saved)[1])
    assert re.search(r"Of 6 anomalous pictures (all )?\d (was|were) caught", text)
    for name in ("image AUROC", "pixel AUROC", "AUPRO 0.30", "AUPRO 0.05", "AUPIMO", "image F1-max (oracle)"):
        assert name in text
    low, high = report.metrics["image_auroc"].interval or (0.0, 0.0)
    assert f"6 anomalous, 5 good; 95 % interval {percent(low)} to {percent(high)}" in text
    assert "chosen with the test labels, so this is an upper bound" in text
    assert "6 anomalous, 5 good" in text
    assert report.calibration.image.describe() in text
    for kind in ("logical", "structural", "hole", "missing", "scratch"):
        assert kind in text
    assert "not used for verdicts" in text and "teacher mean" in text
    assert "state of epoch 16 kept" in text and "1 h 10 min" in text
    assert "24.8 M" in text and "12.3 G" in text and "Some Processor" in text
    assert "0123456789abcdef" * 4 in text and "Apache-2.0" in text


def test_page_shows_worst_errors_and_examples_with_four_views(report: Report, saved: Path) -> None:
    _, tree = page_of(saved)
    articles = [e for e in tree.iter("article")]
    kinds = {case.record.defect_type for case in report.cases}
    assert len(articles) >= len(kinds) + 2
    for article in articles:
        assert [e.text for e in article.iter("figcaption")] == [
            "picture",
            "heat map",
            "marked by the detector",
            "ground truth",
        ]


def test_selection_on_test_labels_is_said_at_the_top(report: Report) -> None:
    chosen = render(replace(report, selection="test"), {})
    assert chosen.index("Selected on test labels") < chosen.index('class="verdict"')
    assert "Selected on test labels" not in render(report, {})


def test_thresholds_from_training_images_guarantee_nothing(report: Report) -> None:
    html = render(replace(report, calibration=replace(report.calibration, source="train")), {})
    assert "no false-reject rate is guaranteed" in html and "so no rate is guaranteed" in html


@pytest.mark.usefixtures("no_figures")
def test_large_images_are_small_inside_the_page_and_whole_outside(tmp_path: Path) -> None:
    records = make_records(tmp_path, good=1, bad=1)
    for record in records:
        for path in (record.image, *record.masks):
            with Image.open(path) as opened:
                large = opened.resize((1300, 40), Image.Resampling.NEAREST)
            large.save(path)
    save_report(make_report(tmp_path, records), tmp_path / "run")
    html, _ = page_of(tmp_path / "run")
    for content in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html):
        with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
            assert max(opened.size) <= 1024
    for name in ("heatmaps/good/000.png", "masks/good/000.png"):
        with Image.open(tmp_path / "run" / name) as opened:
            assert opened.size == (1300, 40)


@pytest.mark.usefixtures("no_figures")
def test_hostile_names_stay_text_and_stay_inside_the_folder(tmp_path: Path) -> None:
    ids = [
        "../../evil",
        'a/<script>alert("1")</script>',
        "b/x&y' onload='1",
        "CON",
        "one/same",
        "two/same",
        "two/SAME",
        "line\nbreak\x01",
        "caf\udce9",
        "$\\frac{1}$",
        "{{ 7 * 7 }}",
    ]
    made = make_records(tmp_path / "data", good=len(ids), bad=1)
    records = [replace(record, id=name) for record, name in zip(made, ids, strict=False)]
    bad = replace(made[-1], id="z/bad", defect_type="../<b>&")
    odd = "<img src=x onerror=1>$&"
    skipped = {name: odd for name in ids}
    report = make_report(tmp_path, [*records, bad], category=odd, skipped=skipped, notes=(odd,))
    save_report(report, tmp_path / "run", maps=True)
    html, tree = page_of(tmp_path / "run")
    assert "<script" not in html and "<img src=x" not in html and "onerror=1>" not in html
    assert odd in words(tree) and "{{ 7 * 7 }}" in words(tree)
    for top, suffix in (("heatmaps", ".png"), ("masks", ".png"), ("maps", ".tiff")):
        found = [name for name in files(tmp_path / "run") if name.startswith(f"{top}/")]
        assert len({name.casefold() for name in found}) == len(report.cases)
        below = r"[^/]+/test/" if top == "maps" else ""
        assert all(re.fullmatch(rf"{top}/{below}[^/]+/[^/]+\{suffix}", name) for name in found)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}
    stored = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert stored["images"]["skipped"] == skipped
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [*(name.replace("\udce9", "\\udce9") for name in ids), "z/bad"]


# --- runs that lack something -------------------------------------------------------------------------------


def test_without_masks_there_are_no_pixel_curves_and_the_page_says_so(tmp_path: Path) -> None:
    save_report(make_report(tmp_path, make_records(tmp_path, masks=False)), tmp_path / "run")
    figures = {path.stem for path in (tmp_path / "run/figures").glob("*.png")}
    assert figures == FIGURES - {"roc_pixel", "pr_pixel"}
    text = words(page_of(tmp_path / "run")[1])
    assert "No pixel curves: the anomalous pictures have no masks." in text
    assert "pixel metrics, AUPRO – Undefined: the anomalous pictures have no masks." in text
    assert "no mask was given" in text
    assert "pixel AP" not in text.split("Thresholds")[0]  # one row for all of them


@pytest.mark.parametrize(
    ("good", "bad", "sentence"),
    [
        (4, 0, "There was no anomalous picture to catch; of 4 good pictures"),
        (0, 4, "there was no good picture to reject."),
    ],
)
def test_runs_with_one_label_only(tmp_path: Path, good: int, bad: int, sentence: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_report(make_report(tmp_path, make_records(tmp_path, good=good, bad=bad)), tmp_path / "run")
    text = words(page_of(tmp_path / "run")[1])
    assert sentence in text
    assert "image AUROC – Undefined: there is no" in text
    figures = {path.stem for path in (tmp_path / "run/figures").glob("*.png")}
    assert figures.isdisjoint({"roc_image", "pr_image"}) and "scores" in figures


def test_the_oddest_good_images_are_shown_with_the_threshold_without_them(report: Report) -> None:
    scores = (*report.calibration.scores[1:], 9.0)
    names = tuple(f"train/good/{k:03}" for k in range(len(scores)))
    shown = report.cases[0].record
    odd = replace(
        report,
        calibration=replace(report.calibration, scores=scores, names=names),
        good_images=(replace(shown, id=names[-1]),),
    )
    page = render(odd, {})
    assert f"Oddest good picture: {names[-1]} (score " in page
    assert "look at it: is it good? image threshold without it: " in page
    assert re.search(rf'<img src="data:image/jpeg[^"]*" alt="good picture {names[-1]}"', page)
    assert "far above the rest" in page
    stored = odd.to_json()["oddest_good_images"]
    assert stored["images"][0]["name"] == names[-1]
    assert stored["threshold_without"] < stored["images"][0]["raw_score"]
    gone = render(replace(odd, good_images=(replace(shown, id=names[-1], image=Path("gone.png")),)), {})
    assert f"<b>{names[-1]}</b>" in gone and 'alt="good picture' not in gone


def test_the_licence_of_the_images_is_on_the_page(report: Report) -> None:
    said = replace(report, data_licence="photographs by somebody, CC0")
    assert "Images: photographs by somebody, CC0." in words(
        ElementTree.fromstring(render(said, {}).removeprefix("<!DOCTYPE html>"))
    )
    assert said.to_json()["data_licence"] == "photographs by somebody, CC0"


def test_without_loss_curves_latency_weights_and_alternatives(report: Report) -> None:
    bare = replace(report, stages={}, latency=None, weights=(), alternatives={}, recipe="", dataset="")
    text = words(ElementTree.fromstring(render(bare, {}).removeprefix("<!DOCTYPE html>")))
    assert "No loss curves" in text and "not measured" in text and "not used for verdicts" not in text


def only(report: Report, **changes: object) -> Report:
    """A report with nothing to draw but `changes`."""
    nothing = {"cases": [], "stages": {}, "image_curve": None, "pixel_curve": None}
    return replace(report, **(nothing | changes))


@pytest.mark.parametrize("values", [[3.0, 3.0, 3.0], [1.0, np.nan, 2.0], [-5.0, 0.0, 1e9], [0.0, 0.0, 0.0]])
def test_odd_losses_are_drawn(report: Report, values: list[float]) -> None:
    stage = replace(report.stages["teacher"], curve=[{"step": k + 1.0, "a": v} for k, v in enumerate(values)])
    assert draw_figures(only(report, stages={"teacher": stage})).keys() == {"loss"}


@pytest.mark.parametrize("scale", [0.0, 1e4, -1e3, np.inf])
def test_odd_scores_are_drawn(report: Report, scale: float) -> None:
    scores = [float(np.float64(score) * scale) for score in (-0.5, 0.7, 3.0)]
    cases = [replace(case, score=score) for case, score in zip(report.cases, scores, strict=False)]
    drawn = draw_figures(only(report, cases=cases))
    assert drawn.keys() == (set() if np.isinf(scale) else {"scores"})


def test_scores_on_the_threshold_are_counted_above_it(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: seen.append(text))
    scores = (np.nextafter(1.0, 0.0), 1.0, 30.0)
    good = [case for case in report.cases if not case.record.label]
    cases = [replace(case, score=float(score)) for case, score in zip(good, scores, strict=False)]
    draw_figures(only(report, cases=cases))
    assert seen == ["good: 1 below the threshold, 2 at or above"]


def test_unknown_metrics_and_reasons_do_not_break_the_page(report: Report) -> None:
    metrics = report.metrics | {"auspro_0.05": Metric(float("nan"), 3, 9, "some_new_reason")}
    assert "some new reason" in render(replace(report, metrics=metrics), {})


@pytest.mark.usefixtures("no_figures")
def test_images_with_transparency_are_read_without_a_warning(tmp_path: Path) -> None:
    records = make_records(tmp_path, good=2, bad=1)
    Image.new("RGBA", (48, 48), (90, 90, 90, 100)).save(records[0].image)
    calibration = make_calibration()
    report = replace(make_report(tmp_path, records), cases=make_cases(records, calibration))
    save_report(report, tmp_path / "run")
    assert (tmp_path / "run/heatmaps/good/000.png").is_file()
