"""ResNet-18 with each convolution's ReLU and addition done inside it, by oneDNN.

Run layer by layer, PyTorch brings all weights into oneDNN's own order in every call, and goes over memory once more
for each ReLU and addition. The two operators here are those that torch.compile puts in their place; called directly,
they cost no compilation at start-up. They are internal to PyTorch, so nothing here is taken for granted: the engine
runs this form once, holds its answers against the plain network's, and does without it where it fails or differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from service.engines.resnet import BasicBlock, ResNet18

operators = torch.ops.mkldnn


class FusedConvolution:
    """A convolution with its batch norm folded in, weights in the order that suits images of that side."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, side_px: int):
        assert conv.bias is not None
        geometry = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        shape = [1, conv.in_channels, side_px, side_px]
        weight = operators._reorder_convolution_weight(conv.weight.to(dtype), *geometry, shape)
        self._arguments = weight, conv.bias.to(dtype), *geometry

    def __call__(self, x: Tensor, then: str = "none") -> Tensor:
        """The convolution of x, and "relu" of that if so wanted."""
        return operators._convolution_pointwise(x, *self._arguments, then, [], "")

    def added_to(self, base: Tensor, x: Tensor) -> Tensor:
        """relu(base + the convolution of x), written over base."""
        return operators._convolution_pointwise_.binary(base, x, *self._arguments, "add", 1.0, "relu", [], "")


class FusedBlock:
    """A BasicBlock."""

    def __init__(self, block: BasicBlock, dtype: torch.dtype, side_px: int):
        inner_px = side_px // block.conv1.stride[0]
        self._first = FusedConvolution(block.conv1, dtype, side_px)
        self._second = FusedConvolution(block.conv2, dtype, inner_px)
        around = block.downsample[0] if isinstance(block.downsample, nn.Sequential) else None
        self._around = FusedConvolution(around, dtype, side_px) if isinstance(around, nn.Conv2d) else None

    def __call__(self, x: Tensor) -> Tensor:
        inner = self._first(x, then="relu")
        return self._second.added_to(self._around(x) if self._around else x, inner)


class FusedResNet18:
    """A network whose batch norms are folded: float32 [N, 3, S, S] -> scores float32 [N, classes].

    The last layer stays in float32: a score of 12 has steps of 1/16 in bfloat16.
    """

    how = "fused by oneDNN"

    def __init__(
        self, net: ResNet18, dtype: torch.dtype, size_px: int, memory_format: torch.memory_format = torch.channels_last
    ):
        self._dtype, self._memory_format = dtype, memory_format
        self._stem = FusedConvolution(net.conv1, dtype, size_px)
        self._blocks = []
        side_px = size_px
        for block in (b for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for b in stage):
            assert isinstance(block, BasicBlock)
            self._blocks.append(FusedBlock(block, dtype, side_px))
            side_px //= block.conv1.stride[0]
        self._scores = net.fc

    def __call__(self, x: Tensor) -> Tensor:
        x = self._stem(x.to(self._dtype, memory_format=self._memory_format), then="relu")
        for block in self._blocks:
            x = block(x)
        return self._scores(x.mean((2, 3), dtype=torch.float32))
