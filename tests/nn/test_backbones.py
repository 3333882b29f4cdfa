"""Backbones: frozen whatever the parent does, cut off at the taps, padded as the published code padded."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.errors import ConfigError, WeightsError
from andon.nn.backbones import (
    Backbone,
    BackboneConfig,
    _same_padding,
    check_taps,
    count_parameters,
    multiply_adds,
)
from andon.nn.weights import add

SMALL = BackboneConfig(weights="random", taps=("layer1", "layer2"), image_size=32)


class Parent(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(128, 1)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.create(SMALL)


def complaint(error: type[Exception], **changes: object) -> str:
    with pytest.raises(error) as caught:
        Backbone.create(SMALL.updated(changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Frozen -----------------------------------------------------------------------------------------------------------


def test_nothing_in_it_moves(backbone):
    parent = Parent(backbone).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for _ in range(3):
        features = backbone(torch.rand(2, 3, 32, 32))
        parent.head(features["layer2"].mean((2, 3))).sum().backward()
    parent.requires_grad_(True)
    parent.train(True)
    backbone(torch.rand(2, 3, 32, 32))
    after = backbone.state_dict()
    assert before.keys() == after.keys()
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in backbone.modules())
    backbone.requires_grad_(False)


def test_a_copy_gives_the_same_features(backbone):
    images = torch.rand(2, 3, 32, 32)
    copied = copy.deepcopy(backbone)
    assert [module.training for module in copied.modules()] == [
        module.training for module in backbone.modules()
    ]
    assert all(torch.equal(features, backbone(images)[tap]) for tap, features in copied(images).items())
    assert copied.trunk is not backbone.trunk


def test_parameters_are_frozen(backbone):
    assert count_parameters(backbone) > 0
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone(torch.rand(1, 3, 32, 32))["layer1"].requires_grad


def test_published_defect_lets_batch_statistics_drift():
    """D1: only where it is asked for."""
    drifting = Backbone.create(SMALL, train_mode=True).train()
    before = drifting.trunk.get_buffer("bn1.running_mean").clone()
    drifting(torch.rand(2, 3, 32, 32))
    assert not torch.equal(drifting.trunk.get_buffer("bn1.running_mean"), before)
    assert not any(parameter.requires_grad for parameter in drifting.parameters())
    drifting.eval()
    before = drifting.trunk.get_buffer("bn1.running_mean").clone()
    drifting(torch.rand(2, 3, 32, 32))
    assert torch.equal(drifting.trunk.get_buffer("bn1.running_mean"), before)


def test_features_are_those_of_timm_after_one_normalisation(backbone):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(
            "resnet18", pretrained=False, features_only=True, out_indices=(1, 2)
        ).eval()
    own = backbone.state_dict()
    network.load_state_dict({k: own[f"trunk.{k}"] for k in network.state_dict()})
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network((images - mean[:, None, None]) / std[:, None, None])
        found = backbone(images)
    for tap, features in zip(SMALL.taps, expected, strict=True):
        torch.testing.assert_close(found[tap], features)
        assert backbone.shapes[tap] == tuple(features.shape[1:])


def test_network_ends_at_the_last_tap(backbone):
    names = {name.split(".")[1] for name in backbone.state_dict() if name.startswith("trunk.")}
    assert names == {"conv1", "bn1", "layer1", "layer2"}
    network = BackboneConfig(
        network="tf_efficientnet_b0", weights="random", taps=("blocks.1",), image_size=32
    )
    parts = {".".join(name.split(".")[1:3]) for name in Backbone.create(network).state_dict()}
    assert {part for part in parts if part.startswith("blocks")} == {"blocks.0", "blocks.1"}
    assert not any(part.startswith(("conv_head", "bn2", "classifier")) for part in parts)


def test_random_weights_are_the_same_in_every_process_and_leave_the_seed_alone():
    torch.manual_seed(5)
    first = Backbone.create(SMALL)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(6)
    second = Backbone.create(SMALL)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_starter_weights_are_loaded():
    starter = Backbone.create(SMALL.updated({"weights": "starter"}))
    assert starter.weights.state is not None
    own = starter.trunk.state_dict()
    for name, value in own.items():
        if name in starter.weights.state:
            assert torch.equal(value, starter.weights.state[name].to(value.dtype)), name
    assert sum(name in starter.weights.state for name in own) > 40


# Wrong names, wrong weights ---------------------------------------------------------------------------------------


def test_unknown_network_and_tap():
    message = complaint(ConfigError, network="resnet81")
    assert message.startswith("timm has no network 'resnet81'; did you mean ")
    assert "resnet18" in message
    message = complaint(ConfigError, network="resnet81", weights="starter")
    assert message.startswith("timm has no network")
    message = complaint(ConfigError, network="qqqqqq")
    assert "timm.list_models() in Python gives all: " in message
    assert len(message) < 500
    assert (
        complaint(ConfigError, taps=["layr2"]) == "network resnet18 has no tap 'layr2'; did you mean layer2?"
    )
    assert complaint(ConfigError, taps=["layer2", "layer2"]) == "taps names layer2 twice: name each tap once"
    stages = ", ".join(f"blocks.{k}" for k in range(7))
    assert complaint(ConfigError, network="tf_efficientnet_lite0", taps=["layer2"]).endswith(
        f"has no tap 'layer2'; its stages: {stages}"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "resnet81"},
        {"taps": ["layr2"]},
        {"taps": ["layer2", "layer2"]},
        {"network": "tf_efficientnet_lite0", "taps": ["layer2"]},
    ],
)
def test_names_are_checked_without_weights(changes):
    """In the same words as when the network is built."""
    with pytest.raises(ConfigError) as caught:
        check_taps(SMALL.updated({**changes, "weights": "nowhere"}))
    assert str(caught.value) == complaint(ConfigError, **changes)
    check_taps(SMALL.updated({"weights": "nowhere"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"taps": ["fc"]}, "a tap must give (B, C, H, W) features"),
        ({"taps": []}, "taps=[]"),
        ({"image_size": 4}, "image_size=4"),
        ({"network": "vit_tiny_patch16_224", "taps": ["blocks.3"]}, "takes no pictures of 32 x 32 pixels"),
    ],
)
def test_what_gives_no_feature_map_is_refused(changes, words):
    assert words in complaint(ConfigError, **changes)


def store(tmp_path, monkeypatch, change) -> None:
    monkeypatch.setenv("ANDON_HOME", str(tmp_path))
    whole = timm.create_model("resnet18", pretrained=False).state_dict()
    state = {name: value for name, value in whole.items() if not name.startswith(("layer3", "layer4", "fc"))}
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    add(tmp_path / "a.safetensors", name="mine", network="resnet18")


def test_weights_of_other_shapes_are_refused(tmp_path, monkeypatch):
    store(tmp_path, monkeypatch, lambda state: state.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}))
    message = complaint(WeightsError, weights="mine")
    assert "have another shape at conv1.weight" in message
    assert "do not fit resnet18 up to layer1, layer2" in message


def test_weights_that_lack_layers_are_refused(tmp_path, monkeypatch):
    def drop(state: dict[str, Tensor]) -> None:
        for name in [name for name in state if name.startswith("layer2")]:
            del state[name]

    store(tmp_path, monkeypatch, drop)
    message = complaint(WeightsError, weights="mine")
    assert "they lack layer2.0.conv1.weight and " in message
    Backbone.create(SMALL.updated({"weights": "mine", "taps": ["layer1"]}))  # enough up to here


def test_half_precision_weights_become_float32(tmp_path, monkeypatch):
    def halve(state: dict[str, Tensor]) -> None:
        state.update({k: v.half() if v.is_floating_point() else v for k, v in state.items()})

    store(tmp_path, monkeypatch, halve)
    loaded = Backbone.create(SMALL.updated({"weights": "mine"}))
    assert loaded.trunk.get_parameter("conv1.weight").dtype == torch.float32


def test_saved_detectors_bring_their_own_weights():
    assert Backbone.create(SMALL.updated({"weights": "nowhere"}), pretrained=False).weights.state is None


# Padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (5, 1), (1, 2), (2, 3)])
def test_same_padding_is_tensorflows(kernel, stride):
    for size in range(7, 40):
        left, right, top, bottom = _same_padding(nn.Conv2d(1, 1, kernel, stride), size, size + 3)
        assert min(left, right, top, bottom) >= 0
        assert {right - left, bottom - top} <= {0, 1}
        padded = F.pad(torch.zeros(1, 1, size, size + 3), (left, right, top, bottom))
        out = F.conv2d(padded, torch.zeros(1, 1, kernel, kernel), stride=stride)
        assert out.shape[-2:] == (-(-size // stride), -(-(size + 3) // stride))
        needed = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        assert top + bottom == needed  # and not a cell more


def trunks(network: str, taps: tuple[str, ...], size: int) -> tuple[Backbone, Backbone]:
    config = BackboneConfig(network=network, weights="random", taps=taps, image_size=size)
    return Backbone.create(config.updated({"static_same_padding": True})), Backbone.create(config)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_static_padding_is_that_of_the_nominal_size():
    """B3 is made for 300 px: its third stage begins at 75 cells there, an odd number, and at 24 for a picture of 96 px."""
    fixed, dynamic = trunks("tf_efficientnet_b3", ("blocks.2",), 96)
    assert fixed.shapes == dynamic.shapes
    pads = [trunk.trunk.get_submodule("blocks.2.0.conv_dw.pad").padding for trunk in (fixed, dynamic)]
    assert pads == [(2, 2, 2, 2), (1, 2, 1, 2)]
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        assert distance(fixed(images)["blocks.2"], dynamic(images)["blocks.2"]) > 1e-3


@pytest.mark.slow
def test_b5_trunk_of_the_published_detector():
    """I-22: size, cost, and where static padding matters."""
    for size, agree in ((456, True), (768, False)):
        fixed, dynamic = trunks("tf_efficientnet_b5", ("blocks.5",), size)
        assert count_parameters(fixed) == count_parameters(dynamic) == 17_543_204
        images = torch.rand(1, 3, size, size)
        with torch.inference_mode():
            own, other = fixed(images)["blocks.5"], dynamic(images)["blocks.5"]
            # timm's own forward pass, without any rebuilding of the graph
            network = timm.create_model("tf_efficientnet_b5", pretrained=False).eval()
            network.load_state_dict(
                {k: dynamic.trunk.state_dict().get(k, v) for k, v in network.state_dict().items()}
            )
            x = network.bn1(network.conv_stem((images - dynamic.mean) / dynamic.std))
            for stage in network.blocks[:6]:
                x = stage(x)
        assert distance(other, x) < 1e-5
        assert (distance(own, x) < 1e-5) is agree
        if size == 768:
            assert fixed.shapes["blocks.5"] == (304, 24, 24)
            for trunk in (fixed, dynamic):
                assert multiply_adds(trunk, images) / 1e9 == pytest.approx(22.49, abs=0.01)


# Edges -------------------------------------------------------------------------------------------------------------


def test_mirrored_edges_are_those_of_a_mirrored_picture():
    backbone = Backbone.create(SMALL.updated({"taps": ["conv1"], "edges": "mirror"}))
    images = torch.rand(2, 3, 32, 32)
    conv = backbone.trunk.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    x = F.pad((images - backbone.mean) / backbone.std, (3, 3, 3, 3), mode="reflect")
    assert torch.allclose(backbone(images)["conv1"], F.conv2d(x, conv.weight, stride=2), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "tap"), [("resnet18", "layer2"), ("tf_mobilenetv3_small_minimal_100", "blocks.2")]
)
def test_an_even_picture_has_no_edge_when_edges_are_mirrored(network: str, tap: str):
    even = torch.full((1, 3, 64, 64), 0.7)
    config = BackboneConfig(network=network, weights="random", taps=(tap,), image_size=64)
    spread = {}
    for edges in ("zeros", "mirror"):
        features = Backbone.create(config.updated({"edges": edges}))(even)[tap]
        spread[edges] = float((features.amax((2, 3)) - features.amin((2, 3))).abs().max())
    assert spread["mirror"] < 1e-4 < spread["zeros"]


def test_edges_change_the_identity_of_features(backbone: Backbone):
    assert Backbone.create(SMALL.updated({"edges": "mirror"})).fingerprint() != backbone.fingerprint()
