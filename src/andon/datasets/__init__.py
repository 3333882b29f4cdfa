"""Data sets: layouts, splits, masks and checks. Images are decoded in `andon.core.image_files`."""

from andon.datasets.check import check_dataset
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import Findings
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.datasets.open import list_categories, open_dataset

__all__ = [
    "Dataset",
    "Findings",
    "Records",
    "check_dataset",
    "has_pixel_truth",
    "list_categories",
    "load_ground_truth",
    "open_dataset",
]
