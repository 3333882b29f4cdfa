"""Frozen feature extractors: any timm network by name, truncated after the tapped modules.

A backbone takes images in [0, 1] and normalises them itself. It stays in eval mode whatever its parent does; parameters and
buffers never change, so its features are deterministic and can be cached. This is the only module that imports timm.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Self, cast

import timm
import torch
from pydantic import Field
from timm.layers.conv2d_same import Conv2dSame
from timm.models import create_feature_extractor  # torchvision's keeps everything before the last assertion
from torch import Tensor, nn

from andon.core.config import Config
from andon.core.errors import ConfigError, WeightsError, nearest
from andon.nn.weights import RANDOM, WeightFile, locate

DROP_PATH = 0.2
"""Stochastic depth rate of the published train-mode extractor (default of efficientnet_pytorch)."""
BATCH_NORM_MOMENTUM = 0.01
"""BatchNorm momentum of the published train-mode extractor: efficientnet_pytorch's 0.99 in TensorFlow's convention."""


class BackboneConfig(Config):
    """Network, weights, outputs and input size of a backbone."""

    network: str = "resnet18"
    """Name of a timm architecture, without tag."""
    weights: str = "starter"
    """Name in the weight store (`andon weights list`), or `random` for untrained weights drawn from seed 0."""
    taps: tuple[str, ...] = Field(("layer3",), min_length=1)
    """Names of the modules whose outputs are the features, e.g. `layer2`, `blocks.5`."""
    image_size: int = Field(256, ge=8)
    """Both sides of the image are resized to this many pixels."""
    edges: Literal["zeros", "mirror"] = "zeros"
    """Padding of convolutions: zeros, as in training, or reflection. With zeros the features of the outermost cells differ from
    all others."""
    static_same_padding: bool = False
    """Compute "same" padding for the network's nominal input size (efficientnet_pytorch) instead of the actual one (timm)."""


class StaticPadConv2d(nn.Conv2d):
    """A "same" convolution with fixed padding."""

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, int, int, int]) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            (conv.stride[0], conv.stride[1]),
            0,
            (conv.dilation[0], conv.dilation[1]),
            conv.groups,
            bias=conv.bias is not None,
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.pad = nn.ZeroPad2d(padding)  # left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


def _same_padding(conv: nn.Conv2d, height: int, width: int) -> tuple[int, int, int, int]:
    """TensorFlow's "same" padding of a convolution for an input of this size, as (left, right, top, bottom)."""

    def total(size: int, axis: int) -> int:
        kernel, stride, dilation = conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]
        return max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)

    vertical, horizontal = total(height, 0), total(width, 1)
    return horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2


