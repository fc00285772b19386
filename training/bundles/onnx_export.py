"""A torch network as an ONNX file that the service runs, in float32 and in 8-bit integers.

PyTorch's own exporter writes the graph with softmax as its last node. Weights are reduced to 7 bits and activations are
unsigned, as in training/export.py, so that every processor computes the same integers; depthwise convolutions, whose
products every processor adds in 32 bits, keep 8.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from service.engines.onnx_engine import INPUT, OUTPUT, open_session
from service.system import usable_cpus
from training.errors import ExportError

QUANTISED_OPS = ["Conv", "Relu", "Clip", "Add", "MatMul", "Gemm"]
BATCH_SIZE = 16
REDUCED_LEVELS, FULL_LEVELS = 64, 127  # of 7-bit and 8-bit weights, each way, as ONNX Runtime scales them
CORRECTION_IMAGES = 64
LARGE_LAYER = 2**20  # weights
EXAMPLES = 2  # of the traced batch; one would become a constant


class Probabilities(nn.Module):
    """A network with softmax."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).softmax(1)


class Batches(CalibrationDataReader):
    """Normalised images for calibration, in batches."""

    def __init__(self, images: np.ndarray):
        self._batches = self._read(images)

    @staticmethod
    def _read(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(images), BATCH_SIZE):
            yield {INPUT: images[start : start + BATCH_SIZE]}

    def get_next(self) -> dict[str, np.ndarray]:
        return next(self._batches, {})


def write_float32(net: nn.Module, size_px: int, path: Path) -> None:
    """Write the network in float32 into one file. Raises ExportError when PyTorch cannot."""
    net = Probabilities(net).cpu().eval().to(memory_format=torch.contiguous_format)
    example = torch.zeros(EXAMPLES, 3, size_px, size_px)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                net, (example,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes={"images": {0: torch.export.Dim("N")}}, verbose=False,
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"PyTorch cannot write this network as ONNX: {str(error).splitlines()[0]}") from None
        assert program is not None
        program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path))


def write_int8(float32: Path, path: Path, images: np.ndarray) -> None:
    """Write the network in 8-bit integers; the ranges of its activations are those on `images`, normalised."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(float32, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        correct_biases(model, images[:CORRECTION_IMAGES])
        onnx.save(model, prepared)
        overrides = {
            each.weights: [{"quant_type": QuantType.QInt8, "reduce_range": False, "axis": 0, "symmetric": True}]
            for each in _convolutions(model)
            if each.depthwise
        }
        quantize_static(
            prepared, path, Batches(images), quant_format=QuantFormat.QDQ, calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=QUANTISED_OPS, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=_small_layers(model), extra_options={"TensorQuantOverrides": overrides},
        )  # fmt: skip


def _small_layers(model: onnx.ModelProto) -> list[str]:
    """Linear layers that stay in float32, where they cost next to nothing."""
    sizes = {each.name: prod(each.dims) for each in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    return [node.name for node in layers if sizes.get(node.input[1], 0) < LARGE_LAYER]


@dataclass(frozen=True)
class Convolution:
    """A convolution of the graph, by the names of what it reads."""

    input: str
    weights: str
    bias: str
    depthwise: bool


def _convolutions(model: onnx.ModelProto) -> list[Convolution]:
    shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    return [
        Convolution(node.input[0], node.input[1], node.input[2], shapes[node.input[1]][1] == 1)
        for node in model.graph.node
        if node.op_type == "Conv" and len(node.input) == 3 and {node.input[1], node.input[2]} <= set(shapes)
    ]


def correct_biases(model: onnx.ModelProto, images: np.ndarray) -> None:
    """Take out of each bias what rounding the weights will add on average (Nagel et al., 2019: bias correction).

    Without it, networks of depthwise convolutions lose much of what they know.
    """
    convolutions = _convolutions(model)
    weights = {each.name: each for each in model.graph.initializer}
    means = _channel_means(model, {each.input for each in convolutions}, images)
    for each in convolutions:
        values = numpy_helper.to_array(weights[each.weights]).astype(np.float64)
        levels = FULL_LEVELS if each.depthwise else REDUCED_LEVELS
        scale = np.abs(values).max((1, 2, 3), keepdims=True) / levels
        scale[scale == 0] = 1
        lost = (values - np.round(values / scale) * scale).sum((2, 3))  # [outputs, inputs]
        mean = means[each.input]
        correction = lost[:, 0] * mean if each.depthwise and len(lost) == len(mean) else lost @ mean
        bias = numpy_helper.to_array(weights[each.bias]) + correction
        weights[each.bias].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), each.bias))


def _channel_means(model: onnx.ModelProto, names: set[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Each tensor's mean over images and pixels: float64 [channels]."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    inner = sorted(names - {INPUT})
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    sums: dict[str, np.ndarray] = dict.fromkeys(names, np.zeros(1))
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        for name, values in zip([INPUT, *inner], [batch, *session.run(inner, {INPUT: batch})], strict=True):
            if name in names:
                sums[name] = sums[name] + np.asarray(values).mean((2, 3), dtype=np.float64).sum(0)
    return {name: total / len(images) for name, total in sums.items()}


def run_onnx(path: Path, inputs: np.ndarray, name: str = INPUT) -> np.ndarray:
    """The probabilities of every input, computed as the onnx engine would."""
    session = open_session(str(path), usable_cpus())
    starts = range(0, len(inputs), BATCH_SIZE)
    return np.concatenate([np.asarray(session.run([OUTPUT], {name: inputs[i : i + BATCH_SIZE]})[0]) for i in starts])
