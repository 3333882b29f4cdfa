"""How many pictures published data sets hold, to notice partial copies (spec A.3, A.4)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from andon.datasets.dataset import Dataset
from andon.datasets.findings import Findings


@dataclass(frozen=True, slots=True)
class Counts:
    """Pictures of one category."""

    train: int
    good: int
    """Good test pictures."""
    defects: dict[str, int]
    """Test pictures of each defect folder."""
    validation: int = 0


def _mvtec(train: int, good: int, defects: str) -> Counts:
    return Counts(
        train,
        good,
        {name: int(count) for name, count in (part.rsplit(" ", 1) for part in defects.split(", "))},
    )


def _loco(train: int, validation: int, good: int, structural: int, logical: int) -> Counts:
    return Counts(train, good, {"structural_anomalies": structural, "logical_anomalies": logical}, validation)


MVTEC_AD = {
    "carpet": _mvtec(280, 28, "color 19, cut 17, hole 17, metal_contamination 17, thread 19"),
    "grid": _mvtec(264, 21, "bent 12, broken 12, glue 11, metal_contamination 11, thread 11"),
    "leather": _mvtec(245, 32, "color 19, cut 19, fold 17, glue 19, poke 18"),
    "tile": _mvtec(230, 33, "crack 17, glue_strip 18, gray_stroke 16, oil 18, rough 15"),
    "wood": _mvtec(247, 19, "color 8, combined 11, hole 10, liquid 10, scratch 21"),
    "bottle": _mvtec(209, 20, "broken_large 20, broken_small 22, contamination 21"),
    "cable": _mvtec(
        224,
        58,
        "bent_wire 13, cable_swap 12, combined 11, cut_inner_insulation 14, cut_outer_insulation 10, "
        "missing_cable 12, missing_wire 10, poke_insulation 10",
    ),
    "capsule": _mvtec(219, 23, "crack 23, faulty_imprint 22, poke 21, scratch 23, squeeze 20"),
    "hazelnut": _mvtec(391, 40, "crack 18, cut 17, hole 18, print 17"),
    "metal_nut": _mvtec(220, 22, "bent 25, color 22, flip 23, scratch 23"),
    "pill": _mvtec(
        267,
        26,
        "color 25, combined 17, contamination 21, crack 26, faulty_imprint 19, pill_type 9, scratch 24",
    ),
    "screw": _mvtec(
        320, 41, "manipulated_front 24, scratch_head 24, scratch_neck 25, thread_side 23, thread_top 23"
    ),
    "toothbrush": _mvtec(60, 12, "defective 30"),
    "transistor": _mvtec(213, 60, "bent_lead 10, cut_lead 10, damaged_case 10, misplaced 10"),
    "zipper": _mvtec(
        240,
        32,
        "broken_teeth 19, combined 16, fabric_border 17, fabric_interior 16, rough 17, split_teeth 18, "
        "squeezed_teeth 16",
    ),
}

MVTEC_LOCO = {
    "breakfast_box": (_loco(351, 62, 102, 90, 83),),
    "juice_bottle": (_loco(335, 54, 94, 94, 142),),
    "pushpins": (_loco(372, 69, 138, 81, 91),),
    "screw_bag": (_loco(360, 60, 122, 82, 137),),
    # The archive holds seven pictures more than the paper counts; both are complete.
    "splicing_connectors": (_loco(360, 60, 119, 85, 108), _loco(354, 59, 119, 85, 108)),
}


def compare_mvtec_ad(dataset: Dataset) -> Findings:
    """Compare with MVTec AD where category and defect folders have its names."""
    expected = MVTEC_AD.get(dataset.category)
    return _compare(dataset, "MVTec AD", (expected,)) if expected else Findings()


def compare_mvtec_loco(dataset: Dataset) -> Findings:
    """Compare with MVTec LOCO AD where category and defect folders have its names."""
    expected = MVTEC_LOCO.get(dataset.category)
    return _compare(dataset, "MVTec LOCO AD", expected) if expected else Findings()


def _compare(dataset: Dataset, name: str, accepted: tuple[Counts, ...]) -> Findings:
    test = Counter(record.defect_type for record in dataset.test)
    expected = accepted[0]
    if not set(test) <= {"good", *expected.defects}:
        return Findings()  # somebody's own pictures under a well-known name
    train, validation = len(dataset.train), len(dataset.validation)
    if not expected.validation:  # what is held out was in train
        train, validation = train + validation, 0
    found = Counts(train, test["good"], {kind: test[kind] for kind in expected.defects}, validation)
    if found in accepted:
        return Findings(notes=(f"counts agree with {name} {dataset.category}",))
    rows = {"train": (train, expected.train), "validation": (validation, expected.validation)}
    rows["test/good"] = (found.good, expected.good)
    rows |= {f"test/{kind}": (found.defects[kind], count) for kind, count in expected.defects.items()}
    return Findings(
        warnings=tuple(
            f"found {have} {part} pictures, {name} {dataset.category} has {want}: the copy may be partial"
            for part, (have, want) in rows.items()
            if have != want
        )
    )
