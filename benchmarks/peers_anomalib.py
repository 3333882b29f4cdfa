"""One row of `peers.py`: a model of anomalib 2, run by the Python of an environment in which anomalib is installed.

Settings are those of andon's recipes `patchcore/starter` and `padim/starter`; what is not set is anomalib's default.
Validation is switched off (anomalib would split it off the test pictures) and so is the post-processor, which rescales
scores. Nothing is downloaded: the network is built without weights and gets those of a file; every tensor of it has to be
there, and equal afterwards.
"""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.data.utils import read_image
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from peers_row import SIDE, arguments, p50, peak_mib, pictures, seconds, versions, write
from safetensors.torch import load_file

BATCH = 8
"""Pictures at a time, as andon has it."""
PLAIN = {"pre_trained": False, "post_processor": False, "evaluator": False, "visualizer": False}


def build(options: Any) -> Padim | Patchcore:
    """The model with andon's settings."""
    if options.detector == "patchcore":
        taps = ("layer2", "layer3")
        return Patchcore("resnet18", taps, coreset_sampling_ratio=options.coreset, num_neighbors=9, **PLAIN)
    model = Padim("resnet18", ["layer1", "layer2", "layer3"], n_features=100, **PLAIN)
    model.model.idx = torch.from_numpy(np.load(options.channels)["channels"])
    return model


def load_weights(model: Padim | Patchcore, file: Any) -> int:
    """Put the tensors of a file into the model's extractor; the number of them. Fails unless all of the extractor's are in it."""
    network, state = model.model.feature_extractor.feature_extractor, load_file(file)
    wanted = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    missing = [key for key in wanted if key not in state]
    assert not missing, f"{file} lacks {missing}"
    network.load_state_dict({key: state[key] for key in wanted}, strict=False)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], state[key].float()) for key in wanted)
    return len(wanted)


def features_of(model: Padim | Patchcore) -> dict[str, float]:
    """Mean of each tap for a fixed picture: equal where weights and normalisation are."""
    ramp = torch.linspace(0, 1, 3 * SIDE * SIDE).view(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        found = model.model.feature_extractor(model.pre_processor(ramp))
    return {tap: float(x.mean()) for tap, x in found.items()}


def open_folder(options: Any) -> Folder:
    """The pictures, through the library's own data module; `same_as_test` makes a validation set that nothing looks at."""
    return Folder(
        name="peers",
        root=options.folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/defective",
        train_batch_size=BATCH,
        eval_batch_size=BATCH,
        num_workers=0,
        val_split_mode="same_as_test",
    )


def main() -> None:
    """Fit, time, answer for the test pictures."""
    options = arguments(__doc__)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = build(options)
    facts: dict[str, Any] = {"tensors": load_weights(model, options.weights), "features": features_of(model)}
    data = open_folder(options)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            default_root_dir=folder, accelerator="cpu", limit_val_batches=0, enable_progress_bar=False
        )
        facts["fit_s"] = seconds(lambda: engine.fit(model, datamodule=data))
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
