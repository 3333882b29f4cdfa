"""The parts of a report: colours, names, words, and the choice of images."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from made_report import make_calibration, make_records, make_report
from PIL import Image

from andon.core.records import Prediction, Record
from andon.metrics import Metric
from andon.report import examples
from andon.report.evaluation import Case, Report
from andon.report.file_names import places, safe_name, single_place
from andon.report.maps import (
    TABLE,
    data_uri,
    heat_colours,
    heat_map,
    marked,
    outline,
    read_image,
    save_prediction,
)
from andon.report.tables import breakdown, metric_rows, summary_rows
from andon.report.text import duration, milliseconds, percent, printable, short, unbroken


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(tmp_path_factory.mktemp("data"))


# --- colours ------------------------------------------------------------------------------------------------


def test_one_value_has_one_colour_whatever_else_is_in_the_image() -> None:
    image = np.full((20, 20, 3), 120, np.uint8)
    faint, strong = np.zeros((2, 20, 20), np.float32)
    faint[5, 5], strong[5, 5] = 0.8, 0.8
    strong[15, 15] = 50.0
    np.testing.assert_array_equal(heat_map(image, faint)[5, 5], heat_map(image, strong)[5, 5])
    np.testing.assert_array_equal(heat_map(image, strong)[5, 15], heat_map(image, faint)[15, 15])


def test_scale_is_clear_below_a_half_steps_at_the_threshold_and_stops_at_two() -> None:
    assert not heat_colours(np.float32([-100, 0, 0.3, 0.5]))[:, 3].any()
    below, at = heat_colours(np.float32([np.nextafter(np.float32(1), np.float32(0)), 1.0])).astype(int)
    assert below[2] > 2 * below[0] and at[0] > 4 * at[2]  # blue, then orange
    top, beyond, infinite = heat_colours(np.float32([2.0, 9.0, np.inf]))
    assert top.tolist() == beyond.tolist() == infinite.tolist()
    assert heat_colours(np.float32([np.nan]))[0, 3] == 0


def test_lightness_and_opacity_rise_with_the_value() -> None:
    half = len(TABLE) // 2
    for part in (TABLE[half // 2 : half], TABLE[half:]):
        light = part[:, :3] @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(light) >= -1).all() and light[-1] > light[0]
        assert (np.diff(part[:, 3].astype(int)) >= 0).all()


def test_untouched_pixels_are_the_dimmed_grey_image() -> None:
    image = np.dstack([np.full((8, 8), value, np.uint8) for value in (200, 100, 50)])
    grey = round(0.8 * (0.2989 * 200 + 0.587 * 100 + 0.114 * 50))
    assert np.unique(heat_map(image, np.zeros((8, 8), np.float32))).tolist() == [grey]


def test_outline_surrounds_the_mask_and_never_covers_it() -> None:
    mask = np.zeros((30, 30), np.bool_)
    mask[10:12, 10] = True
    line = outline(mask)
    assert not (line & mask).any()
    assert line.sum() == 3 * 4 - 2
    assert not outline(np.zeros((9, 9), np.bool_)).any()
    wide = np.zeros((1600, 10), np.bool_)
    wide[800, 5] = True
    assert outline(wide)[796, 5] and not outline(wide)[795, 5]


def test_heat_map_is_outlined_from_the_threshold_on() -> None:
    shown = np.zeros((12, 12), np.float32)
    shown[2, 2], shown[8, 8] = np.nextafter(np.float32(1), np.float32(0)), 1.0
    image = heat_map(np.full((12, 12, 3), 90, np.uint8), shown)
    assert image[8, 7].tolist() == [255] * 3
    assert image[2, 1].tolist() == [72] * 3


def test_marks_have_one_colour() -> None:
    mask = np.zeros((16, 16), np.bool_)
    mask[4:8, 4:8] = True
    image = marked(np.full((16, 16, 3), 250, np.uint8), mask, (1, 2, 3))
    assert image[5, 5].tolist() == [1, 2, 3]
    assert image[0, 0].tolist() == [125] * 3


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGBA"])
def test_images_of_any_mode_are_read_as_evaluation_does(tmp_path: Path, mode: str) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = (
        Image.fromarray(grey.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(grey).convert(mode)
    )
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(pixels, np.repeat(grey[:, :, None], 3, axis=2))
    assert data_uri(pixels).startswith("data:image/jpeg;base64,")


def test_predictions_are_saved_under_their_ids(tmp_path: Path) -> None:
    record = make_records(tmp_path / "data", good=1, bad=0)[0]
    calibration = make_calibration()
    raw = np.linspace(0, 4, 48 * 48, dtype=np.float32).reshape(48, 48)
    shown = np.asarray(calibration.pixel_display(raw), np.float32)
    mask = raw >= np.float32(calibration.pixel.value)
    for name in ("line 1/a.png", "line 1/a.jpg", "../up"):
        prediction = Prediction(0.4, False, shown, mask, 0.9, raw, replace(record, id=name))
        save_prediction(prediction, calibration, tmp_path / "out", maps=True)
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    up = single_place(replace(record, id="../up"))
    assert found == sorted(
        f"{top}/{name}.png" for top in ("heatmaps", "masks") for name in ("line 1/a", "line 1/a.jpg", up)
    )
    assert ".." not in up.split("/")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/masks/line 1/a.png")) > 0, mask)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/maps/line 1/a.tiff"), raw)
    with pytest.raises(ValueError, match="of a file"):
        save_prediction(Prediction(0.4, False, shown, mask, 0.9, raw, None), calibration, tmp_path)


# --- names --------------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=12),
    st.text("abA/.. :\\", max_size=8),
    st.sampled_from(["con", "COM1.x", "é" * 200, "\u00e9", "e\u0301"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(["", "good", "a/b", "Hole", "hole", ".."])), max_size=12))
def test_no_two_images_share_a_place(parts: list[tuple[str, str]]) -> None:
    found = places([Record(Path("x.png"), name, label=1, defect_type=kind) for name, kind in parts])
    assert len({unicodedata.normalize("NFC", place).casefold() for place in found}) == len(parts)
    for place in found:
        assert place.count("/") == 1
        for name in place.split("/"):
            assert name not in {"", ".", ".."} and not name.startswith(".") and len(name.encode()) <= 200
            assert not set(name) & set('<>:"\\|?*\n\0')


def test_places_are_short_where_they_can_be() -> None:
    names = ["test/hole/000", "test/hole/001", "b/test/hole/001", "test/good/000"]
    records = [Record(Path("x.png"), name, label=1, defect_type=name.split("/")[-2]) for name in names]
    assert places(records) == ["hole/000", "hole/test_hole_001", "hole/b_test_hole_001", "good/000"]


@settings(deadline=None, max_examples=100)
@given(TEXTS, TEXTS)
def test_different_names_stay_different(first: str, second: str) -> None:
    assert (safe_name(first) == safe_name(second)) == (first == second)
    assert safe_name(safe_name(first)) == safe_name(first)


# --- words --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(st.floats(0, 1))
def test_percentages_are_near_and_never_reach_the_ends_by_rounding(share: float) -> None:
    text = percent(share)
    if text in {"0 %", "100 %"}:
        assert min(share, 1 - share) < 1e-10
    elif text[0] not in "<>":
        assert abs(float(text.removesuffix(" %")) / 100 - share) <= 0.0005001
        assert 0 < float(text.removesuffix(" %")) < 100


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.5, "50.0 %"),
        (0.98723, "98.7 %"),
        (0.99874, "99.87 %"),
        (0.999961, "99.996 %"),
        (0.0123, "1.2 %"),
        (0.00042, "0.042 %"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (1 - 1e-15, "100 %"),
        (math.nan, "–"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_other_quantities() -> None:
    assert [duration(s) for s in (0.04, 9.94, 9.96, 59.6, 3599.7, 6120)] == [
        "0.0 s",
        "9.9 s",
        "10 s",
        "1 min 0 s",
        "1 h 0 min",
        "1 h 42 min",
    ]
    assert [short(n) for n in (0, 9999, 12345, 999_400, 999_600, 24.8e6, 1.2345e9)] == [
        "0",
        "9,999",
        "12.3 k",
        "999 k",
        "1 M",
        "24.8 M",
        "1.23 G",
    ]
    assert [milliseconds(v) for v in (1.0, 12.34, 1234.5)] == ["1.00 ms", "12.3 ms", "1,234 ms"]
    assert printable("a\nb\udce9\x9f") == "a\ufffdb\ufffd\ufffd"
    assert unbroken("5 % of 12 k, 3 min 2 s, 4 good") == "5\u00a0% of 12\u00a0k, 3\u00a0min 2\u00a0s, 4 good"


# --- tables -------------------------------------------------------------------------------------------------


def test_summary_has_names_values_and_meanings(report: Report) -> None:
    rows = summary_rows(report)
    values = {name: value for name, value, _ in rows}
    assert values["image AUROC"] == percent(report.metrics["image_auroc"].value)
    assert values["falsely rejected"].endswith(" of 5") and values["caught"].endswith(" of 6")
    assert values["threshold"] == f"{report.calibration.image.value:.6g}"
    assert all(name and value and meaning for name, value, meaning in rows)
    assert next(row for row in rows if row[0] == "image AUROC")[2].count(
        "[6 anomalous, 5 good; 95 % interval "
    )
    for name, whole in (("recall", "6 anomalous"), ("false-reject rate", "5 good")):
        text = next(row for row in rows if row[0] == name)[2]
        assert re.search(rf"\[\d of {whole}; 95 % interval [\d.]+ % to [\d.]+ %\]", text), text
    assert [name for name, *_ in rows].index("recall") == [name for name, *_ in rows].index("image AUROC") + 1


def test_undefined_metrics_have_a_dash_and_a_reason(report: Report) -> None:
    metrics = report.metrics | {"image_precision": Metric(math.nan, 6, 5, "nothing_called")}
    row = next(r for r in metric_rows(replace(report, metrics=metrics)) if r.name == "image precision")
    assert (row.value, row.meaning, row.basis) == ("–", "Undefined: nothing was called anomalous.", "")


def test_breakdown_counts_like_the_cases(report: Report) -> None:
    _, parts = breakdown(report)
    assert [part.name for part in parts] == [
        "mean of logical and structural",
        "logical",
        "structural",
        "hole",
        "missing",
        "scratch",
    ]
    for part in parts[1:]:
        chosen = [c for c in report.cases if part.name in {c.record.group, c.record.defect_type}]
        assert part.caught == f"{sum(c.is_anomalous for c in chosen)} of {len(chosen)}"


# --- images chosen ----------------------------------------------------------------------------------------


def case(name: str, score: float, label: int, kind: str = "") -> Case:
    record = Record(Path(f"{name}.png"), name, label=label, defect_type=kind or ("hole" if label else "good"))
    return Case(record, score, score, score >= 1, np.zeros((2, 2), np.float32), (8, 8), True)


def chosen(report: Report, *cases: Case) -> list[tuple[str, list[str]]]:
    groups = examples.errors(replace(report, cases=list(cases)))
    return [(group.title, [c.record.id for c in group.cases]) for group in groups]


def test_worst_errors_come_first(report: Report) -> None:
    good = [case(f"g{k}", 0.1 * k, 0) for k in range(15)]
    bad = [case(f"b{k}", 0.4 * k, 1) for k in range(5)]
    assert chosen(report, *good, *bad) == [
        ("False rejects: 5", ["g14", "g13", "g12"]),
        ("Escapes: 3", ["b0", "b1", "b2"]),
    ]


def test_the_closest_stand_in_where_there_are_no_errors(report: Report) -> None:
    cases = [case("g0", 0.1, 0), case("g1", 0.9, 0), case("b0", 3, 1), case("b1", 2, 1)]
    assert chosen(report, *cases) == [("No false reject", ["g1", "g0"]), ("No escape", ["b1", "b0"])]
    assert chosen(report, *cases[:2]) == [("No false reject", ["g1", "g0"])]


def test_examples_are_medians_of_each_kind_and_many_kinds_are_cut(report: Report) -> None:
    cases = [case(f"{kind}{k}", k, 1, kind) for kind in ("dent", "crack") for k in range(3)]
    group = examples.examples(replace(report, cases=[*cases, case("g", 0, 0)]))
    assert group is not None and [c.record.id for c in group.cases] == ["crack1", "dent1", "g"]
    many = [case(f"t{k:02}", 2, 1, f"t{k:02}") for k in range(20)]
    group = examples.examples(replace(report, cases=many))
    assert group is not None and len(group.cases) == examples.MOST_TYPES and "t19" in group.text


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (
            (40, 38, 25, 1),
            "Of 40 anomalous pictures 38 were caught (2 escapes); of 25 good pictures 1 was rejected.",
        ),
        (
            (3, 3, 2, 0),
            "Of 3 anomalous pictures all 3 were caught (no escape); of 2 good pictures none was rejected.",
        ),
        (
            (1, 0, 1, 1),
            "Of 1 anomalous picture none was caught (1 escape); of 1 good picture 1 was rejected.",
        ),
    ],
)
def test_verdict(counts: tuple[int, int, int, int], sentence: str) -> None:
    assert examples.Verdict(*counts).sentence() == sentence
