"""Find the mask files of an image, by name and only for the same defect folder (docs/reference/data.md, "Masks")."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from andon.core.records import MaskKind
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_names import MASK_SUFFIXES, MASKS
from andon.datasets.folder_scan import folders_in, has_images, named, scan


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """Mask files of one image."""

    masks: tuple[Path, ...] = ()
    kind: MaskKind = "none"


NO_MASKS = MaskFiles()


def separate_masks(
    listed: Sequence[Path], *, plain: bool = False
) -> tuple[list[Path], dict[Path, MaskFiles]]:
    """Separate the files of one folder into images and masks in the same folder.

    `part_mask.png` is the mask of an image `part.*`. With `plain` (folders of anomalous images) a lossless `part.png` is
    also the mask of `part.jpg`.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in listed:
        by_stem[path.stem].append(path)
    beside: dict[Path, Path] = {}
    for path in listed:
        owner = _owner_by_suffix(path, by_stem) or (_owner_by_stem(path, by_stem) if plain else None)
        if owner is not None:
            beside[path] = owner
    mask_files = {owner: MaskFiles((mask,), "single") for mask, owner in beside.items()}
    return [path for path in listed if path not in beside], mask_files


def _owner_by_suffix(path: Path, by_stem: dict[str, list[Path]]) -> Path | None:
    for suffix in MASK_SUFFIXES:
        base = path.stem[: len(path.stem) - len(suffix)]
        if suffix and path.stem.lower().endswith(suffix) and base in by_stem:
            return by_stem[base][0]
    return None


def _owner_by_stem(path: Path, by_stem: dict[str, list[Path]]) -> Path | None:
    others = [other for other in by_stem[path.stem] if other.suffix.lower() in {".jpg", ".jpeg"}]
    is_lossless = path.suffix.lower() in {".png", ".bmp", ".tif", ".tiff"}
    return others[0] if is_lossless and len(others) == 1 and len(by_stem[path.stem]) == 2 else None


class MaskFolders:
    """Mask folders of one category; records which of them were used."""

    def __init__(self, base: Path, log: FindingsLog) -> None:
        self.base, self.log = base, log
        self.tops = named(folders_in(base), MASKS)
        self._used: set[Path] = set()

    def files_of(self, listed: Sequence[Path], defects: Path, *, only: bool = False) -> dict[Path, MaskFiles]:
        """Mask files of the images `listed` in the folder `defects`.

        They are searched in `<masks>/<split>/<type>`, `<masks>/<type>` and `<type>/<masks>`, and directly in `<masks>`
        where `defects` is the `only` folder of anomalous images.
        """
        folder = self._folder_of(defects, only)
        if folder is None:
            return {}
        self._used.add(folder)
        found = scan(folder, self.log)
        entries = _by_image_stem((*found.images, *found.folders))
        mask_files: dict[Path, MaskFiles] = {}
        matched: set[Path] = set()
        for image in listed:
            choices = entries.get(image.stem, [])
            if len(choices) > 1:
                self.log.errors.append(
                    f"{image} has several masks ({first_few(choices)}): the first is read, remove the others"
                )
            if choices:
                matched.update(choices)
                mask_files[image] = self._mask_files(choices[0])
        orphans = [path for path in found.images if path not in matched]
        orphans += [
            path
            for path in found.folders
            if path not in matched and path not in self._used and has_images(path)
        ]
        if orphans:
            self.log.errors.append(
                f"{len(orphans)} masks without a picture in {defects}: {first_few(orphans)}"
            )
        return mask_files

    def files_below(
        self, groups: Sequence[tuple[Path, Sequence[Path]]], defects: Path, *, only: bool = False
    ) -> dict[Path, MaskFiles]:
        """Mask files of images in `defects` and in the folders in it, given as folders with their images.

        Folders inside have mask folders of their own or share that of `defects`, as long as no two of their images have
        one name.
        """
        found: dict[Path, MaskFiles] = {}
        shared: list[Path] = []
        for folder, listed in groups:
            if folder != defects and self._folder_of(folder, only=False) is not None:
                found |= self.files_of(listed, folder)
            else:
                shared += listed
        found |= self.files_of(shared, defects, only=only)
        stems = Counter(path.stem for path in shared)
        twins = [path for path in shared if len(groups) > 1 and stems[path.stem] > 1 and path in found]
        if twins:
            self.log.errors.append(
                f"masks of {defects} belong to several pictures of one name ({first_few(twins)}): put them into folders like "
                "those of the pictures"
            )
        return {path: files for path, files in found.items() if path not in twins}

    def report_unused(self) -> None:
        """Log mask folders that belong to no folder of images. To be called after all images are paired."""
        for top in self.tops:
            if top not in self._used and has_images(top):
                self.log.errors.append(
                    f"masks directly in {top} belong to no picture: move them to {top}/<defect type>"
                )
            for folder in folders_in(top):
                is_used = top in self._used or any(used.is_relative_to(folder) for used in self._used)
                if not is_used and (has_images(folder) or folders_in(folder)):
                    self.log.errors.append(
                        f"masks without pictures: nothing is named like {folder}, rename or remove it"
                    )

    def _folder_of(self, defects: Path, only: bool) -> Path | None:
        parts = defects.relative_to(self.base).parts
        for top in self.tops:
            for way in (parts, parts[1:]):
                folder = _descend(top, way) if way else None
                if folder is not None:
                    return folder
        inside = named(folders_in(defects), MASKS)
        direct = [top for top in self.tops if only and has_images(top)]
        return next(iter((*inside, *direct)), None)

    def _mask_files(self, path: Path) -> MaskFiles:
        if not path.is_dir():
            return MaskFiles((path,), "single")
        channels = scan(path, self.log).images
        return MaskFiles(channels, "channels") if channels else NO_MASKS


def _descend(folder: Path, names: Sequence[str]) -> Path | None:
    for name in names:
        inside = named(folders_in(folder), {name.lower()})
        if not inside:
            return None
        folder = next((path for path in inside if path.name == name), inside[0])
    return folder


def _by_image_stem(entries: Sequence[Path]) -> dict[str, list[Path]]:
    """Mask files and folders by the stem of the image they may belong to, names with a suffix first."""
    found: dict[str, list[Path]] = defaultdict(list)
    for suffix in MASK_SUFFIXES:
        for path in entries:
            stem = path.name if path.is_dir() else path.stem
            if stem.lower().endswith(suffix):
                found[stem[: len(stem) - len(suffix)]].append(path)
    return found
