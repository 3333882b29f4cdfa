"""Data sets of a sweep: names that tell them apart, what is refused, and tables over several."""

from __future__ import annotations

import pytest
from made_results import make_result

from andon.core.errors import DataError
from andon.experiments import sweep
from andon.experiments.comparison import comparison, per_category
from andon.experiments.sweep import plan
from andon.experiments.targets import find_targets


def lay_out(folder, *parts):
    """Empty files as images; `open_dataset` lists them without opening any."""
    for part in parts or ("train/good", "test/good", "test/hole"):
        (folder / part).mkdir(parents=True)
        for name in ("000.png", "001.png"):
            (folder / part / name).touch()
    return str(folder)


def test_every_category_of_every_data_set_is_a_target(tmp_path):
    lay_out(tmp_path / "many" / "nut")
    lay_out(tmp_path / "many" / "screw")
    found = find_targets([str(tmp_path / "many"), lay_out(tmp_path / "cap"), "embedded:bolt"])
    assert {name: target.category for name, target in found.items()} == {
        "nut": "nut",
        "screw": "screw",
        "cap": "cap",
        "bolt": "bolt",
    }
    chosen = find_targets([str(tmp_path / "many"), str(tmp_path / "cap")], ["cap", "nut"])
    assert list(chosen) == ["nut", "cap"]


def test_equal_names_are_told_apart_by_the_folders_they_lie_in(tmp_path):
    paths = [lay_out(tmp_path / maker / "real" / "bolt") for maker in ("north", "south")]
    data = [*paths, "embedded:bolt", "embedded:bolt,size=128", lay_out(tmp_path / "cap")]
    assert list(find_targets(data)) == [
        "north/real/bolt",
        "south/real/bolt",
        "embedded/bolt",
        "size=128/bolt",
        "cap",
    ]
    folders = {job.folder(tmp_path / "out") for job in plan(data, ["padim/lite0"], seeds=2)}
    assert len(folders) == 10


def test_a_single_data_set_keeps_its_folders_of_results(tmp_path):
    (job,) = plan("embedded:fabric", ["padim/lite0"])
    assert job.folder(tmp_path) == tmp_path / "runs/padim-lite0/fabric/seed-0"


def test_what_cannot_be_compared_is_refused(tmp_path, monkeypatch):
    cap, real = lay_out(tmp_path / "real" / "cap"), str(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    for data, words in {
        (cap, str(tmp_path / "cab")): "cab does not exist",
        (cap, cap): "cap is given twice",
        (cap, "real/cap"): "given twice",
        (real, cap): "given twice",
        ("embedded:bolt,size=64,seed=1", "embedded:bolt,seed=1,size=64"): "given twice",
        (cap, lay_out(tmp_path / "good", "train/good", "test/good")): "good has no defective test pictures",
        (lay_out(tmp_path / "flat" / "images", "."),): "no defective test pictures",
    }.items():
        with pytest.raises(DataError, match=words):
            find_targets(data)
    with pytest.raises(DataError, match="has no category 'nut'; known: bolt, cap"):
        find_targets([cap, "embedded:bolt"], ["nut"])
    with pytest.raises(DataError, match="embedded:bolt has none of the categories cap"):
        find_targets([cap, "embedded:bolt"], ["cap"])


def test_categories_whose_folders_of_results_would_be_one_are_refused(tmp_path):
    for name in ("a b", "a+b"):
        lay_out(tmp_path / "data" / name)
    with pytest.raises(DataError, match="the same folder of results: rename one"):
        find_targets([str(tmp_path / "data")])


def several(**without):
    """Results of two data sets with the same category, two seeds; the second may lack masks."""
    results = [
        make_result(data=data, target=f"{data}/bolt", category="bolt", seed=seed, auroc=value + 0.1 * seed)
        for data, value in (("north", 0.9), ("south", 0.7))
        for seed in (0, 1)
    ]
    for result in results:
        if result.job.data == "south":
            for name in without.get("masks", ()):
                result.report["metrics"][name] = {"value": None, "reason": "no_masks"}
    return results


def test_tables_of_several_data_sets_have_the_mean_over_them():
    tables = {table.title: table for table in comparison(several())}
    assert next(iter(tables)) == "Mean over 2 data sets"
    image = tables["image AUROC (%)"]
    assert image.columns[:4] == ("detector", "north/bolt", "south/bolt", "mean over sets")
    assert image.rows[0][1:4] == ("95.0 ± 7.1", "75.0 ± 7.1", "85.0 ± 7.1")
    assert tables["false-reject rate at the fixed threshold (%)"].rows[0][3] == "5.0 ± 0.0"
    mean = tables["Mean over 2 data sets"]
    cells = dict(zip(mean.columns, mean.rows[0], strict=True))
    assert cells["image AUROC (%)"] == "85.0 ± 7.1"
    assert cells["recall at the fixed threshold (%)"] == "80.0 ± 0.0"
    assert cells["latency p50 (ms)"] == "20.0 ± 0.0"
    assert [row[0] for row in per_category(several(), "padim/starter").rows] == [
        "north/bolt",
        "south/bolt",
        "mean over sets",
    ]


def test_a_data_set_without_masks_is_left_out_of_pixel_tables_and_named():
    tables = {table.title: table for table in comparison(several(masks=["pixel_auroc"]))}
    pixel = tables["pixel AUROC (%)"]
    assert pixel.columns[:3] == ("detector", "north/bolt", "mean over sets")
    assert pixel.rows[0][2] == "95.0 ± 0.0"
    (note,) = [note for note in pixel.notes if "no masks" in note]
    assert note.endswith(": south/bolt.")
    assert note in tables["Mean over 2 data sets"].notes
    assert note not in tables["AUPRO 0.30 (%)"].notes


def test_an_undefined_value_of_a_data_set_with_masks_is_a_dash():
    results = several()
    for result in results[:2]:
        result.report["metrics"]["pixel_auroc"] = {"value": None, "reason": "no_negatives"}
    pixel = comparison(results)[2]
    assert pixel.rows[0][1:4] == ("–", "95.0 ± 0.0", "95.0 ± 0.0 (1 of 2)")


def test_the_command_takes_several_data_sets(tmp_path, monkeypatch, cli):
    arguments = ["--detectors", "padim/lite0", "--out", tmp_path / "out"]
    monkeypatch.setattr(sweep, "finished", lambda job, out: make_result(data=job.data, category=job.category))
    done = cli("benchmark", "embedded:bolt", "embedded:fabric", *arguments)
    assert done.code == 0
    assert "| detector | bolt | fabric | mean over sets |" in done.out
    refused = cli("benchmark", "embedded:bolt", tmp_path / "nowhere", *arguments)
    assert refused.code == 2
    assert "nowhere does not exist" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
