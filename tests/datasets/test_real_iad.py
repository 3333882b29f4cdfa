"""Real-IAD as a tiny tree with the pitfalls of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import (
    all_by_id,
    write_image,
    write_mask,
)

from andon.core.errors import DataError
from andon.datasets import check_dataset, list_categories, open_dataset


def real_iad_tree(root: Path, size: str = "realiad_1024", name: str = "audiojack") -> Path:
    """Six good parts to learn from; one good, one bad part to test, whose second view shows no defect."""
    folder = root / size / name
    train, test = [], []

    def view(part: str, number: int, kind: str, mask: bool) -> dict[str, str | None]:
        stem = f"{part}/{name}_{number}"
        write_image(folder / f"{stem}.jpg")
        if mask:
            write_mask(folder / f"{stem}_mask.png")
        return {
            "category": name,
            "anomaly_class": kind,
            "image_path": f"{stem}.jpg",
            "mask_path": f"{stem}_mask.png" if mask else None,
        }

    for part in range(6):
        train += [view(f"OK/S{part:04}", k, "OK", False) for k in range(3)]
    test += [view("OK/S0009", k, "OK", False) for k in range(3)]
    test += [view("NG/HS/S0001", k, "OK" if k == 1 else "HS", k != 1) for k in range(3)]
    values = {"meta": {"normal_class": "OK", "prefix": f"{name}/"}, "train": train, "test": test}
    for which in ("realiad_jsons", "realiad_jsons_fuiad_0.1"):
        table = root / "realiad_jsons" / which / f"{name}.json"
        table.parent.mkdir(parents=True, exist_ok=True)
        moved = {**values, "train": train + test[3:], "test": test[:3]} if "fuiad" in which else values
        table.write_text(json.dumps(moved))
    return root


def test_real_iad_parts_stay_together(tmp_path: Path) -> None:
    data = open_dataset(real_iad_tree(tmp_path / "Real-IAD"))
    assert (data.layout, data.category) == ("real_iad", "audiojack")
    assert (len(data.train), len(data.validation)) == (15, 3)  # 10 % of 18 views, whole parts
    assert not {r.object_id for r in data.train} & {r.object_id for r in data.validation}
    found = all_by_id(data)
    views = [found[f"audiojack/NG/HS/S0001/audiojack_{k}"] for k in range(3)]
    assert [(r.label, r.defect_type, len(r.masks)) for r in views] == [
        (1, "HS", 1),
        (0, "good", 0),
        (1, "HS", 1),
    ]
    assert {r.object_id for r in views} == {"audiojack/NG/HS/S0001"}
    assert check_dataset(data).errors == ()


def test_real_iad_choice_of_size_and_set(tmp_path: Path) -> None:
    root = real_iad_tree(real_iad_tree(tmp_path / "Real-IAD"), "realiad_256")
    (root / "realiad_jsons" / "realiad_jsons" / "unpacked_later.json").write_text("{}")
    assert list_categories(root) == ["audiojack"]
    assert "realiad_1024" in open_dataset(root).train[0].image.parts
    assert "realiad_256" in open_dataset(root / "realiad_256").train[0].image.parts
    data = open_dataset(root / "realiad_jsons" / "realiad_jsons_fuiad_0.1")
    mixed = [record for record in [*data.train, *data.validation] if "NG" in record.id]
    assert len(mixed) == 3 and all(record.label is None and not record.masks for record in mixed)
    assert any("train may hold defects" in note for note in data.findings.notes)


@pytest.mark.parametrize("path", ["../../../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg"])
@pytest.mark.parametrize("key", ["image_path", "mask_path"])
def test_real_iad_paths_may_not_leave_the_root(tmp_path: Path, path: str, key: str) -> None:
    root = real_iad_tree(tmp_path / "Real-IAD")
    table = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    values = json.loads(table.read_text())
    values["test"][-1][key] = path
    table.write_text(json.dumps(values))
    with pytest.raises(DataError, match="may lie outside"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as JSON"),
        ("[]", "no lists train and test"),
        ('{"train": [1], "test": []}', "expected anomaly_class"),
        ('{"train": [], "test": []}', "no training pictures"),
    ],
)
def test_real_iad_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    root = real_iad_tree(tmp_path / "Real-IAD")
    (root / "realiad_jsons" / "realiad_jsons" / "audiojack.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(root)


def test_real_iad_anomalous_in_train_is_left_out(tmp_path: Path) -> None:
    root = real_iad_tree(tmp_path / "Real-IAD")
    table = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    values = json.loads(table.read_text())
    values["train"].append(values["test"].pop())
    table.write_text(json.dumps(values))
    (root / "realiad_1024/audiojack/NG/HS/S0001/audiojack_0_mask.png").unlink()
    data = open_dataset(root)
    assert all(record.label == 0 for record in [*data.train, *data.validation])
    errors = " / ".join(data.findings.errors)
    assert "1 anomalous pictures in train" in errors and "1 of 1 anomalous" not in errors
