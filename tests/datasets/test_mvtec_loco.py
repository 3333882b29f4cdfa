"""MVTec LOCO AD and AutoVI: a mask file and a saturation area per defect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trees import (
    SHAPE,
    by_id,
    loco_tree,
)

from andon.datasets import Records, load_ground_truth, open_dataset


def test_mvtec_loco(tmp_path: Path) -> None:
    data = open_dataset(loco_tree(tmp_path / "pins"))
    assert data.layout == "mvtec_loco" and data.saturation is not None
    assert (len(data.train), len(data.validation)) == (12, 2)
    groups = {record.id: record.group for record in data.test}
    assert groups["pins/test/logical_anomalies/001"] == "logical"
    assert groups["pins/test/structural_anomalies/000"] == "structural"
    assert groups["pins/test/good/000"] == "good"
    both = by_id(data.test)["pins/test/logical_anomalies/001"]
    assert both.mask_kind == "channels" and [mask.name for mask in both.masks] == ["000.png", "001.png"]
    defects = load_ground_truth(both, SHAPE, data.saturation).defects
    assert [(r.defect_name, r.pixel_value, r.saturation_area) for r in defects] == [
        ("1_additional_pushpin", 255, 6),
        ("scratch", 240, 6),
    ]


def test_autovi_has_other_groups_and_no_validation(tmp_path: Path) -> None:
    folder = loco_tree(
        tmp_path / "pipe_clip", masks={"operator": [[255]], "unclipped": [[240]]}, validation=0
    )
    data = open_dataset(folder)
    assert {record.group for record in data.test if record.label} == {"anomalous"}
    assert (len(data.train), len(data.validation)) == (10, 2)


def test_loco_is_recognised_without_its_config(tmp_path: Path) -> None:
    """User data with a mask folder per image: every defect saturates at its own area."""
    data = open_dataset(loco_tree(tmp_path / "pins", config=None))
    assert data.layout == "mvtec_loco" and data.saturation is None
    assert load_ground_truth(data.test[-1], SHAPE, data.saturation).defects[0].saturation_area == 20


def test_loco_counts_accept_paper_and_archive(tmp_path: Path) -> None:
    from andon.datasets.published.counts import MVTEC_LOCO, compare

    data = open_dataset(loco_tree(tmp_path / "splicing_connectors"))
    assert any("copy may be partial" in warning for warning in data.findings.warnings)
    for counts in MVTEC_LOCO["splicing_connectors"]:
        test = [("good", counts.good), *counts.defects.items()]
        complete = replace(
            data,
            train=Records([data.train[0]] * counts.train),
            validation=Records([data.validation[0]] * counts.validation),
            test=Records(
                [replace(data.test[0], defect_type=kind) for kind, count in test for _ in range(count)]
            ),
        )
        assert compare(complete, "MVTec LOCO AD", MVTEC_LOCO["splicing_connectors"]).warnings == ()


def test_published_totals() -> None:
    """Sums of the tables in the papers."""
    from andon.datasets.published.counts import MVTEC_AD, MVTEC_LOCO

    assert sum(counts.train for counts in MVTEC_AD.values()) == 3629
    assert sum(counts.good for counts in MVTEC_AD.values()) == 467
    assert sum(sum(counts.defects.values()) for counts in MVTEC_AD.values()) == 1258
    assert sum(len(counts.defects) for counts in MVTEC_AD.values()) == 73
    for which, train, validation in ((0, 1778, 305), (-1, 1772, 304)):
        chosen = [counts[which] for counts in MVTEC_LOCO.values()]
        assert (sum(c.train for c in chosen), sum(c.validation for c in chosen)) == (train, validation)
        assert sum(c.good for c in chosen) == 575
        assert sum(c.defects["structural_anomalies"] for c in chosen) == 432
        assert sum(c.defects["logical_anomalies"] for c in chosen) == 561
