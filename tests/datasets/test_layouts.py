"""The layout of MVTec AD is recognised, split and paired with masks; wrong paths say what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import (
    SHAPE,
    by_id,
    mvtec_tree,
    stems,
    write_image,
    write_images,
    write_mask,
)

from andon.core.errors import DataError
from andon.datasets import Records, list_categories, load_ground_truth, open_dataset
from andon.datasets.folder_scan import natural_order
from andon.datasets.layouts import layouts

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
    write_image(tmp_path / "overview.png")
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
    for image in sorted((tmp_path / "a/bottle/train/good").iterdir(), reverse=True):
        (tmp_path / "b/bottle/train/good" / image.name).symlink_to(image)
    second = open_dataset(tmp_path / "b" / "bottle")
    assert stems(first.train) == stems(second.train) and stems(first.validation) == stems(second.validation)
    assert first.train.fingerprint() == second.train.fingerprint()
    assert not second.test and "no test pictures" in second.summary()


def test_validation_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "bottle")
    write_images(folder / "validation" / "good", 3)
    data = open_dataset(folder)
    assert (len(data.train), len(data.validation)) == (12, 3)


def test_hold_out_can_be_left_out(tmp_path: Path) -> None:
    data = open_dataset(mvtec_tree(tmp_path / "bottle"), hold_out=False)
    assert (len(data.train), len(data.validation)) == (12, 0)


@pytest.mark.parametrize("good", ["Good", "OK", "normal", "NOMINAL", "no_defect", "negative", "0"])
def test_names_of_the_good_class(tmp_path: Path, good: str) -> None:
    write_images(tmp_path / "part" / "Train" / good, 4)
    write_images(tmp_path / "part" / "test" / good, 2)
    write_images(tmp_path / "part" / "test" / "ko", 2)
    data = open_dataset(tmp_path / "part")
    assert data.layout == "mvtec_ad"
    assert [(record.defect_type, record.label) for record in data.test] == [("good", 0)] * 2 + [("ko", 1)] * 2


def test_same_stems_in_different_folders_keep_their_own_masks(tmp_path: Path) -> None:
    """BTAD uses stems of `ok` again in `ko`; pairing by stem alone gives good images defect masks."""
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
    write_image(folder / "test" / "crack" / f"{stem}.JPG")
    mask = write_mask(folder / top / "crack" / f"{name.replace('p', stem, 1)}.png")
    record = by_id(open_dataset(folder).test)["part/test/crack/spring"]
    assert record.masks == (mask,)


@pytest.mark.parametrize("mask", ["p_mask.png", "p_gt.BMP", "p.png"])
def test_masks_beside_the_image(tmp_path: Path, mask: str) -> None:
    folder = mvtec_tree(tmp_path / "part", defects={})
    write_image(folder / "test" / "crack" / "p.jpg")
    write_mask(folder / "test" / "crack" / mask)
    data = open_dataset(folder)
    assert by_id(data.test)["part/test/crack/p"].masks == (folder / "test" / "crack" / mask,)
    assert any("read as their masks" in note for note in data.notes)


def test_images_that_differ_in_suffix_only(tmp_path: Path) -> None:
    for suffix in (".png", ".bmp"):
        write_images(tmp_path / "part" / "train" / "good", 2, suffix)
    data = open_dataset(tmp_path / "part", hold_out=False)
    assert [record.id for record in data.train][:2] == ["part/train/good/000.bmp", "part/train/good/000.png"]


def test_unicode_spaces_dots_and_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "Größe M 2.0" / "train" / "good"
    for name in ("img10", "img9", "img 1", "bild.ä", "bild.b"):
        write_image(folder / f"{name}.PNG")
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


def test_anomalous_images_in_train_are_left_out(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    write_images(folder / "train" / "crack", 2)
    data = open_dataset(folder, hold_out=False)
    assert len(data.train) == 12 and "holds 2 pictures in train" in data.findings.errors[0]


def test_images_without_mask_and_masks_without_image(tmp_path: Path) -> None:
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


# --- wrong inputs ---


def test_missing_folder_suggests_a_neighbour(tmp_path: Path) -> None:
    mvtec_tree(tmp_path / "bottle")
    with pytest.raises(DataError, match=r"bottel does not exist.*did you mean bottle"):
        open_dataset(tmp_path / "bottel")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a file: give the folder"):
        open_dataset(write_image(tmp_path / "a.png"))


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures that can be read: give the folder"):
        open_dataset(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"no pictures that can be read \(passed by: 1 x file .*a\.txt"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"docs holds no pictures"):
        open_dataset(tmp_path, "docs")


def test_folders_of_no_known_layout(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "b" / "c", 2)
    with pytest.raises(DataError, match=r"holds a, expected .*train/good.*`andon data check .* --good NAME"):
        open_dataset(tmp_path)


def test_train_without_images(tmp_path: Path) -> None:
    (tmp_path / "part" / "train" / "good").mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures in train/good: add"):
        open_dataset(tmp_path / "part")


def test_layout_by_name(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    assert open_dataset(folder, layout="mvtec_ad").layout == "mvtec_ad"
    with pytest.raises(DataError, match=r"unknown layout 'mvtec'; did you mean .*mvtec_ad"):
        open_dataset(folder, layout="mvtec")
    with pytest.raises(
        DataError, match=r"expected normal/ and defect/ folders \(folders\); leave --layout out"
    ):
        open_dataset(folder, layout="folders")
    with pytest.raises(DataError, match="unknown layout"):
        list_categories(folder, layout="nope")


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mvtec_tree(tmp_path / "part"))
    assert open_dataset(".").category == open_dataset("../part").category == "part"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset("~/part").category == "part"


def test_listing_opens_no_image(tmp_path: Path) -> None:
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
    write_image(folder / "test" / "good" / "000.png", seed=1)
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
        ("embedded:", "choose an embedded data set: embedded:cookies"),
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


def test_cookies_are_photographs_in_the_package():
    found = open_dataset("embedded:cookies")
    assert "CC BY-SA 4.0" in found.licence
    assert (len(found.train), len(found.validation), len(found.test)) == (27, 4, 46)
    assert sum(record.label for record in found.test) == 32
    assert all(record.masks for record in found.test if record.label)
    licence = found.train[0].image.parents[2] / "LICENSE.md"
    assert "CC BY-SA 4.0" in licence.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="seed cannot be set"):
        open_dataset("embedded:cookies,seed=3")
