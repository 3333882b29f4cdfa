"""Manifests: three formats, forgiving about how they are written, strict about what they mean."""

from __future__ import annotations

import csv
import io
import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import write_image, write_images, write_mask

from andon.core.errors import DataError
from andon.datasets import list_categories, open_dataset
from andon.datasets.manifest_rows import read_rows, resolve


def with_manifest(folder: Path, text: str, name: str = "manifest.csv", encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding=encoding)
    return folder


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Ten good images, two bad ones, a mask of one and two of the other."""
    folder = tmp_path / "parts"
    write_images(folder / "good", 10)
    write_images(folder / "bad one", 2)
    for name in ("a", "b", "c"):
        write_mask(folder / "truth" / f"{name}.png")
    return folder


ROWS = [*([f"good/{n:03d}.png", "good", ""] for n in range(10)), ["bad one/000.png", "bad", "truth/a.png"]]


def test_everything_given(parts: Path) -> None:
    text = "\n".join(
        [
            "image,split,label,category,defect_type,mask,object_id,camera",
            "good/000.png,train,0,cup,,,p1,left",
            "good/001.png,val,good,cup,,,p2,left",
            "good/002.png,Test,OK,cup,,,p3,right",
            "bad one/000.png,test,1,cup,dent,truth/a.png,p4,right",
            'bad one/001.png,test,bad,cup,,"truth/b.png; truth/c.png",p4,',
            "good/003.png,test,,cup,,,,",
            "good/004.png,train,0,lid,,,,",
            "good/005.png,validation,0,lid,,,,",
        ]
    )
    folder = with_manifest(parts, text)
    assert list_categories(folder) == ["cup", "lid"]
    data = open_dataset(folder, "cup")
    assert (data.name, data.layout, data.root) == ("manifest", "manifest", parts)
    assert [record.id for record in data.train] == ["good/000"]
    assert [record.id for record in data.validation] == ["good/001"]
    records = {record.id: record for record in data.test}
    assert set(records) == {"good/002", "good/003", "bad one/000", "bad one/001"}
    dent = records["bad one/000"]
    assert (dent.label, dent.defect_type, dent.group, dent.mask_kind, dent.object_id) == (
        1,
        "dent",
        "anomalous",
        "single",
        "p4",
    )
    assert dent.metadata == {"camera": "right"}
    assert records["bad one/001"].mask_kind == "channels"
    assert records["bad one/001"].masks == (parts / "truth/b.png", parts / "truth/c.png")
    unknown = records["good/003"]
    assert (unknown.label, unknown.group, unknown.defect_type) == (None, "unknown", "")
    assert "1 test pictures without label" in data.summary()


def test_split_by_rule(parts: Path) -> None:
    folder = with_manifest(parts, "\n".join(["image,label,mask", *(",".join(row) for row in ROWS)]))
    data = open_dataset(folder)
    assert data.category == "parts"
    assert (len(data.train), len(data.validation)) == (7, 1)  # 2 of 10 to test, 1 of 8 to validation
    assert sorted(str(label) for label in data.test.labels) == ["0", "0", "1"]
    assert open_dataset(folder) == data and open_dataset(folder, seed=1) != data
    assert len(open_dataset(folder, hold_out=False).train) == 8


def test_rule_respects_what_is_given(parts: Path) -> None:
    """A good test image and a validation image are named: the rest is for training."""
    rows = [[f"good/{n:03d}.png", "0", {0: "test", 1: "validation"}.get(n, "")] for n in range(10)]
    rows.append(["bad one/000.png", "1", ""])
    data = open_dataset(
        with_manifest(parts, "\n".join(["image,label,split", *(",".join(row) for row in rows)]))
    )
    assert (len(data.train), len(data.validation), data.test.labels) == (8, 1, (1, 0))


def test_images_of_one_object_stay_together(parts: Path) -> None:
    rows = [f"good/{n:03d}.png,0,part-{n // 2}" for n in range(10)]
    data = open_dataset(with_manifest(parts, "\n".join(["image,label,object_id", *rows])))
    assert len(data.validation) == 2
    assert not {record.object_id for record in data.validation} & {record.object_id for record in data.train}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ways_of_writing_csv(parts: Path, delimiter: str, encoding: str, newline: str) -> None:
    lines = [delimiter.join(row) for row in [["Image", " Label", "mask"], *ROWS]] + ["", delimiter * 2]
    folder = with_manifest(parts, newline.join(lines), encoding=encoding)
    assert (
        sum(
            map(len, (open_dataset(folder).train, open_dataset(folder).validation, open_dataset(folder).test))
        )
        == 11
    )


@pytest.mark.parametrize("name", ["manifest.json", "manifest.jsonl", "whatever.jsonl"])
def test_json(parts: Path, name: str) -> None:
    items: list[dict[str, object]] = [
        {"image": f"good/{n:03d}.png", "label": 0, "split": "train"} for n in range(10)
    ]
    items.append(
        {
            "image": "bad one\\000.png",
            "label": True,
            "mask": ["truth/a.png", "truth/b.png"],
            "shift": 3,
            "note": None,
        }
    )
    text = json.dumps(items) if name.endswith(".json") else "\n".join(map(json.dumps, items))
    data = open_dataset(with_manifest(parts, text, name) / name)
    assert len(data.train) == 9 and data.test[0].id == "bad one/000"
    assert data.test[0].mask_kind == "channels" and data.test[0].metadata == {"shift": "3", "note": ""}


def test_manifests_side_by_side_are_categories(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_images(tmp_path / name, 2)
        with_manifest(tmp_path / name, "image,label\n000.png,0\n001.png,0\n")
    assert list_categories(tmp_path) == ["a", "b"]
    assert open_dataset(tmp_path, "b").train[0].category == "b"


def test_folders_that_a_manifest_lists_are_not_called_unread(parts: Path) -> None:
    with_manifest(parts, "image,label\n" + "\n".join(f"good/{n:03d}.png,good" for n in range(10)))
    assert not any("not read" in warning for warning in open_dataset(parts).findings.warnings)


def test_manifest_wins_over_other_layouts(parts: Path) -> None:
    assert open_dataset(parts).layout == "folders"  # "bad one" beside good/
    with_manifest(parts, "image,label\ngood/000.png,0\ngood/001.png,0\n")
    assert open_dataset(parts).layout == "manifest"


@pytest.mark.parametrize(
    "image", ["../x.png", "a/../../x.png", "..\\x.png", "/x.png", "C:\\x.png", "\\\\server\\x.png"]
)
def test_files_elsewhere_are_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(DataError, match=r"line 2: .* may lie outside"):
        open_dataset(with_manifest(tmp_path / "m", f"image,label\n{image},0\n"))


def test_files_elsewhere_on_request(tmp_path: Path) -> None:
    inside, outside = write_image(tmp_path / "m" / "a.png"), write_image(tmp_path / "b.png")
    for name in ("../b.png", str(outside)):
        folder = with_manifest(tmp_path / "m", f"image,label\n{inside.name},0\n{name},0\n")
        data = open_dataset(folder, allow_outside=True, hold_out=False)
        ids = [record.id for record in data.train]
        assert ids[0] == "a" and ids[1].startswith("outside/") and ids[1].endswith("/b")
        assert all(record.image.is_file() for record in data.train)


def test_anomalous_images_in_train_are_left_out(parts: Path) -> None:
    folder = with_manifest(
        parts, "image,split,label\ngood/000.png,train,0\ngood/001.png,train,0\nbad one/000.png,train,1\n"
    )
    data = open_dataset(folder)
    assert len(data.train) == len(data.validation) == 1
    assert "line 4: bad one/000.png is anomalous in train" in data.findings.errors[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pictures"),
        ("image,label\n", "lists no pictures"),
        ("picture,label\na.png,0\n", r"no column image \(found: picture, label\)"),
        ("image,image\na.png,b.png\n", "column 'image' twice"),
        ("image,label\ngood/000.png,maybe\n", "line 2: unknown label 'maybe'"),
        ("image,split\ngood/000.png,trian\n", "line 2: unknown split 'trian', did you mean train"),
        ("image,label\ngood/000.png,0,1\n", "line 2 has 3 cells under 2 columns"),
        ("image,label\n,0\n", "line 2 names no picture"),
        ("image,label\ngood/000.png,0\ngood/./000.png,0\n", "line 3 names .* again, after .*line 2"),
        ("image,label\nno.png,0\ngood/000.png,0\n", "name 1 files that do not exist: .*no.png"),
        ("image,label,mask\ngood/000.png,1,no.png\n", "do not exist"),
        ("image,label\ngood/000.png,1\n", "no good pictures for training"),
        ("image\ngood/000.png\n", "no good pictures for training"),
        ("image,label\n.,0\n", "do not exist"),
        ('image,label\n"good/000.png,0\n', "is not CSV"),
    ],
)
def test_wrong_csv(parts: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(with_manifest(parts, text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("manifest.json", "{", "is not JSON"),
        ("manifest.json", '{"image": "a.png"}', "holds no list"),
        ("manifest.json", '["a.png"]', "entry 1 is no object"),
        ("manifest.jsonl", '{"image": "good/000.png"}\nnonsense', "line 2 is not JSON"),
        ("manifest.jsonl", '{"img": "a.png"}', r"line 1 names no picture \(found: img\)"),
    ],
)
def test_wrong_json(parts: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(with_manifest(parts, text, name))


def test_other_encodings_are_named(parts: Path) -> None:
    with pytest.raises(DataError, match="is not UTF-8"):
        open_dataset(with_manifest(parts, "image,label\ngrün.png,0\n", encoding="latin-1"))


def test_numbers_as_pandas_writes_them(parts: Path) -> None:
    folder = with_manifest(
        parts, "image,label\ngood/000.png,0.0\ngood/001.png,0.0\nbad one/000.png,1.0\ngood/003.png,\n"
    )
    assert open_dataset(folder, hold_out=False).test.labels.count(1) == 1


cells = st.text(string.ascii_letters + string.digits + " ,;\t\"'äß-_.", max_size=12).map(str.strip)
names = (
    st.text(string.ascii_letters + string.digits + " ,äß-_", min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)


@given(
    st.lists(st.tuples(names, st.sampled_from(["0", "1", ""]), cells), min_size=1, max_size=8),
    st.sampled_from(",;\t"),
)
@settings(deadline=None, max_examples=80)
def test_csv_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    """What the csv module writes is read back, whatever the cells hold."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(["image", "label", "remark"])
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    path.write_bytes(buffer.getvalue().encode())
    labels = {"0": 0, "1": 1, "": None}
    read = [(row.image, row.label, row.metadata["remark"]) for row in read_rows(path)]
    assert read == [(image, labels[label], remark) for image, label, remark in rows]


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b c", "ü"]), min_size=1, max_size=6), st.sampled_from("/\\")
)
@settings(deadline=None, max_examples=80)
def test_accepted_paths_stay_inside(parts: list[str], separator: str) -> None:
    base = Path("/data/set")
    try:
        path = resolve(separator.join(parts), base, "row", allow_outside=False)
    except DataError:
        assert ".." in parts
    else:
        assert path.is_relative_to(base) and ".." not in path.parts
