"""Bundles of ResNet-18 with weights of a test's own, for the torch engine and perhaps for onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from service.engines.resnet import ARCHITECTURE, ResNet18, build_network
from service.engines.torch_engine import WEIGHTS
from training.bundles.manifest import EngineSource, SelfTest, write_bundle
from training.bundles.onnx_export import INT8
from training.data import CLASSES, SIZE_PX

IMAGE = {"kind": "image", "size_px": SIZE_PX, "mean": [0.5] * 3, "std": [0.25] * 3}


def random_network(classes: int = len(CLASSES)) -> ResNet18:
    """Random weights, always the same, with batch norms that do something."""
    torch.manual_seed(0)
    net = build_network(classes)
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return net.eval()


def write_resnet(
    folder: Path, tensors: Mapping[str, Tensor], scratch: Path, onnx: bytes | None = None,
    classes: Sequence[str] = CLASSES,
) -> Path:  # fmt: skip
    """The bundle of these tensors, and of an ONNX file with this content. It has no inputs to test itself by."""
    weights, onnx_file = scratch / WEIGHTS, scratch / INT8
    save_file({k: v.contiguous() for k, v in tensors.items() if "num_batches" not in k}, weights)
    engines = {"torch": EngineSource(weights, WEIGHTS, "float32", ARCHITECTURE)}
    if onnx is not None:
        onnx_file.write_bytes(onnx)
        engines["onnx"] = EngineSource(onnx_file, INT8, "float32")
    write_bundle(
        folder, classes, IMAGE, engines, SelfTest([]), licence="CC0-1.0", origin="random", details={"kept": True}
    )
    return folder
