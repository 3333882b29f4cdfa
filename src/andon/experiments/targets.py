"""The data sets of a sweep: every category of every path that was given, each with a name that no other has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from andon.core.errors import DataError, nearest
from andon.datasets import list_categories, open_dataset
from andon.datasets.embedded_cache import PREFIX


@dataclass(frozen=True, slots=True)
class Target:
    """One category of a data set."""

    data: str
    """Path or `embedded:NAME`, as given."""
    category: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The place of the category, outermost folder first; a name is made of the last ones."""
        if self.data.startswith(PREFIX):
            _, *settings = re.split(r"[,?&]", self.data)
            return ("embedded", *([",".join(sorted(settings))] if settings else []), self.category)
        folder = Path(self.data).expanduser().resolve()
        inside = folder / self.category
        return inside.parts if inside.is_dir() or folder.name != self.category else folder.parts


def folder_name(text: str) -> str:
    """A name of a recipe or data set as the name of one folder."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text) or "all"


def find_targets(
    data: Sequence[str], categories: Sequence[str] = (), layout: str = "auto"
) -> dict[str, Target]:
    """{name: category of a data set}, in the order given; no `categories` means all.

    The name is the category, preceded by as many of the folders it lies in as tell it from the others. Raises `DataError`
    for data that does not exist or is given twice, for unknown categories, and for a category without defective test images.
    """
    known = {path: list_categories(path, layout) for path in dict.fromkeys(data)}
    everywhere = [category for found in known.values() for category in found]
    for category in categories:
        if category not in everywhere:
            raise DataError(
                f"{', '.join(data)} has no category {category!r}; {nearest(category, everywhere)}"
            )
    targets = []
    for path in data:
        chosen = [category for category in categories or known[path] if category in known[path]]
        if not chosen:
            raise DataError(f"{path} has none of the categories {', '.join(categories)}: leave it out")
        targets += [Target(path, category) for category in chosen]
    _check_distinct(targets)
    for target in targets:
        _check_defects(target, layout)
    return _named(targets)


def _check_distinct(targets: Sequence[Target]) -> None:
    """Raise `DataError` where two of the targets are the same data."""
    seen: dict[tuple[str, ...], Target] = {}
    for target in targets:
        other = seen.setdefault(target.parts, target)
        if other is not target:
            paths = " and ".join(dict.fromkeys((other.data, target.data)))
            raise DataError(f"{target.category} is given twice ({paths}): give each data set once")


def _check_defects(target: Target, layout: str) -> None:
    """Raise `DataError` where no test image is defective; embedded sets, which all have some, are not drawn for this."""
    if target.data.startswith(PREFIX):
        return
    found = open_dataset(target.data, target.category, layout)
    if not any(record.label == 1 for record in found.test):
        raise DataError(
            f"{target.data} has no defective test pictures ({target.category}), so detectors cannot be compared on it: "
            "add some to its test folder, or leave it out"
        )


def _named(targets: Sequence[Target]) -> dict[str, Target]:
    """Targets by name; names differ as names of files, too."""
    lengths = [1] * len(targets)
    while True:
        names = ["/".join(target.parts[-n:]) for target, n in zip(targets, lengths, strict=True)]
        files = [folder_name(name) for name in names]
        clashes = [k for k, file in enumerate(files) if files.count(file) > 1]
        if not clashes:
            return dict(zip(names, targets, strict=True))
        if all(lengths[k] >= len(targets[k].parts) for k in clashes):
            raise DataError(
                f"{' and '.join(names[k] for k in clashes)} would have the same folder of results: rename one of them"
            )
        lengths = [n + 1 if k in clashes else n for k, n in enumerate(lengths)]
