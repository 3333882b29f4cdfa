"""Ablation sequences: settings exist, rows build on each other as they say, tables."""

import pytest
from test_sweep import result

from andon.ablation import Ablation, Row, ablation_table, load_sequence, plan_ablation, sequence_names
from andon.errors import ConfigError
from andon.sweep import Result


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
    results = [Result(job, result(auroc=0.9 + 0.02 * job.seed).report, 0) for job in jobs]
    table = ablation_table(sequence, results, "t")
    assert table.rows[1][:4] == ("2", "rejected (not kept)", "100", "91.0 ± 1.4")
    assert table.rows[1][6] == "91.0"
    assert "3: something else changed." in table.notes
    assert ablation_table(sequence, [], "t").rows[0][3] == "–"