def _fix_padding(network: nn.Module, architecture: str, nominal: int) -> None:
    """Replace timm's dynamic "same" convolutions by ones with the padding of an input of `nominal` x `nominal` pixels."""
    if not any(isinstance(m, Conv2dSame) for m in network.modules()):
        return
    with torch.device("meta"):
        shadow = timm.create_model(architecture, pretrained=False).eval()
    paddings: dict[str, tuple[int, int, int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(conv, nn.Conv2d)
            paddings[name] = _same_padding(conv, *inputs[0].shape[-2:])

        return hook

    for name, module in shadow.named_modules():
        if isinstance(module, Conv2dSame):
            module.register_forward_pre_hook(note(name))
    shadow(torch.empty(1, 3, nominal, nominal, device="meta"))
    for name, padding in paddings.items():
        parent_name, _, leaf = name.rpartition(".")
        parent = network.get_submodule(parent_name)
        setattr(parent, leaf, StaticPadConv2d(getattr(parent, leaf), padding))


class Backbone(nn.Module):
    """A frozen truncated network, the trunk. Build it with `Backbone.create`.

    `train_mode=True` reproduces defect D1 of the published EfficientAD-AST (``docs/reference/models/efficientad_ast.md``):
    the trunk follows its parent into train mode, its batch statistics drift and stochastic depth drops branches.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, trunk: nn.Module, config: BackboneConfig, weights: WeightFile, *, train_mode: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.weights = weights
        self.train_mode = train_mode
        self.trunk = trunk.to(memory_format=torch.channels_last)
        mean, std = normalisation(config.network)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()
        self.shapes: dict[str, tuple[int, int, int]] = self._measure()
        """(C, H, W) of each tap."""

    @classmethod
    def create(cls, config: BackboneConfig, *, train_mode: bool = False, pretrained: bool = True) -> Self:
        """Build the network, truncate it after the taps and load its weights.

        `pretrained=False` leaves the weights random, for a state that is loaded afterwards.
        Raises `ConfigError` for an unknown network or tap, `WeightsError` when the weights are missing or of another network.
        """
        known_network(config.network)
        _check_distinct(config.taps)
        weights = locate(config.weights if pretrained else RANDOM, config.network)
        network = _create_network(config.network, drop_path=DROP_PATH if train_mode else 0.0)
        if weights.in_order:
            weights = _with_names_of(network, weights, config.network)
        if train_mode:
            _set_momentum(network, BATCH_NORM_MOMENTUM)
        nominal = _nominal_size(network) if config.static_same_padding else config.image_size
        _fix_padding(network, config.network, nominal)
        _check_taps(config, _module_names(network))
        trunk = _cut(network, config)
        if weights.state is not None:
            _load(trunk, weights, config)
        if config.edges == "mirror":
            _mirror_edges(trunk)
        return cls(trunk, config, weights, train_mode=train_mode)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, except with `train_mode=True`."""
        return super().train(mode and self.train_mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy in the same mode: copying a traced trunk by itself would leave it in train mode."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        for original, module in zip(self.modules(), copied.modules(), strict=True):
            module.training = original.training
        return copied

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] to features {tap: (B, C, h, w)}.

        On a CPU images go through one by one: the feature maps of one stay in the caches (EfficientNet-Lite0 at 384 px: 35 ms an
        image, 97 in batches of 8), and an image has the same features in every batch.
        """
        x = (images - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)  # faster on CPUs and GPUs
        if torch.compiler.is_exporting() or self.train_mode or x.device.type != "cpu" or len(x) < 2:
            outputs: dict[str, Tensor] = self.trunk(x)
            return {tap: f.contiguous() for tap, f in outputs.items()}
        singles = [self.trunk(image) for image in torch.split(x, 1)]
        return {tap: torch.cat([single[tap] for single in singles]).contiguous() for tap in self.config.taps}

    def _measure(self) -> dict[str, tuple[int, int, int]]:
        """Shapes of the taps. Raises `ConfigError` if the network rejects the image size or a tap is no feature map."""
        size = self.config.image_size
        try:
            with torch.inference_mode():
                outputs = self(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"network {self.config.network} takes no pictures of {size} x {size} pixels ({error}): choose another image_size"
            ) from error
        return {tap: _chw(features) for tap, features in outputs.items()}

    def fingerprint(self) -> str:
        """Hash of everything that the features depend on: weights, network, taps, padding, image size."""
        text = f"{self.config.model_dump_json()}|{self.weights.sha256}|bilinear-antialias-1"
        return hashlib.sha256(text.encode()).hexdigest()


def normalisation(architecture: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the colours that a timm network was trained with."""
    settings = timm.get_pretrained_cfg(architecture)
    assert settings is not None
    return settings.mean, settings.std


def _with_names_of(network: nn.Module, weights: WeightFile, architecture: str) -> WeightFile:
    """The weights under the names of `network`, tensor by tensor in order. Raises `WeightsError` where a shape differs."""
    assert weights.state is not None
    wanted, given = network.state_dict(), list(weights.state.values())
    if [value.shape for value in wanted.values()] != [value.shape for value in given]:
        raise WeightsError(
            f"weights {weights.name!r} are not those of {architecture}: the tensors differ in number or shape; "
            "install the pinned version of their package (`andon weights list`)"
        )
    return replace(weights, state=dict(zip(wanted, given, strict=True)))


def _mirror_edges(trunk: nn.Module) -> None:
    """Replace zero padding by reflection in all convolutions."""
    for parent in list(trunk.modules()):
        if isinstance(parent, nn.Conv2d) and parent.padding not in ((0, 0), "valid"):
            parent.padding_mode = "reflect"
        for name, child in parent.named_children():
            if isinstance(child, nn.ZeroPad2d):  # of a `StaticPadConv2d`
                setattr(parent, name, nn.ReflectionPad2d(child.padding))


def _chw(features: Tensor) -> tuple[int, int, int]:
    if features.ndim != 4:
        raise ConfigError(
            f"a tap must give (B, C, H, W) features, this one gives {tuple(features.shape)}; choose another"
        )
    return features.shape[1], features.shape[2], features.shape[3]


def known_network(architecture: str) -> str:
    """Return `architecture`. Raises `ConfigError` when timm has no such network."""
    if not timm.is_model(architecture):
        hint = nearest(architecture, timm.list_models(), listed="timm.list_models() in Python gives all")
        raise ConfigError(f"timm has no network {architecture!r}; {hint}")
    return architecture


def check_taps(config: BackboneConfig) -> None:
    """Raise `ConfigError` for an unknown network or tap, in a fraction of a second: nothing is computed, no weights are read."""
    names = _names_in(known_network(config.network))
    _check_distinct(config.taps)
    if names is not None:
        _check_taps(config, names)


@dataclass(frozen=True, slots=True)
class _Names:
    """Names in a network."""

    modules: frozenset[str]
    stages: frozenset[str]
    """Of `modules`, those that give feature maps."""


def _module_names(network: nn.Module) -> _Names:
    return _Names(frozenset(name for name, _ in network.named_modules() if name), frozenset(_stages(network)))


@cache
def _names_in(architecture: str) -> _Names | None:
    """Names in a network without its weights; None for one that cannot be built without."""
    try:
        with torch.device("meta"):
            return _module_names(timm.create_model(architecture, pretrained=False))
    except RuntimeError:  # a value is computed while it is built
        return None


def _check_distinct(taps: Sequence[str]) -> None:
    if twice := [tap for tap, count in Counter(taps).items() if count > 1]:
        raise ConfigError(f"taps names {twice[0]} twice: name each tap once")


def _check_taps(config: BackboneConfig, names: _Names) -> None:
    for tap in config.taps:
        if tap not in names.modules:
            hint = nearest(tap, names.stages, listed="its stages")
            raise ConfigError(f"network {config.network} has no tap {tap!r}; {hint}")


def _create_network(architecture: str, drop_path: float) -> nn.Module:
    extra: Mapping[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = timm.create_model(architecture, pretrained=False, **extra)
    return network


def _set_momentum(network: nn.Module, momentum: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def _stages(network: nn.Module) -> set[str]:
    """Names of modules that give feature maps: those that timm lists, and the others in the same containers."""
    stages = set()
    for info in cast("Sequence[Mapping[str, str]]", getattr(network, "feature_info", ())):
        stages.add(info["module"])
        if container := info["module"].rpartition(".")[0]:
            stages.update(
                f"{container}.{name}" for name, _ in network.get_submodule(container).named_children()
            )
    return stages


def _cut(network: nn.Module, config: BackboneConfig) -> nn.Module:
    """The network without everything behind its taps."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # train and eval graphs differ only by dropout
            trunk: nn.Module = create_feature_extractor(network.eval(), {tap: tap for tap in config.taps})
    except Exception as error:  # tracing fails with data-dependent control flow
        raise ConfigError(
            f"network {config.network} cannot be cut off at {', '.join(config.taps)} ({type(error).__name__}): "
            "choose a convolutional network"
        ) from error
    return trunk


def _nominal_size(network: nn.Module) -> int:
    """Nominal input side of the network."""
    return int(cast("Mapping[str, Any]", network.pretrained_cfg)["input_size"][-1])


def _load(trunk: nn.Module, weights: WeightFile, config: BackboneConfig) -> None:
    """Load a state dict that holds at least the trunk's tensors, in their shapes."""
    assert weights.state is not None
    wanted = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    missing = [k for k in wanted if k not in weights.state and not k.endswith("num_batches_tracked")]
    wrong = [
        k for k, shape in wanted.items() if k in weights.state and tuple(weights.state[k].shape) != shape
    ]
    if missing or wrong:
        why = f"lack {_some(missing)}" if missing else f"have another shape at {_some(wrong)}"
        raise WeightsError(
            f"weights {weights.name!r} do not fit {config.network} up to {', '.join(config.taps)}: they {why}; "
            "choose other taps or weights (`andon weights list`)"
        )
    trunk.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in weights.state.items() if k in wanted},
        strict=False,
    )


def check_state(architecture: str, state: Mapping[str, Tensor]) -> None:
    """Raise `WeightsError` unless the tensors are those of the network, or of its first layers."""
    with torch.device("meta"):
        network = timm.create_model(known_network(architecture), pretrained=False)
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    first = next(iter(wanted))
    wrong = [key for key, value in state.items() if wanted.get(key, tuple(value.shape)) != tuple(value.shape)]
    if first not in state or wrong:
        why = f"lack {first}" if first not in state else f"have another shape at {_some(wrong)}"
        raise WeightsError(
            f"these weights are not those of {architecture}: they {why}; name the network they belong to with --network"
        )


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, including frozen ones."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of one call: convolutions and matrix products only."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def weight_lines(*backbones: Backbone) -> tuple[dict[str, str], ...]:
    """Origin lines of the weights some backbones use, each once."""
    files: dict[str, WeightFile] = {b.weights.name: b.weights for b in backbones}
    return tuple(file.describe() for file in files.values())
