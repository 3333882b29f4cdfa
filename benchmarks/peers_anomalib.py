"""One row of `peers.py`: a model of anomalib 2, run by the Python of an environment in which anomalib is installed.

Settings are those of andon's row; what is not set is anomalib's default. Validation is switched off (anomalib would split it
off the test pictures) and so is the post-processor, which rescales scores; EfficientAD gets its quantiles from the held-out
pictures, as andon's does. Nothing is downloaded: networks are built without weights and get those of a file; every tensor of
them has to be there, and equal afterwards.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.data.utils import read_image
from anomalib.engine import Engine
from anomalib.models import EfficientAd, Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from peers_row import SIDE, arguments, p50, peak_mib, pictures, seconds, versions, write
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

BATCH = 8
"""Pictures at a time, as andon has it; EfficientAD takes one."""
PLAIN = {"post_processor": False, "evaluator": False, "visualizer": False}
Model = Padim | Patchcore | EfficientAd


def build(given: dict[str, Any]) -> Model:
    """The model with andon's settings."""
    if given["detector"] == "efficientad":
        return Teacher(given)
    resize = Resize((SIDE, SIDE), antialias=True)
    scale = Normalize(mean=[given["mean"]] * 3, std=[given["std"]] * 3)
    taken = {"pre_trained": False, "pre_processor": PreProcessor(transform=Compose([resize, scale])), **PLAIN}
    backbone, taps = given["network"], given["taps"]
    if given["detector"] == "patchcore":
        share = given["set"]["coreset"]
        return Patchcore(backbone, taps, coreset_sampling_ratio=share, num_neighbors=9, **taken)
    with np.load(given["channels"]) as row:
        channels = torch.from_numpy(row["channels"])
    model = Padim(backbone, taps, n_features=len(channels), **taken)
    model.model.idx = channels
    return model


class Teacher(EfficientAd):
    """EfficientAD-S with the teacher of a file, of any width, a student of the same width, and andon's penalty pictures."""

    def __init__(self, given: dict[str, Any]) -> None:
        state = load_file(given["weights"])
        names = sorted({int(key.partition(".")[0]) for key in state})
        kernels = [state[f"{name}.weight"] for name in names]
        channels = len(kernels[-1])
        super().__init__(
            imagenet_dir=given["penalty"],
            teacher_out_channels=channels,
            lr=given["lr"],
            weight_decay=given["weight_decay"],
            **PLAIN,
        )
        set_widths(self.model.teacher, kernels, channels)
        set_widths(self.model.student, kernels, 2 * channels)
        renamed = {
            f"conv{k}.{part}": state[f"{n}.{part}"]
            for k, n in enumerate(names, 1)
            for part in ("weight", "bias")
        }
        self.tensors = copy_into(self.model.teacher, renamed)

    def prepare_pretrained_model(self) -> None:
        """The teacher is there."""


def set_widths(network: nn.Module, kernels: list[Tensor], out: int) -> None:
    """Give the convolutions of a patch description network the widths of the kernels; the last one has `out` outputs."""
    for k, kernel in enumerate(kernels, 1):
        size = out if k == len(kernels) else len(kernel)
        setattr(network, f"conv{k}", nn.Conv2d(kernel.shape[1], size, kernel.shape[2]))


def copy_into(network: nn.Module, state: dict[str, Tensor]) -> int:
    """Put tensors into a network; the number of them. Fails unless all of the network's are among them, and equal afterwards."""
    wanted = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    missing = [key for key in wanted if key not in state]
    assert not missing, f"the weights lack {missing}"
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], state[key].float()) for key in wanted)
    return len(wanted)


def features_of(model: Model) -> dict[str, float]:
    """Mean of each tap, or of the teacher's outputs, for a fixed picture: equal where weights and normalisation are."""
    ramp = torch.linspace(0, 1, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        if isinstance(model, EfficientAd):
            return {"teacher": float(model.model.teacher(ramp).mean())}
        found = model.model.feature_extractor(model.pre_processor(ramp))
    return {tap: float(x.mean()) for tap, x in found.items()}


def open_folder(folder: Path, batch: int) -> Folder:
    """The pictures, through the library's own data module; `same_as_test` makes a validation set that nothing looks at."""
    return Folder(
        name="peers",
        root=folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/defective",
        train_batch_size=batch,
        eval_batch_size=BATCH,
        num_workers=0,
        val_split_mode="same_as_test",
    )


def fit(model: Model, engine: Engine, data: Folder, folder: Path) -> None:
    """Learn from the good pictures; EfficientAD's maps are then scaled by their quantiles on the held-out ones."""
    engine.fit(model, datamodule=data)
    if isinstance(model, EfficientAd):
        model.eval()
        held_out = [
            SimpleNamespace(image=model.pre_processor(read_image(file, as_tensor=True)[None]), gt_label=[0])
            for file in pictures(folder, "validation/good")
        ]
        model.model.quantiles.update(model.map_norm_quantiles(held_out))


def main() -> None:
    """Fit, time, answer for the test pictures."""
    options = arguments(__doc__)
    given = options.settings
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = build(given)
    trained = isinstance(model, EfficientAd)
    tensors = (
        model.tensors
        if trained
        else copy_into(model.model.feature_extractor.feature_extractor, load_file(given["weights"]))
    )
    facts: dict[str, Any] = {"tensors": tensors, "features": features_of(model)}
    data = open_folder(options.folder, 1 if trained else BATCH)
    length = {"max_steps": given["steps"], "max_epochs": -1} if trained else {}
    with tempfile.TemporaryDirectory() as scratch:
        engine = Engine(
            default_root_dir=scratch,
            accelerator="cpu",
            limit_val_batches=0,
            enable_progress_bar=False,
            **length,
        )
        facts["fit_s"] = seconds(lambda: fit(model, engine, data, options.folder))
        facts["peak_fit_mib"] = peak_mib()
        found = engine.predict(model, dataloaders=data.test_dataloader(), return_predictions=True)
    answers = [
        (options.folder / path, float(score), anomaly_map.squeeze().numpy())
        for batch in found
        for path, score, anomaly_map in zip(
            map(options.folder.joinpath, batch.image_path), batch.pred_score, batch.anomaly_map, strict=True
        )
    ]
    model.eval()
    files = [*pictures(options.folder, "test/good"), *pictures(options.folder, "test/defective")][:20]
    with torch.inference_mode():
        facts["forward_ms"] = p50(model, [torch.rand(1, 3, SIDE, SIDE)], options.rounds)
        facts["file_ms"] = p50(
            lambda file: model(read_image(file, as_tensor=True)[None]), files, options.rounds
        )
    facts |= {"peak_mib": peak_mib(), "versions": versions("anomalib", "torch", "timm")}
    write(options.out, facts, answers)


if __name__ == "__main__":
    main()
