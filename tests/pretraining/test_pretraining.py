"""The teacher's distillation: the target against a plain implementation (I-21), statistics, resume, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import names, texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch.nn import functional as F

from andon.core.errors import ConfigError, DataError, InterruptedRun, OutputError, WeightsError
from andon.core.files import with_checksum
from andon.core.images import load_batch, resize
from andon.core.records import Record
from andon.detectors.efficientad import EfficientAD, EfficientADConfig
from andon.layers.patches import PatchEmbedding, pooling_window
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.training import Trainer
from andon.nn.weights import add
from andon.pretraining import DistillationConfig, PatchTarget, pretrain_pdn
from andon.pretraining import pdn as pretraining
from andon.pretraining.jobs import check_name, image_records, job_folder, note_settings, resumable
from andon.testing.promises import Interrupter

TINY = {
    "target.network": "resnet18",
    "target.weights": "random",
    "target.image_size": 128,
    "image_size": 64,
    "width": 4,
    "channels": 6,
    "steps": 6,
    "batch_size": 2,
    "procedural": 3,
}
OPTIONS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


def config(**changes: object) -> DistillationConfig:
    return DistillationConfig().updated(TINY | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, two of them in a subfolder."""
    for k in range(4):
        write_picture(tmp_path / "photos" / ("inner" if k % 2 else "") / f"{k}.png", texture(k))
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create(BackboneConfig(weights="random", taps=("layer2", "layer3"), image_size=128))


# The target -------------------------------------------------------------------------------------------------------


def described(features: dict[str, torch.Tensor], side: int, channels: int) -> torch.Tensor:
    """Step by step as PatchCore and EfficientAD write it: unfold, enlarge, pool, concatenate, pool."""
    parts = []
    for x in features.values():
        patches = F.unfold(x, 3, padding=1).unflatten(
            2, x.shape[2:]
        )  # (B, 9C, h, w), order (channel, row, column)
        patches = F.interpolate(patches, size=(side, side), mode="bilinear", align_corners=False)
        flat = patches.permute(0, 2, 3, 1).flatten(0, 2)  # (B·h·w, 9C)
        parts.append(F.adaptive_avg_pool1d(flat, 1024))
    pooled = F.adaptive_avg_pool1d(torch.cat(parts, 1), channels)
    return pooled.unflatten(0, (len(x), side, side)).permute(0, 3, 1, 2)


@given(channels=st.integers(1, 40), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=8)
def test_the_target_is_the_patch_embedding(backbone, channels, seed):
    """Also where an output averages over the border between two taps (odd numbers of channels)."""
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = described(backbone(images), 16, channels)
        torch.testing.assert_close(PatchTarget(backbone, channels)(images), expected, rtol=1e-4, atol=1e-5)
        other = PatchEmbedding(backbone.shapes, size=channels)(
            {tap: value.contiguous() for tap, value in backbone(images).items()}
        )
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


def test_the_first_half_is_the_first_taps_and_the_second_half_the_second_taps(backbone, monkeypatch):
    """I-21, for the paper's 384 outputs."""
    target = PatchTarget(backbone, 384)
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        features, before = backbone(images), target(images)
        for tap, changed in (("layer2", slice(0, 192)), ("layer3", slice(192, 384))):
            other = features | {tap: features[tap] + 1 + torch.rand_like(features[tap])}
            monkeypatch.setattr(backbone, "forward", lambda _, other=other: other)
            differs = (target(images) != before).flatten(2).any(2)[0]
            assert differs[changed].all()
            assert differs.sum() == 192


def test_1024_channels_become_their_3_by_3_means():
    """I-21: what the pooling to 1024 does to a tap of 1024 channels."""
    matrix = pooling_window(9 * 1024, 1024)
    assert torch.equal(matrix, torch.eye(1024).repeat_interleave(9, 1) / 9)


