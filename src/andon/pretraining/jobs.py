"""Common parts of the pretraining commands: image lists, checks of the name, and resuming."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from andon.core.config import Config
from andon.core.errors import ConfigError, DataError, InterruptedRun, OutputError, WeightsError
from andon.core.files import write_bytes, writing_errors
from andon.core.image_files import REMEDY
from andon.core.listing import images_below
from andon.core.paths import cache_dir, weights_dir
from andon.core.progress import NoProgress, Progress, track
from andon.core.records import Record
from andon.core.text import utf8
from andon.datasets.dataset import file_digest
from andon.datasets.penalty_images import VERSION as PROCEDURAL_VERSION
from andon.datasets.penalty_images import procedural_images
from andon.nn.stage import ANEW
from andon.nn.weights import NAME, RANDOM, entries, intact, taken


def image_records(folders: Sequence[Path], procedural: int) -> list[Record]:
    """Records of all images below the folders, in natural order, or of `procedural` images where no folder is given.

    Raises `DataError` for a path that is no folder and for folders without images.
    """
    if not folders:
        made = cache_dir() / "pretraining-pictures" / f"v{PROCEDURAL_VERSION}-{procedural}"
        folders = [procedural_images(made, procedural)]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: give folders with pictures, or none for procedural ones")
    found = chain.from_iterable(images_below(folder) for folder in folders)
    records = [Record(image=path, id=path.as_posix(), split="train") for path in found]
    if not records:
        raise DataError(f"{', '.join(map(str, folders))}: no pictures there; give another folder")
    return records


def images_line(records: Sequence[Record], folders: Sequence[Path]) -> str:
    """Number and source of the images, for the origin line of the weights."""
    where = ", ".join(folder.name for folder in folders) or "procedural"
    return f"{len(records)} pictures ({where})"


def check_name(name: str, *, overwrite: bool = False) -> None:
    """Raise `WeightsError` for a name that `weights.add` would refuse after the training."""
    if not NAME.fullmatch(name):
        raise WeightsError(f"{name!r} cannot name weights: use letters, digits, dot, dash and underscore")
    known = {entry.name: entry for entry in entries()}
    own = weights_dir() / f"{name}.safetensors"
    if name == RANDOM or (name in known and known[name].path != own):
        raise WeightsError(f"the name {name!r} is taken: choose another with --name")
    if not overwrite and intact(name) is not None:
        raise taken(name)


def job_folder(name: str, *, resume: bool, overwrite: bool) -> Path:
    """Folder of the checkpoints. Raises `OutputError` where it holds some that are neither continued nor given up."""
    folder = cache_dir() / "pretraining" / name
    if not resume and not overwrite and any(folder.glob("*.safetensors")):
        raise OutputError(
            f"{folder} holds an interrupted training: --resume continues it, --overwrite starts anew, "
            "--name chooses another name"
        )
    return folder


def note_settings(
    folder: Path,
    config: Config,
    seed: int,
    records: Sequence[Record],
    resume: bool,
    *,
    weights: str = "",
    classes: Sequence[int] = (),
    progress: Progress | None = None,
) -> None:
    """Write settings, seed and hashes of the images into `folder`; with `resume`, raise `ConfigError` when they differ.

    `weights` is the hash of the weights that the settings name; `classes` are those of the images, where they have some.
    Checkpoints that are not to be continued, or that no note tells the settings of, are removed.
    """
    lines = [
        f"seed {seed}",
        f"pictures {len(records)} {_images_digest(records, classes, progress or NoProgress())}",
        f"weights {weights}",
        config.model_dump_json(),
    ]
    content = utf8("\n".join(lines) + "\n")
    note = folder / "settings.txt"
    if resume and note.is_file():
        if note.read_bytes() != content:
            raise ConfigError(
                f"{folder} was started with other settings or pictures: repeat the original command, or {ANEW}"
            )
        return
    with writing_errors(folder):
        for checkpoint in folder.glob("*.safetensors"):
            checkpoint.unlink()
    write_bytes(note, content)


def _images_digest(records: Sequence[Record], classes: Sequence[int], progress: Progress) -> str:
    """Hash of the images' names and contents in their order, and of their classes; the folders' names do not count."""
    read = track(progress, records, "reading pictures", len(records))
    lines = [f"{file_digest(record.image)} {record.image.name}" for record in read]
    return hashlib.sha256(utf8("\n".join([*lines, *map(str, classes)]))).hexdigest()


@contextmanager
def resumable() -> Iterator[None]:
    """Say after Ctrl-C inside that `--resume` continues, and advise no `--skip-unreadable` for a damaged image."""
    try:
        yield
    except (InterruptedRun, KeyboardInterrupt) as error:
        stopped = str(error) or "stopped"
        raise InterruptedRun(f"{stopped}; run the same command with --resume to continue") from None
    except DataError as error:
        raise DataError(str(error).replace(REMEDY, "replace or remove it")) from error


def clean_up(folder: Path) -> None:
    """Remove `folder` and the files in it."""
    for used in folder.iterdir():
        used.unlink()
    folder.rmdir()
