"""`open_dataset`: recognises the layout of a folder and returns its training, validation and test records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from andon.core.errors import DataError, nearest
from andon.core.listing import BROKEN, FILE, FORMAT, HIDDEN, OWN, PassedBy, images_below
from andon.core.text import plural
from andon.datasets.dataset import Dataset
from andon.datasets.embedded_cache import (
    PREFIX,
    category_of,
    generated_categories,
    generated_folder,
    licence_of,
)
from andon.datasets.findings import Findings, first_few
from andon.datasets.folder_names import FolderNames
from andon.datasets.folder_scan import folders_in
from andon.datasets.layouts import Layout, Options, layouts
from andon.datasets.no_run import check_no_run
from andon.datasets.sessions import AUTO, EXIF, NONE, session_pattern
from andon.datasets.unread import unread_files, unread_folders

NAMED_CATEGORIES = 20
"""Categories that an error message lists; the rest is counted."""


def open_dataset(
    path: str | Path,
    category: str | None = None,
    layout: str = "auto",
    *,
    seed: int = 0,
    hold_out: bool = True,
    allow_outside: bool = False,
    sessions: str = "auto",
    exclude: Sequence[str] = (),
    good: Sequence[str] = (),
    bad: Sequence[str] = (),
    lenient: bool = False,
) -> Dataset:
    """Open one category of a data set. Files are listed, no image is decoded.

    `path` is a folder in a known layout (one category, or one folder per category), a folder of good images, a manifest,
    or `embedded:NAME` for generated data (`embedded:fabric,profile=tiny,size=128`). `category` may be omitted where there
    is only one. `seed` selects the images held out for validation where the data set has no validation images;
    `hold_out=False` holds out none. `allow_outside` lets a manifest name files outside its folder. `sessions`
    says how sessions of good images are told apart: `auto` (manifest, folders or EXIF day), `exif`, `none`, or a pattern with
    one group for file names. `exclude` names good images to leave out, by id, file name or path. `good` and `bad` name
    folders that hold good and anomalous images, where their names do not say so. With `lenient` names that no image or
    folder has are accepted. Raises `DataError`, which lists the expected layouts.

        data = open_dataset("data/mvtec_ad", category="bottle")
        detector.fit(data.train, validation=data.validation)
    """
    if sessions not in (AUTO, NONE, EXIF):
        session_pattern(sessions)
    options = Options(
        seed=seed,
        hold_out=hold_out,
        allow_outside=allow_outside,
        sessions=sessions,
        exclude=tuple(exclude),
        names=FolderNames(tuple(good), tuple(bad)),
        lenient=lenient,
    )
    if str(path).startswith(PREFIX):
        folder, name = generated_folder(str(path), category), category_of(str(path), category)
        return replace(_open(folder, name, layout, options), name="embedded", licence=licence_of(name))
    return _open(_existing(path), category, layout, options)


def list_categories(
    path: str | Path,
    layout: str = "auto",
    *,
    allow_outside: bool = False,
    good: Sequence[str] = (),
    bad: Sequence[str] = (),
) -> list[str]:
    """Names of the categories at `path`, in natural order; the options are those of `open_dataset`.

    Raises `DataError` when there are none.
    """
    if str(path).startswith(PREFIX):
        return generated_categories(str(path))
    folder = _existing(path)
    options = Options(allow_outside=allow_outside, names=FolderNames(tuple(good), tuple(bad)))
    for _, found in _candidates(folder, layout, options):
        return list(found)
    raise _not_recognised(folder, layout)


def unread_categories(
    path: str | Path, layout: str = "auto", *, good: Sequence[str] = (), bad: Sequence[str] = ()
) -> Findings:
    """A warning about folders of images at `path` that are no category, although others are; none where a manifest lists them."""
    if str(path).startswith(PREFIX):
        return Findings()
    folder = _existing(path)
    options = Options(names=FolderNames(tuple(good), tuple(bad)))
    for candidate, found in _candidates(folder, layout, options):
        return Findings() if candidate.listed else _beside(folder, found)
    return Findings()


def _open(path: Path, category: str | None, layout: str, options: Options) -> Dataset:
    seen: list[str] = []
    _check_told(path, options)
    for candidate, found in _candidates(path, layout, options):
        name = next(iter(found)) if category is None and len(found) == 1 else category
        if name is None:
            flat = candidate.name == "flat"
            hint = "; folders of one product are told apart with --good NAME and --bad NAME" if flat else ""
            raise DataError(
                f"{path} holds {len(found)} categories, choose one with category (--category): "
                f"{_listed(found)}{hint}"
            )
        if name in found:
            dataset = candidate.read(found[name], name, options)
            if not candidate.listed:
                unread = unread_files(dataset, found[name])
                beside = _beside(path, found) if category is None else Findings()
                dataset = replace(dataset, findings=dataset.findings + unread + beside)
            return dataset
        seen += found
    if category is not None and (path / category).is_dir():
        raise _not_recognised(path / category, layout)
    if not seen:
        raise _not_recognised(path, layout)
    raise DataError(f"{path} has no category {category!r}; {nearest(str(category), seen)}")


def _beside(path: Path, found: Mapping[str, Path]) -> Findings:
    """A warning about folders of images in `path` that are no category, although others are."""
    others = unread_folders(path, found.values())
    if not others:
        return Findings()
    return Findings(
        warnings=(
            f"{plural(len(others), 'folder')} in {path} with pictures "
            f"{'is' if len(others) == 1 else 'are'} no category and not read: {first_few(others)}; compare with the layout "
            f"of {first_few(list(found))}",
        )
    )


def _check_told(path: Path, options: Options) -> None:
    """Raise `DataError` where no folder has a name given as good or bad."""
    if options.lenient or not (options.names.good or options.names.bad):
        return
    inside = [folder.name for folder in _folders_below(path, 3)]
    unknown = options.names.unknown([path.name, *inside])
    if unknown:
        raise DataError(
            f"{path} has no folder {unknown[0]!r} (--good, --bad); {nearest(unknown[0], set(inside))}"
        )


def _folders_below(path: Path, depth: int) -> Iterator[Path]:
    for folder in folders_in(path):
        yield folder
        if depth > 1:
            yield from _folders_below(folder, depth - 1)


def _candidates(path: Path, layout: str, options: Options) -> Iterator[tuple[Layout, Mapping[str, Path]]]:
    """Layouts that match, in order of detection, each with its categories."""
    known = layouts()
    if layout != "auto" and layout not in known:
        raise DataError(f"unknown layout {layout!r}; {nearest(layout, ['auto', *known])}")
    tried = known.values() if layout == "auto" else [known[layout]]
    for each in tried:
        found = each.find(path, options)
        if found:
            yield each, found


def _existing(path: str | Path) -> Path:
    """The path of a folder or manifest, `.` resolved. Raises `DataError` when it does not exist or cannot be read."""
    folder = Path(path).expanduser()
    if not folder.name or folder.name == "..":
        folder = folder.resolve()
    if not _exists(folder):
        beside = [other.name for other in folders_in(folder.parent)]
        where = "in this folder" if folder.parent == Path() else f"in {folder.parent}"
        hint = f"; {nearest(folder.name, beside, listed=f'{where} there are')}" if beside else ""
        end = "" if hint.endswith("?") else "."
        raise DataError(
            f"{folder} does not exist: check the path{hint}{end} To see what a folder holds: `andon data check FOLDER`"
        )
    if folder.is_file() and folder.suffix.lower() not in {".csv", ".json", ".jsonl"}:
        raise DataError(
            f"{folder} is a file: give the folder that holds the pictures (unpack archives first), or a manifest, as in "
            f"`andon fit {quote(str(folder.parent))}`"
        )
    check_no_run(folder)
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder} may not be read: check its permissions")
    return folder


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(
            f"{path} cannot be looked at ({error.strerror}): check path and permissions"
        ) from error


def _not_recognised(path: Path, layout: str) -> DataError:
    passed = PassedBy()
    if path.is_dir() and next(images_below(path, passed), None) is None:
        what = "".join(f" ({line})" for line in passed.lines(FORMAT, FILE, HIDDEN, BROKEN, OWN))
        return DataError(
            f"{path} holds no pictures that can be read{what}: give the folder of the pictures of good parts, as in "
            "`andon fit FOLDER`"
        )
    known = layouts()
    tried = known.values() if layout == "auto" else [known[layout]]
    expected = "; ".join(f"{each.expects} ({each.name})" for each in tried)
    advice = (
        f"say which folders hold good and bad parts: `andon data check {quote(str(path))} --good NAME --bad NAME`"
        if layout == "auto"
        else "leave --layout out to have the layout recognised"
    )
    inside = ", ".join(folder.name for folder in folders_in(path)[:8]) or "only files"
    return DataError(f"{path} is no data set that is known: it holds {inside}, expected {expected}; {advice}")


def _listed(found: Mapping[str, Path]) -> str:
    names = list(found)
    more = f" and {len(names) - NAMED_CATEGORIES} more" if len(names) > NAMED_CATEGORIES else ""
    return ", ".join(names[:NAMED_CATEGORIES]) + more
