"""Ablation sequences: settings exist, rows build on each other as they say, tables."""

from pathlib import Path

import pytest
from made_results import make_result

from andon.core.errors import ConfigError, DataError
from andon.experiments.ablation import (
    Ablation,
    Row,
    ablation_table,
    load_sequence,
    plan_ablation,
    sequence_names,
)
from andon.experiments.sweep import Job, Result


@pytest.mark.parametrize("name", sequence_names())
def test_every_sequence_can_be_planned(name):
    jobs = plan_ablation(load_sequence(name), "data", "bottle", seeds=2, budget=0.01)
    assert len({job.name for job in jobs}) == len(load_sequence(name).rows)
    assert len(jobs) == 2 * len(load_sequence(name).rows)
    assert all(job.settings.get("epochs", 1) >= 1 for job in jobs)  # EAST has none


def rows(**settings: object) -> Ablation:
    return Ablation(
        detector="efficientad_ast",
        start="corrected",
        base={"selection": "budget"},
        rows=(
            Row(change="start", epochs=40),
            Row(change="rejected", set={"student.p_hard": 0.5}, kept=False, published={"image_auroc": 91.0}),
            Row(change="kept", set={"maps.pad": 4}, note="something else changed"),
            Row(change="last", set={"drop_last": True}),
        ),
        **settings,
    )


def test_cumulative_rows_keep_what_is_kept():
    last = plan_ablation(rows(cumulative=True), "data", "c", budget=0.5)[-1].settings
    assert last == {"selection": "budget", "maps.pad": 4, "drop_last": True, "epochs": 50}
    alone = plan_ablation(rows(cumulative=False), "data", "c", settings={"epochs": 3})[-1].settings
    assert alone == {"selection": "budget", "drop_last": True, "epochs": 3}


def test_thesis_ends_at_the_published_student():
    """All steps kept, the sequence arrives at the published maps, losses and stopping, but for the extractor's mode."""
    last = plan_ablation(load_sequence("thesis"), "data", "bottle")[-2].settings
    assert last["selection"] == "test"
    assert (last["maps.normalise"], last["maps.pad"], last["student.p_hard"]) == ("none", 0, 0.0)
    assert (last["autoencoder.layout"], last["student.penalty"], last["extractor.mode"]) == (
        "published",
        1.0,
        "train",
    )


def test_unknown_names():
    with pytest.raises(ConfigError, match="did you mean thesis"):
        load_sequence("thesys")
    with pytest.raises(ConfigError, match="did you mean"):
        plan_ablation(rows(cumulative=True), "data", "c", settings={"epoch": 3})


def test_table():
    sequence = rows(cumulative=True)
    jobs = plan_ablation(sequence, "data", "c", seeds=2)
    results = [Result(job, make_result(auroc=0.9 + 0.02 * job.seed).report, 0) for job in jobs]
    table = ablation_table(sequence, results, "t")
    assert table.rows[1][:4] == ("2", "rejected (not kept)", "100", "91.0 ± 1.4")
    assert table.rows[1][6] == "91.0"
    assert "3: something else changed." in table.notes
    assert ablation_table(sequence, [], "t").rows[0][3] == "–"


def test_rows_of_other_recipes_stand_alone():
    sequence = load_sequence("east")
    jobs = plan_ablation(sequence, "data", "bottle", settings={"precision": "32-true"})
    assert [job.recipe for job in jobs[-3:]] == ["east/lite0", "padim/lite0", "patchcore/lite0"]
    assert jobs[-3].settings == {
        "score": "both",
        "common": None,
        "copies": True,
        "composition": True,
        "extractor.image_size": 384,
        "precision": "32-true",
    }
    assert jobs[-1].settings == {"precision": "32-true"}


def write_scores(job: Job, out: Path, scores: list[float], first: int = 0) -> None:
    folder = job.folder(out)
    folder.mkdir(parents=True)
    lines = [f"p{k},{k % 2},{score}" for k, score in enumerate(scores, first)]
    (folder / "predictions.csv").write_text("\n".join(["id,label,raw_score", *lines, "unknown,,1.0\n"]))


def test_changes_stand_against_the_row_they_build_on(tmp_path):
    sequence = rows(cumulative=True)
    jobs = plan_ablation(sequence, "data", "c")
    same, better, best = [1, 1, 1, 1], [1, 1, 1, 2], [1, 2, 1, 2]
    for job, scores in zip(jobs, (same, best, better, best), strict=True):
        write_scores(job, tmp_path, scores)
    results = [Result(job, make_result().report, 0) for job in jobs]
    table = ablation_table(sequence, results, "t", tmp_path)
    where = table.columns.index("change of image AUROC (95 %)")
    changes = [row[where].split(" ")[0] for row in table.rows]
    assert changes == ["–", "+50.0", "+25.0", "+25.0"]  # the second row was not kept
    assert table.rows[1][where] == "+50.0 (+50.0 to +50.0)"
    (jobs[0].folder(tmp_path) / "predictions.csv").write_text("id,label\n")
    assert ablation_table(sequence, results[1:2], "t", tmp_path).rows[0][where] == "–"
    (jobs[0].folder(tmp_path) / "predictions.csv").unlink()
    with pytest.raises(DataError, match="evaluate the run again"):
        ablation_table(sequence, results, "t", tmp_path)


def test_each_seed_is_compared_on_its_own_test_images(tmp_path):
    jobs = plan_ablation(rows(cumulative=True), "data", "c", seeds=2)
    for job in jobs:
        first, second = ([1, 1, 1, 1], [1, 2, 1, 2]) if job.seed else ([1, 1, 1, 1], [1, 1, 1, 2])
        write_scores(job, tmp_path, first if job.name.startswith("01") else second, 2 * job.seed)
    results = [Result(job, make_result().report, 0) for job in jobs]
    table = ablation_table(rows(cumulative=True), results, "t", tmp_path)
    assert table.rows[1][table.columns.index("change of image AUROC (95 %)")].startswith("+37.5 (")
