"""Every layout is recognised, split and paired by name; wrong paths say what to do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SIDE, loco_tree, mvtec_tree, write_mask, write_picture, write_pictures

from andon.core.errors import DataError
from andon.core.records import Record
from andon.datasets import Records, list_categories, load_ground_truth, open_dataset
from andon.datasets.folder_scan import natural_order
from andon.datasets.layouts import layouts

SHAPE = (SIDE, SIDE)


def stems(records: Records) -> list[str]:
    return [record.image.stem for record in records]


def by_id(records: Records) -> dict[str, Record]:
    found = {record.id: record for record in records}
    assert len(found) == len(records), "ids are unique"
    return found


# --- MVTec AD ---


def test_mvtec_ad(tmp_path: Path) -> None:
    data = open_dataset(mvtec_tree(tmp_path / "bottle", train=20), seed=42)
    assert (data.name, data.layout, data.category, data.root) == ("mvtec_ad", "mvtec_ad", "bottle", tmp_path)
    assert stems(data.validation) == ["004", "019"] and len(data.train) == 18
    assert [record.id for record in data.test][:4] == [
        "bottle/test/crack/000",
        "bottle/test/crack/001",
        "bottle/test/good/000",
        "bottle/test/good/001",
    ]
    assert {record.split for record in data.validation} == {"validation"}
    crack = data.test[0]
    assert (crack.label, crack.defect_type, crack.group, crack.mask_kind) == (
        1,
        "crack",
        "anomalous",
        "single",
    )
    assert crack.masks == (tmp_path / "bottle/ground_truth/crack/000_mask.png",)
    good = by_id(data.test)["bottle/test/good/000"]
    assert (good.label, good.defect_type, good.group, good.masks) == (0, "good", "good", ())
    assert data.has_masks and load_ground_truth(crack, SHAPE).union.sum() == 20


def test_same_records_from_root_and_category(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "bottle"), mvtec_tree(tmp_path / "cable")
    (tmp_path / "readme.txt").write_text("about")
    write_picture(tmp_path / "overview.png")
    assert list_categories(tmp_path) == ["bottle", "cable"]
    assert (
        open_dataset(tmp_path, "cable")
        == open_dataset(tmp_path / "cable")
        == open_dataset(tmp_path / "cable", "cable")
    )
    with pytest.raises(DataError, match=r"holds 2 categories, choose one.*: bottle, cable$"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no category 'botle'; did you mean bottle"):
        open_dataset(tmp_path, "botle")
    shutil.rmtree(tmp_path / "cable")
    assert open_dataset(tmp_path).category == "bottle"


def test_split_does_not_depend_on_where_or_how_files_lie(tmp_path: Path) -> None:
    first = open_dataset(mvtec_tree(tmp_path / "a" / "bottle"))
    (tmp_path / "b" / "bottle" / "train" / "good").mkdir(parents=True)
    for picture in sorted((tmp_path / "a/bottle/train/good").iterdir(), reverse=True):
        (tmp_path / "b/bottle/train/good" / picture.name).symlink_to(picture)
    second = open_dataset(tmp_path / "b" / "bottle")
    assert stems(first.train) == stems(second.train) and stems(first.validation) == stems(second.validation)
    assert first.train.fingerprint() == second.train.fingerprint()
    assert not second.test and "no test pictures" in second.summary()


def test_validation_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "bottle")
    write_pictures(folder / "validation" / "good", 3)
    data = open_dataset(folder)
    assert (len(data.train), len(data.validation)) == (12, 3)


def test_hold_out_can_be_left_out(tmp_path: Path) -> None:
    data = open_dataset(mvtec_tree(tmp_path / "bottle"), hold_out=False)
    assert (len(data.train), len(data.validation)) == (12, 0)


@pytest.mark.parametrize("good", ["Good", "OK", "normal", "NOMINAL", "no_defect", "negative", "0"])
def test_names_of_the_good_class(tmp_path: Path, good: str) -> None:
    write_pictures(tmp_path / "part" / "Train" / good, 4)
    write_pictures(tmp_path / "part" / "test" / good, 2)
    write_pictures(tmp_path / "part" / "test" / "ko", 2)
    data = open_dataset(tmp_path / "part")
    assert data.layout == "mvtec_ad"
    assert [(record.defect_type, record.label) for record in data.test] == [("good", 0)] * 2 + [("ko", 1)] * 2


def test_same_stems_in_different_folders_keep_their_own_masks(tmp_path: Path) -> None:
    """BTAD uses stems of `ok` again in `ko`; pairing by stem alone gives good pictures defect masks."""
    folder = mvtec_tree(tmp_path / "part", good=2, defects={"a": 2, "b": 2})
    masks = {record.id: record.masks for record in open_dataset(folder).test}
    assert masks["part/test/good/000"] == ()
    assert masks["part/test/a/001"] == (folder / "ground_truth/a/001_mask.png",)
    assert masks["part/test/b/001"] == (folder / "ground_truth/b/001_mask.png",)


@pytest.mark.parametrize("top", ["ground_truth", "masks", "GT"])
@pytest.mark.parametrize("name", ["p", "p_mask", "p_gt", "p_label", "p_MASK"])
def test_mask_names(tmp_path: Path, top: str, name: str) -> None:
    """Stems end in letters of their suffix, which stripping characters instead of the suffix would eat."""
    folder = mvtec_tree(tmp_path / "part", defects={})
    stem = "spring"
    write_picture(folder / "test" / "crack" / f"{stem}.JPG")
    mask = write_mask(folder / top / "crack" / f"{name.replace('p', stem, 1)}.png")
    record = by_id(open_dataset(folder).test)["part/test/crack/spring"]
    assert record.masks == (mask,)


@pytest.mark.parametrize("mask", ["p_mask.png", "p_gt.BMP", "p.png"])
def test_masks_beside_the_picture(tmp_path: Path, mask: str) -> None:
    folder = mvtec_tree(tmp_path / "part", defects={})
    write_picture(folder / "test" / "crack" / "p.jpg")
    write_mask(folder / "test" / "crack" / mask)
    data = open_dataset(folder)
    assert by_id(data.test)["part/test/crack/p"].masks == (folder / "test" / "crack" / mask,)
    assert any("read as their masks" in note for note in data.notes)


def test_pictures_that_differ_in_suffix_only(tmp_path: Path) -> None:
    for suffix in (".png", ".bmp"):
        write_pictures(tmp_path / "part" / "train" / "good", 2, suffix)
    data = open_dataset(tmp_path / "part", hold_out=False)
    assert [record.id for record in data.train][:2] == ["part/train/good/000.bmp", "part/train/good/000.png"]


def test_unicode_spaces_dots_and_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "Größe M 2.0" / "train" / "good"
    for name in ("img10", "img9", "img 1", "bild.ä", "bild.b"):
        write_picture(folder / f"{name}.PNG")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    data = open_dataset(tmp_path / "Größe M 2.0", hold_out=False)
    assert [record.id.rsplit("/", 1)[1] for record in data.train] == [
        "bild.b",
        "bild.ä",
        "img9",
        "img10",
        "img 1",
    ]
    assert data.category == "Größe M 2.0"


@given(
    st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=20), st.sampled_from(["", "img", "ü_"])
)
@settings(deadline=None, max_examples=50)
def test_numbers_are_ordered_as_numbers(numbers: list[int], prefix: str) -> None:
    paths = [Path(f"{prefix}{number}.png") for number in numbers]
    assert [path.stem for path in natural_order(paths)] == [f"{prefix}{number}" for number in sorted(numbers)]


def test_broken_links_are_skipped_with_a_warning_and_empty_files_are_kept(tmp_path: Path) -> None:
    """An empty file stays a record, so that decoding names it and `--skip-unreadable` counts it."""
    folder = mvtec_tree(tmp_path / "part", train=4)
    (folder / "train" / "good" / "empty.png").write_bytes(b"")
    (folder / "train" / "good" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = open_dataset(folder, hold_out=False)
    assert [record.image.name for record in data.train][-1] == "empty.png"
    assert len(data.train) == 5
    assert "gone.png is a link to a missing file" in "\n".join(data.findings.warnings)


def test_anomalous_pictures_in_train_are_left_out(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    write_pictures(folder / "train" / "crack", 2)
    data = open_dataset(folder, hold_out=False)
    assert len(data.train) == 12 and "holds 2 pictures in train" in data.findings.errors[0]


def test_pictures_without_mask_and_masks_without_picture(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    (folder / "ground_truth" / "crack" / "001_mask.png").rename(
        folder / "ground_truth" / "crack" / "007_mask.png"
    )
    write_mask(folder / "ground_truth" / "dent" / "000_mask.png")
    write_mask(folder / "ground_truth" / "scratch" / "000.png")
    errors = "\n".join(open_dataset(folder).findings.errors)
    assert "1 masks without a picture" in errors and "007_mask.png" in errors
    assert "nothing is named like" in errors and "dent" in errors
    assert "000.png has several masks" in errors
    assert "1 of 5 anomalous pictures have no mask" in errors and "part/test/crack/001" in errors


def test_partial_copies_of_published_categories_are_noticed(tmp_path: Path) -> None:
    counts = {"defective": 30}
    folder = mvtec_tree(tmp_path / "toothbrush", train=60, good=12, defects=counts, masks=False)
    assert "counts agree with MVTec AD toothbrush" in open_dataset(folder).findings.notes
    (folder / "train" / "good" / "007.png").unlink()
    assert open_dataset(folder).findings.warnings == (
        "found 59 train pictures, MVTec AD toothbrush has 60: the copy may be partial",
    )
    own = mvtec_tree(tmp_path / "screw", defects={"my_own_defect": 1})
    assert open_dataset(own).findings.warnings == (), "own pictures under a well-known name"


# --- MVTec LOCO AD and AutoVI ---


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
    """User data with a mask folder per picture: every defect saturates at its own area."""
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


# --- people's own folders ---


def test_normal_and_defect_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "parts" / "Normal", 20)
    write_pictures(tmp_path / "parts" / "defects" / "dent", 2)
    write_pictures(tmp_path / "parts" / "defects", 3)
    write_mask(tmp_path / "parts" / "masks" / "dent" / "001.png")
    data = open_dataset(tmp_path / "parts")
    assert data.layout == "folders"
    assert (len(data.train), len(data.validation)) == (14, 2)  # 20 - 4 to test, 16 - 2 to validation
    kinds = [record.defect_type for record in data.test]
    assert (kinds.count("good"), kinds.count("dent"), kinds.count("defects")) == (4, 2, 3)
    assert by_id(data.test)["parts/defects/dent/001"].masks
    ids = [record.id for part in (data.train, data.validation, data.test) for record in part]
    assert len(set(ids)) == 25


def test_masks_directly_in_the_mask_folder_of_a_single_defect_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "parts" / "ok", 6)
    write_pictures(tmp_path / "parts" / "ko", 2)
    write_mask(tmp_path / "parts" / "gt" / "000_mask.png")
    write_mask(tmp_path / "parts" / "gt" / "001_mask.png")
    data = open_dataset(tmp_path / "parts")
    assert {record.id: bool(record.masks) for record in data.test if record.label == 1} == {
        "parts/ko/000": True,
        "parts/ko/001": True,
    }
    assert not data.findings.errors
    write_pictures(tmp_path / "parts" / "ko" / "dent", 1)
    assert any("masks directly in" in error for error in open_dataset(tmp_path / "parts").findings.errors)


def test_mask_folder_inside_the_defect_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "parts" / "ok", 6)
    write_pictures(tmp_path / "parts" / "ko", 2)
    write_mask(tmp_path / "parts" / "ko" / "masks" / "001.png")
    bad = [record for record in open_dataset(tmp_path / "parts").test if record.label == 1]
    assert [(record.defect_type, len(record.masks)) for record in bad] == [("ko", 0), ("ko", 1)]


def test_defect_types_beside_the_good_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "parts" / "good", 6)
    write_pictures(tmp_path / "parts" / "crack", 2)
    data = open_dataset(tmp_path / "parts")
    assert [record.defect_type for record in data.test] == ["crack", "crack", "good", "good"]
    assert any("crack" in note for note in data.notes)
    write_pictures(tmp_path / "parts" / "bad", 1)
    assert any("crack" in warning for warning in open_dataset(tmp_path / "parts").findings.warnings)


def test_only_a_good_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path / "parts" / "good", 10)
    data = open_dataset(tmp_path / "parts")
    assert (data.category, len(data.train), len(data.validation), len(data.test)) == ("parts", 9, 1, 0)


def test_flat_folder(tmp_path: Path) -> None:
    for suffix, count in ((".png", 6), (".JPG", 4)):
        for index in range(count):
            write_picture(tmp_path / "photos" / f"{suffix[1:]}{index}{suffix}")
    data = open_dataset(tmp_path / "photos")
    assert (data.layout, data.category) == ("flat", "photos")
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 1, 0)
    assert set(data.train.labels) == {0} and not data.has_masks


def test_flat_folder_does_not_learn_masks(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 3)
    write_mask(tmp_path / "photos" / "001_mask.png")
    data = open_dataset(tmp_path / "photos", hold_out=False)
    assert stems(data.train) == ["000", "001", "002"]
    assert any("001_mask.png" in note for note in data.notes)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pictures(tmp_path: Path, count: int) -> None:
    write_pictures(tmp_path / "a" / "good", count)
    write_pictures(tmp_path / "a" / "bad", 1)
    with pytest.raises(DataError, match="needs at least 3"):
        open_dataset(tmp_path / "a")
    write_pictures(tmp_path / "b", 1)
    with pytest.raises(DataError, match=r"has 1 picture of good parts.* needs at least 2: add pictures"):
        open_dataset(tmp_path / "b")
    assert len(open_dataset(tmp_path / "b", hold_out=False).train) == 1


# --- wrong inputs ---


def test_missing_folder_suggests_a_neighbour(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "bottle")
    with pytest.raises(DataError, match=r"bottel does not exist.*did you mean bottle"):
        open_dataset(tmp_path / "bottel")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a file: give the folder"):
        open_dataset(write_picture(tmp_path / "a.png"))


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folders and no pictures, expected manifest"):
        open_dataset(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"holds docs, expected .*train/good"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"docs is no data set"):
        open_dataset(tmp_path, "docs")


def test_train_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "part" / "train" / "good").mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures in train/good: add"):
        open_dataset(tmp_path / "part")


def test_layout_by_name(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    assert open_dataset(folder, layout="mvtec_ad").layout == "mvtec_ad"
    with pytest.raises(DataError, match=r"unknown layout 'mvtec'; did you mean .*mvtec_ad"):
        open_dataset(folder, layout="mvtec")
    with pytest.raises(DataError, match=r"expected normal/ and defect/ folders \(folders\)$"):
        open_dataset(folder, layout="folders")
    with pytest.raises(DataError, match="unknown layout"):
        list_categories(folder, layout="nope")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mvtec_tree(tmp_path / "part"))
    assert open_dataset(".").category == open_dataset("../part").category == "part"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset("~/part").category == "part"


def test_listing_opens_no_picture(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    (folder / "train" / "good" / "broken.png").write_bytes(b"no picture")
    assert len(open_dataset(folder, hold_out=False).train) == 13


def test_every_layout_is_one_file_named_like_it() -> None:
    known = layouts()
    published = ["mvtec_loco", "mvtec_ad_2", "mvtec3d", "visa", "real_iad", "mtd", "mvtec_ad"]
    assert sorted(known) == sorted(["manifest", *published, "folders", "flat"])
    assert (next(iter(known)), list(known)[-1]) == ("manifest", "flat")
    assert len({layout.order for layout in known.values()}) == len(known)


# --- records and generated data ---


def test_records_are_an_immutable_sequence(tmp_path: Path) -> None:
    data = open_dataset(mvtec_tree(tmp_path / "part"))
    assert isinstance(data.test[1:3], Records) and data.test[1:3][0] == data.test[1]
    assert list(data.test)[-1] == data.test[-1] and data.test[0] in data.test
    assert Records(data.test) == data.test and hash(Records(data.test)) == hash(data.test)
    assert data.test.labels == (1, 1, 0, 0, 0, 1, 1, 1)
    with pytest.raises(TypeError):
        data.test[0] = data.test[1]  # type: ignore[index]


def test_fingerprint_follows_contents(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    before = open_dataset(folder).test
    prints = {before.fingerprint(), before[:-1].fingerprint(), Records(list(before)[::-1]).fingerprint()}
    assert len(prints) == 3 and before.fingerprint() in prints
    write_mask(folder / "ground_truth" / "crack" / "000_mask.png", 17)
    prints.add(open_dataset(folder).test.fingerprint())
    write_picture(folder / "test" / "good" / "000.png", seed=1)
    prints.add(open_dataset(folder).test.fingerprint())
    assert len(prints) == 5
    (folder / "test" / "good" / "000.png").unlink()
    with pytest.raises(DataError, match=r"000\.png cannot be read"):
        before.fingerprint()


def test_generated_data_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator is replaced: what is tested is the cache around it."""
    calls: list[dict[str, object]] = []

    def generate(root: Path, **settings: object) -> Path:
        calls.append(settings)
        mvtec_tree(root / "embedded_ad" / "fabric")
        return root

    monkeypatch.setenv("ANDON_HOME", str(tmp_path))
    monkeypatch.setattr("andon.datasets.embedded.generate", generate, raising=False)
    data = open_dataset("embedded:fabric,profile=tiny,size=128")
    assert calls == [{"profile": "tiny", "size": 128, "seed": 0, "categories": ["fabric"]}]
    assert (data.name, data.layout, data.category) == ("embedded", "mvtec_ad", "fabric")
    assert open_dataset("embedded:", "fabric", seed=1).category == "fabric" and len(calls) == 2
    open_dataset("embedded:fabric?profile=tiny&size=128&seed=0")
    assert len(calls) == 2 and len(list((tmp_path / "embedded").iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embedded:", "choose a generated data set: embedded:fabric"),
        ("embedded:fabrik", "did you mean fabric"),
        ("embedded:fabric,profile=tinny", "unknown profile 'tinny'; did you mean tiny"),
        ("embedded:fabric,size=big", "size is 'big'"),
        ("embedded:fabric,tiny", "'tiny' is no setting"),
    ],
)
def test_wrong_names_of_generated_data(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(text)


def test_names_of_generated_data() -> None:
    assert list_categories("embedded:pcb,size=128") == ["pcb"]
    assert "pin_tray" in list_categories("embedded:")
    with pytest.raises(DataError, match="one category 'pcb', not 'bolt'"):
        open_dataset("embedded:pcb", "bolt")
