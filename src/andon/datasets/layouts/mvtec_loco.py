"""MVTec LOCO AD and AutoVI: a mask file and a saturation area per defect. Bergmann et al., IJCV 130, 2022.

    <category>/defects_config.json
    <category>/train/good/000.png, validation/good/000.png
    <category>/test/{good,logical_anomalies,structural_anomalies}/000.png
    <category>/ground_truth/{logical_anomalies,structural_anomalies}/000/000.png    a folder per image

AutoVI has other names of defect folders and no validation images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from andon.core.records import Group
from andon.datasets.dataset import Dataset
from andon.datasets.findings import Findings, FindingsLog
from andon.datasets.folder_names import MASKS
from andon.datasets.folder_scan import folders_in, named
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.masks import read_saturation
from andon.datasets.mvtec_tree import read_mvtec_tree
from andon.datasets.published.counts import MVTEC_LOCO, compare

NAME = "mvtec_loco"
CONFIG = "defects_config.json"
GROUPS: dict[str, Group] = {"logical_anomalies": "logical", "structural_anomalies": "structural"}


def fits(folder: Path, options: Options) -> bool:
    """Whether there is a `defects_config.json` or one mask folder per image."""
    if (folder / CONFIG).is_file():
        return True
    kinds = (kind for top in named(folders_in(folder), MASKS) for kind in folders_in(top))
    per_image = (inside for kind in kinds for inside in folders_in(kind))
    return any(not (folder / "test" / inside.parent.name / inside.name).is_dir() for inside in per_image)


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one category. Without `defects_config.json` every defect saturates at its own area."""
    log = FindingsLog()
    config = folder / CONFIG
    saturation = read_saturation(config) if config.is_file() else None
    if saturation is None:
        log.notes.append(f"no {CONFIG}: every defect saturates at its own area")
    dataset = read_mvtec_tree(
        folder,
        category,
        options,
        layout=NAME,
        group=lambda defect: GROUPS.get(defect.lower(), "anomalous"),
        saturation=saturation,
        log=log,
    )
    accepted = MVTEC_LOCO.get(category)
    counted = compare(dataset, "MVTec LOCO AD", accepted) if accepted else Findings()
    return replace(dataset, findings=dataset.findings + counted)


LAYOUT = Layout(
    name=NAME,
    order=2,
    expects=f"{CONFIG} or ground_truth/<defect type>/<picture>/ folders",
    find=by_folder(fits),
    read=read,
)
