"""Sessions of good images: how they are told apart, and whole ones held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import mvtec_tree, write_image, write_images

from andon.core.errors import ConfigError, DataError
from andon.core.opening import read_day
from andon.core.records import Record
from andon.datasets import Dataset, open_dataset
from andon.datasets.sessions import session_counts
from andon.datasets.splits import held_out_sessions, hold_out, session_keys

DAYS = ("monday", "tuesday", "wednesday", "thursday")


def photograph(path: Path, taken: str, seed: int = 0) -> Path:
    """A JPEG of random content with EXIF DateTimeOriginal `taken`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    image.save(path, exif=exif)
    return path


def folders(root: Path) -> Path:
    """Five images of each day in folders inside train/good."""
    for day in DAYS:
        write_images(root / "part" / "train" / "good" / day, 5)
    write_images(root / "part" / "test" / "good" / "friday", 2)
    write_images(root / "part" / "test" / "dent", 2)
    return root / "part"


def normal_folders(root: Path) -> Path:
    for day in DAYS:
        write_images(root / "part" / "normal" / day, 5)
    return root / "part"


def named(root: Path) -> Path:
    """Five images of each day, told apart by their names."""
    for day in DAYS:
        for index in range(5):
            write_image(root / "part" / f"{day}-{index}.png")
    return root / "part"


def manifest(root: Path) -> Path:
    folder = named(root)
    rows = [f"{path.name},0,{path.name.split('-')[0]}" for path in sorted(folder.iterdir())]
    (folder / "manifest.csv").write_text("\n".join(["image,label,session", *rows]))
    return folder


def photographs(root: Path) -> Path:
    for day in range(4):
        for index in range(5):
            photograph(
                root / "part" / f"{day}{index}.jpg", f"2024:05:0{day + 1} 07:00:0{index}", 5 * day + index
            )
    return root / "part"


def by_session(data: Dataset) -> tuple[dict[str, int], dict[str, int]]:
    return session_counts(data.train), session_counts(data.validation)


@pytest.mark.parametrize("made", [folders, normal_folders, manifest, photographs])
def test_whole_sessions_are_held_out_without_being_asked(
    made: Callable[[Path], Path], tmp_path: Path
) -> None:
    data = open_dataset(made(tmp_path))
    train, validation = by_session(data)
    assert sorted((train | validation).values()) == [5, 5, 5, 5] and len(validation) == 1
    assert not train.keys() & validation.keys()
    assert any(note.startswith("4 sessions of good pictures") for note in data.notes)
    assert f"whole sessions are held out for validation: {next(iter(validation))}" in data.notes


def test_sessions_of_a_pattern_over_file_names(tmp_path: Path) -> None:
    folder = named(tmp_path)
    assert not any(record.session for record in open_dataset(folder).train)
    train, validation = by_session(open_dataset(folder, sessions="^([a-z]+)-"))
    assert set(train | validation) == set(DAYS) and len(validation) == 1


def test_a_pattern_takes_precedence_and_none_knows_no_sessions(tmp_path: Path) -> None:
    folder = folders(tmp_path)
    train, validation = by_session(open_dataset(folder, sessions=r"(\d)\.png$"))
    assert set(train | validation) == {"0", "1", "2", "3", "4"}
    plain = open_dataset(folder, sessions="none")
    assert by_session(plain) == ({}, {}) and len(plain.validation) == 2


def test_sessions_of_test_images_are_those_of_their_folders(tmp_path: Path) -> None:
    data = open_dataset(folders(tmp_path))
    assert {record.session for record in data.test if record.label == 0} == {"friday"}
    assert data.test[-1].id == "part/test/good/friday/001"


def test_two_sessions_are_split_as_before_and_said(tmp_path: Path) -> None:
    for day in DAYS[:2]:
        write_images(tmp_path / "part" / "train" / "good" / day, 5)
    data = open_dataset(tmp_path / "part")
    assert len(data.validation) == 1
    assert any("2 sessions are too few to hold out whole ones, that takes 3" in note for note in data.notes)


def test_images_without_a_session_count_as_one_session(tmp_path: Path) -> None:
    folder = named(tmp_path)
    data = open_dataset(folder, sessions="^(mon|tues)day")
    assert any(
        "10 good pictures of no known session count as one session" in each for each in data.findings.warnings
    )
    kept = {record.session for record in data.train}
    assert not kept & {record.session for record in data.validation}


def test_exif_days_are_used_where_every_image_has_one(tmp_path: Path) -> None:
    folder = photographs(tmp_path)
    photograph(folder / "99.jpg", "")
    assert by_session(open_dataset(folder)) == ({}, {})
    data = open_dataset(folder, sessions="exif")
    assert any("1 good picture of no known session" in each for each in data.findings.warnings)
    assert session_counts([*data.train, *data.validation])["2024-05-01"] == 5


def test_the_day_of_exif(tmp_path: Path) -> None:
    assert read_day(photograph(tmp_path / "a.jpg", "2024:05:31 23:59:59")) == "2024-05-31"
    assert read_day(photograph(tmp_path / "b.webp", "2023:01:02 00:00:00")) == "2023-01-02"
    for broken in ("", "yesterday", "    :  :     :  :  "):
        assert read_day(photograph(tmp_path / "c.jpg", broken)) is None
    (tmp_path / "d.jpg").write_bytes(b"no image")
    assert read_day(tmp_path / "d.jpg") is None


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(", ConfigError, "is no regular expression"),
        (r"\d+", ConfigError, "has 0 groups, must be"),
        ("(a)(b)", ConfigError, "has 2 groups"),
        (r"^shift(\d)", DataError, "matches none of 12 file names .000.png, 001.png, 002.png and 9 more."),
        ("exif", DataError, "none of the 12 good pictures has an EXIF day"),
    ],
)
def test_sessions_that_cannot_be_told(
    pattern: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        open_dataset(mvtec_tree(tmp_path / "part"), sessions=pattern)
    assert "\n" not in str(caught.value)


SIZES = st.lists(st.integers(1, 30), min_size=3, max_size=12)


@given(SIZES, st.sampled_from([10, 20]), st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_held_out_sessions(sizes: list[int], percent: int, seed: int) -> None:
    """Between one and all but one session; at most twice the share unless the smallest session is larger."""
    keys = [f"s{number}" for number, size in enumerate(sizes) for _ in range(size)]
    chosen = held_out_sessions(keys, percent, seed)
    assert chosen == held_out_sessions(keys[::-1], percent, seed)
    taken = sum(Counter(keys)[key] for key in chosen)
    wanted = -(-len(keys) * percent // 100)
    assert 1 <= len(chosen) < len(sizes)
    assert taken <= max(2 * wanted, min(sizes))


def test_images_of_one_object_stay_together_across_sessions() -> None:
    records = [
        Record(Path(f"/d/{n}.png"), str(n), object_id=f"part-{n % 7}", session=DAYS[n % 4]) for n in range(56)
    ]
    kept, held = hold_out(records, 10, 0, base=Path("/d"), into="validation")
    assert held and not {record.object_id for record in kept} & {record.object_id for record in held}
    assert session_keys(records[:2]) is None
