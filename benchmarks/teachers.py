"""How well the outputs of EfficientAD's teachers tell good from anomalous images, before anything is trained on them.

    python benchmarks/teachers.py DATA... [--weights starter_pdn,...] [--train 40] [--test 40]

The output of a teacher (256 px, no padding, 56 x 56 cells) is averaged over 4 x 4 cells and standardised per channel over the
good images; an image's score is its largest distance to the nearest patch of a good image. Prints image AUROC.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from score_parts import some
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.images import batches
from andon.core.records import Record
from andon.datasets import open_dataset
from andon.metrics import auroc
from andon.nn.pdn import pdn, teacher_state
from andon.nn.weights import IMAGENET_MEAN, IMAGENET_STD, locate

SIZE = (256, 256)


def teacher(name: str) -> nn.Module:
    """The network of the weights `name`, without padding."""
    state = teacher_state(locate(name, "pdn_small").state or {}, "pdn_small", what=name)
    network = pdn("small", len(state["0.weight"]), len(next(reversed(state.values()))), padding=False)
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return network.eval()


def patches(network: nn.Module, records: Sequence[Record]) -> Tensor:
    """(N, 14 * 14, C) averaged outputs."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        found = [F.avg_pool2d(network((b.image - mean) / std), 4) for b in batches(records, SIZE, 4)]
    return torch.cat(found).flatten(2).transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--weights", default="starter_pdn")
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--test", type=int, default=40)
    options = parser.parse_args()
    names = options.weights.split(",")
    print(f"| data | {' | '.join(f'`{name}`' for name in names)} |\n{'|---' * (len(names) + 1)}|")
    for data in options.data:
        dataset = open_dataset(data, seed=0)
        good = some(dataset.train, options.train, 0)
        test = [r for k in (0, 1) for r in some([t for t in dataset.test if t.label == k], options.test, 0)]
        cells = []
        for name in names:
            network = teacher(name)
            bank, queries = patches(network, good).flatten(0, 1), patches(network, test)
            deviation, mean = torch.std_mean(bank, 0)
            bank, queries = (bank - mean) / deviation, (queries - mean) / deviation
            scores = torch.stack([torch.cdist(q, bank).amin(1).amax() for q in queries])
            cells.append(f"{100 * auroc(scores.numpy(), np.array([r.label for r in test])):.1f}")
        print(f"| {Path(data).name.removeprefix('embedded:')} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
