"""Random streams of the embedded sets: each image, and each element of its scene, has its own generator.

So an image does not depend on which other images are drawn, on their order or on the number of workers. The defect has its
own stream: the twin (same streams, no defect) differs from the image only at the defect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CATEGORY_IDS = {
    "fabric": 0,
    "brushed_metal": 1,
    "bolt": 2,
    "pcb": 3,
    "pin_tray": 4,
    "screw_kit": 5,
    "terminal_block": 6,
}
"""First element of the spawn key of each set."""
SPLIT_IDS = {"train": 0, "validation": 1, "test": 2}
CHILDREN = ("scene", "photometry", "sensor", "defect")


@dataclass(frozen=True, slots=True)
class Streams:
    """The independent generators of one image."""

    scene: np.random.SeedSequence
    """Parent of the generators of `element`."""
    photometry: np.random.Generator
    sensor: np.random.Generator
    defect: np.random.Generator

    def element(self, number: int) -> np.random.Generator:
        """Generator of one element of the scene (a yarn set, a component, a compartment); its number is fixed in the code."""
        own = np.random.SeedSequence(self.scene.entropy, spawn_key=(*self.scene.spawn_key, number))
        return np.random.Generator(np.random.PCG64DXSM(own))


def streams(seed: int, category: str, split: str, defect_id: int, index: int) -> Streams:
    """Streams of one image; `defect_id` is 0 for good images and from 1 the alphabetical position of the defect type."""
    root = np.random.SeedSequence(
        seed, spawn_key=(CATEGORY_IDS[category], SPLIT_IDS[split], defect_id, index)
    )
    scene, *others = root.spawn(len(CHILDREN))
    photometry, sensor, defect = (np.random.Generator(np.random.PCG64DXSM(child)) for child in others)
    return Streams(scene, photometry, sensor, defect)
