"""Good images that are left out on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from trees import all_by_id, mvtec_tree, write_images

from andon.core.errors import DataError
from andon.datasets import open_dataset


@pytest.mark.parametrize(
    "name",
    [
        "part/train/good/003",
        "part/train/good/003.png",
        "good/003.png",
        "train/good/003",
        "{root}/part/train/good/003.png",
        "{root}/part/../part/train/good/003.png",
    ],
)
def test_an_image_by_id_name_or_path(name: str, tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    write_images(folder / "validation" / "good", 3)
    data = open_dataset(folder, exclude=[name.format(root=tmp_path)])
    assert data.excluded == ("part/train/good/003",)
    assert "part/train/good/003" not in all_by_id(data)
    assert (len(data.train), len(data.validation)) == (11, 3)


def test_a_validation_image_and_several(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    write_images(folder / "validation" / "good", 13)
    data = open_dataset(folder, exclude=["012.png", "train/good/000", "train/good/000.png"])
    assert data.excluded == ("part/train/good/000", "part/validation/good/012")
    assert (len(data.train), len(data.validation), len(data.test)) == (11, 12, 8)


def test_the_split_is_made_of_what_is_left(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part", train=20)
    held = open_dataset(folder).validation[0]
    data = open_dataset(folder, exclude=[held.id])
    assert (len(data.train), len(data.validation)) == (17, 2)
    assert held.id not in all_by_id(data)


@pytest.mark.parametrize("layout", ["normal", "flat", "manifest"])
def test_in_other_layouts(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    images = write_images(folder / "normal" if layout == "normal" else folder, 10)
    if layout == "manifest":
        rows = "".join(f"{path.name},good\n" for path in images)
        (folder / "manifest.csv").write_text(f"image,label\n{rows}")
    data = open_dataset(folder, exclude=["007.png"])
    assert len(data.excluded) == 1 and len(all_by_id(data)) == 9


def test_ambiguous_unknown_and_test_images_are_refused(tmp_path: Path) -> None:
    folder = mvtec_tree(tmp_path / "part")
    write_images(folder / "validation" / "good", 3)
    with pytest.raises(
        DataError, match=r"001.png: 2 good pictures .*part/train/good/001, part/validation/good/001"
    ):
        open_dataset(folder, exclude=["001.png"])
    with pytest.raises(
        DataError, match=r"is none of the 15 good pictures .*did you mean part/train/good/00\d"
    ):
        open_dataset(folder, exclude=["part/train/goud/003"])
    for name in ("part/test/crack/000", ""):
        with pytest.raises(DataError, match="is none of the 15 good pictures"):
            open_dataset(folder, exclude=[name])
    assert open_dataset(folder, exclude=["gone.png"], lenient=True).excluded == ()


def test_all_images_excluded(tmp_path: Path) -> None:
    images = write_images(tmp_path / "photos", 2)
    with pytest.raises(DataError, match="all 2 good pictures are excluded"):
        open_dataset(tmp_path / "photos", exclude=[str(path) for path in images])