def test_512_channels_are_averaged_over_windows_of_five():
    matrix = pooling_window(9 * 512, 1024)
    assert set((matrix != 0).sum(1).tolist()) == {5}


# Learning ---------------------------------------------------------------------------------------------------------


def test_target_statistics_are_mean_and_population_deviation(backbone, folder, tmp_path):
    """Fewer pictures than asked for serve both passes; more, and the second pass sees others."""
    records = image_records([folder], 0)
    trainer = Trainer(device="cpu", precision="32-true")

    def plain(chosen: list[Record]) -> np.ndarray:
        images = load_batch(chosen, (128, 128)).image
        with torch.no_grad():
            return described(backbone(images), 16, 6).double().permute(0, 2, 3, 1).flatten(0, 2).numpy()

    target = PatchTarget(backbone, 6)
    pretraining._learn_statistics(target, records, config(), trainer, tmp_path / "a.safetensors")
    np.testing.assert_allclose(target.mean.flatten(), plain(records).mean(0), rtol=1e-4)
    np.testing.assert_allclose(target.std.flatten(), plain(records).std(0), rtol=1e-4)

    target = PatchTarget(backbone, 6)
    pretraining._learn_statistics(target, records, config(statistics=2), trainer, tmp_path / "b.safetensors")
    order = torch.randperm(4, generator=pretraining.seeded(0, "statistics")).tolist()
    first, second = (plain([records[k] for k in part]) for part in (order[:2], order[2:]))
    np.testing.assert_allclose(target.mean.flatten(), first.mean(0), rtol=1e-4)
    deviation = np.sqrt(((second - first.mean(0)) ** 2).mean(0))
    np.testing.assert_allclose(target.std.flatten(), deviation, rtol=1e-4)


@pytest.mark.slow
def test_a_teacher_is_made_and_used(folder, store):
    entry = pretrain_pdn("mine", [folder], config(), device="cpu")
    assert entry.network == "pdn_small"
    assert "resnet18" in entry.origin
    assert "4 pictures (photos), 6 steps" in entry.origin
    detector = EfficientAD(
        EfficientADConfig().updated({"teacher.weights": "mine", "teacher.width": 4, "teacher.channels": 6})
    )
    assert detector.used_weights[0] == {
        "name": "mine",
        "origin": entry.origin,
        "licence": entry.licence,
        "sha256": entry.sha256,
    }
    assert names(store / "weights") == ["mine.json", "mine.safetensors"]
    assert not (store / "pretraining" / "mine").exists()
    pretrain_pdn("mine", [folder], config(half=True), device="cpu", overwrite=True)  # replaced
    assert {v.dtype for v in load_file(entry.path).values()} == {torch.float16}


@pytest.mark.slow
def test_distillation_comes_nearer_to_the_target(folder):
    """With the same pictures again and again the loss falls well below that of the best constant, which is 1."""
    c = config(steps=15, optimiser__lr=1e-2, batch_size=4, width=8, grey_share=0.0)
    target = PatchTarget(Backbone.create(c.target), c.channels)
    records = image_records([folder], 0)
    trainer = Trainer(device="cpu", precision="32-true")
    pretraining._learn_statistics(target, records, c, trainer, folder / "statistics.safetensors")
    pretraining.distil(target, records, c, trainer)
    curve = [point["distillation"] for point in trainer.stages["distillation"].curve]
    assert curve[0] > 0.9
    assert min(curve) < 0.7


