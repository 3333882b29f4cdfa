"""MVTec AD: Bergmann et al., CVPR 2019. The most common layout.

    <category>/train/good/000.png
    <category>/test/good/000.png
    <category>/test/<defect type>/000.png
    <category>/ground_truth/<defect type>/000_mask.png      optional
    <category>/validation/good/000.png                      optional; otherwise 10 % of train are held out

BTAD (`ok` for good, `ko` for the one defect type), MPDD and reorganised copies of VisA have this layout too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from andon.datasets.dataset import Dataset
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.mvtec_tree import is_mvtec_tree, read_mvtec_tree
from andon.datasets.published.counts import BTAD, MPDD, MVTEC_AD, VISA, compare_any

NAME = "mvtec_ad"
PUBLISHED = {"MVTec AD": MVTEC_AD, "MPDD": MPDD, "BTAD": BTAD, "VisA": VISA}


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one category; counts that differ from the published ones become findings."""
    dataset = read_mvtec_tree(folder, category, options, layout=NAME, group=lambda defect: "anomalous")
    return replace(dataset, findings=dataset.findings + compare_any(dataset, PUBLISHED))


LAYOUT = Layout(
    name=NAME,
    order=8,
    expects="train/good and test/<defect type> folders",
    find=by_folder(is_mvtec_tree),
    read=read,
)