def test_without_padding_the_outermost_cells_of_the_target_are_left_out(folder, monkeypatch):
    """A network without zero padding that gives the target's inner cells has no loss."""
    c = config(steps=1, batch_size=4, grey_share=0.0, padding=False)
    target = PatchTarget(Backbone.create(c.target), c.channels)
    records = image_records([folder], 0)
    images = load_batch(records, (c.target.image_size,) * 2).image
    inner = target(images)[:, :, 4:-4, 4:-4]

    class Exact(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order = [int((x[k] - small).abs().sum((1, 2, 3)).argmin()) for k in range(len(x))]
            return inner[order] + self.zero

    small = (resize(images, (c.image_size,) * 2) - target.backbone.mean) / target.backbone.std
    monkeypatch.setattr(pretraining, "pdn", lambda *_, padding: Exact() if not padding else None)
    trainer = Trainer(device="cpu", precision="32-true")
    pretraining.distil(target, records, c, trainer)
    assert trainer.stages["distillation"].curve[0]["distillation"] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.slow
def test_resumed_equals_uninterrupted(folder):
    c = config(smallest_crop=0.3, grey_share=0.5)
    whole = load_file(pretrain_pdn("whole", [folder], c, device="cpu").path)
    with pytest.raises(InterruptedRun, match=r"after step 3 of 6; .*--resume"):
        pretrain_pdn("parts", [folder], c, device="cpu", progress=Interrupter("distillation"))
    with pytest.raises(ConfigError, match="other settings or pictures"):
        pretrain_pdn("parts", [folder], config(steps=7), device="cpu", resume=True)
    with pytest.raises(OutputError, match="holds an interrupted training: --resume continues it"):
        pretrain_pdn("parts", [folder], c, device="cpu")
    parts = load_file(pretrain_pdn("parts", [folder], c, device="cpu", resume=True).path)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_checkpoints_of_another_job_are_not_continued(tmp_path, folder):
    records = image_records([folder], 0)
    job = tmp_path / "job"
    note_settings(job, config(), 0, records, resume=False)
    (job / "distillation.safetensors").write_bytes(b"of job A")
    note_settings(job, config(), 0, records, resume=True)
    assert names(job) == ["distillation.safetensors", "settings.txt"]
    note_settings(job, config(), 1, records, resume=False)  # job B, interrupted before its first checkpoint
    assert names(job) == ["settings.txt"]
    (job / "distillation.safetensors").write_bytes(b"of job A")
    (job / "settings.txt").unlink()
    note_settings(job, config(), 1, records, resume=True)
    assert names(job) == ["settings.txt"]


def test_a_job_is_continued_with_the_same_pictures_alone(tmp_path, folder, monkeypatch):
    """By their names and contents: the way to their folder does not count, and neither do the names of folders."""
    job = tmp_path / "job"
    monkeypatch.chdir(folder.parent)
    note_settings(job, config(), 0, image_records([Path("photos")], 0), resume=False, weights="a")
    note_settings(job, config(), 0, image_records([folder], 0), resume=True, weights="a")
    with pytest.raises(ConfigError, match="other settings or pictures"):
        note_settings(job, config(), 0, image_records([folder], 0), resume=True, weights="b")
    with pytest.raises(ConfigError, match="other settings or pictures"):
        note_settings(job, config(), 0, image_records([folder], 0), True, weights="a", classes=[0, 0, 1, 1])
    write_picture(folder / "0.png", texture(9))
    with pytest.raises(ConfigError, match="other settings or pictures"):
        note_settings(job, config(), 0, image_records([folder], 0), resume=True, weights="a")


def test_an_interrupted_job_is_not_given_up_unasked(store):
    folder = job_folder("mine", resume=False, overwrite=False)
    folder.mkdir(parents=True)
    assert job_folder("mine", resume=False, overwrite=False) == folder
    (folder / "flow.safetensors").write_bytes(b"learned")
    for options in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        assert job_folder("mine", **options) == folder
    with pytest.raises(OutputError, match="--resume continues it, --overwrite starts anew") as caught:
        job_folder("mine", resume=False, overwrite=False)
    assert "\n" not in str(caught.value)
    assert names(folder) == ["flow.safetensors"]


def test_finished_weights_are_not_replaced_unasked(tmp_path, store):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    add(tmp_path / "a.pth", name="mine", network="flow")
    check_name("mine", overwrite=True)
    with pytest.raises(WeightsError, match="--overwrite replaces them"):
        check_name("mine")


def test_damaged_settings_of_a_job_count_as_others(tmp_path, folder):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "settings.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="other settings or pictures"):
        note_settings(tmp_path / "job", config(), 0, image_records([folder], 0), resume=True)


def test_a_second_ctrl_c_names_the_way_to_continue():
    with pytest.raises(InterruptedRun, match=r"^stopped; run the same command with --resume"), resumable():
        raise KeyboardInterrupt


def test_a_damaged_picture_is_named_with_a_remedy_that_pretraining_has(folder):
    (folder / "0.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"0\.png cannot be read .*: replace or remove it$"):
        pretrain_pdn("mine", [folder], config(), device="cpu")


def test_statistics_of_another_target_get_one_line(tmp_path, folder):
    file = tmp_path / "statistics.safetensors"
    for stored in (
        {"mean": torch.zeros(1, 7, 1, 1), "std": torch.ones(1, 7, 1, 1)},
        {"mean": torch.zeros(6)},
    ):
        file.write_bytes(with_checksum(save(stored)))
        target = pretraining.PatchTarget(Backbone.create(config().target), 6)
        trainer = Trainer(device="cpu", checkpoints=tmp_path, resume=True)
        with pytest.raises(DataError, match="other settings: start anew without --resume"):
            pretraining._learn_statistics(target, image_records([folder], 0), config(), trainer, file)


def test_damaged_statistics_are_not_continued(tmp_path, folder):
    file, records = tmp_path / "statistics.safetensors", image_records([folder], 0)
    target = pretraining.PatchTarget(Backbone.create(config().target), 6)
    trainer = Trainer(device="cpu", checkpoints=tmp_path, resume=True)
    pretraining._learn_statistics(target, records, config(), trainer, file)
    pretraining._learn_statistics(target, records, config(), trainer, file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or of other settings: start anew without --resume"):
        pretraining._learn_statistics(target, records, config(), trainer, file)


@pytest.mark.parametrize(
    ("name", "folders", "changes", "error", "words"),
    [
        ("mine", ["nowhere"], {}, DataError, "is no folder"),
        ("mine", ["empty"], {}, DataError, "no pictures there"),
        ("a/b", [], {}, WeightsError, "cannot name weights"),
        ("starter", [], {}, WeightsError, "is taken"),
        ("random", [], {}, WeightsError, "is taken"),
        ("mine", [], {"target__image_size": 64}, ConfigError, "change target.image_size"),
        (
            "mine",
            [],
            {"target__weights": "wide_resnet101_2.tv_in1k"},
            WeightsError,
            "belong to wide_resnet101_2",
        ),
    ],
)
def test_what_cannot_work_is_said_before_any_work(tmp_path, name, folders, changes, error, words, store):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=words) as caught:
        pretrain_pdn(name, [tmp_path / f for f in folders], config(**changes), device="cpu")
    assert "\n" not in str(caught.value)
    assert not (store / "weights").exists()


@pytest.mark.slow
def test_the_command_makes_a_teacher_from_procedural_pictures(cli, store):
    done = cli(
        "pretrain", "pdn", "--name", "mine", *OPTIONS, "--device", "cpu", "--licence", "ours", "--json"
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["name"] == "mine"
    assert "3 pictures (procedural)" in said["origin"]
    listed = json.loads(cli("weights", "list", "--json").out)
    assert next(row for row in listed if row["name"] == "mine")["licence"] == "ours"
    assert "unknown setting 'stepz'" in cli("pretrain", "pdn", "--name", "x", "--set", "stepz=1").complaint()
    assert "device 'tpu'" in cli("pretrain", "pdn", "--name", "x", "--device", "tpu").complaint()
    missing = cli("pretrain", "pdn", "--name", "x").complaint()
    assert "andon weights fetch wide_resnet101_2.tv_in1k" in missing
