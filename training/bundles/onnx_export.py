"""A torch network as ONNX files that the service runs, in float32 and in 8-bit integers.

PyTorch's own exporter writes the graph with softmax as its last node. Each output channel's weights have a scale of
their own. They are reduced to 7 bits, and activations are unsigned: processors without VNNI add two products in 16
bits, where full 8-bit weights can saturate. So every processor computes the same integers. Depthwise convolutions,
whose products every processor adds in 32 bits, keep 8.
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
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from tqdm import tqdm

from service.engines.onnx_engine import INPUT, OUTPUT, open_session
from service.model import WEIGHTS_OF
from service.system import usable_cpus
from training.errors import ExportError
from training.measure import accuracy, parity

FLOAT32, INT8 = "float32.onnx", WEIGHTS_OF["onnx"]
QUANTISED_OPS = ["Conv", "Relu", "Clip", "Add", "MatMul", "Gemm"]
BATCH_SIZE = 16
REDUCED_LEVELS, FULL_LEVELS = 64, 127  # of 7-bit and 8-bit weights, each way, as ONNX Runtime scales them
CORRECTION_IMAGES = 64
LARGE_LAYER = 2**20  # weights
EXAMPLES = 2  # of the traced batch; one would become a constant
MAX_FLOAT32_DIFFERENCE = 1e-3  # of a probability, from other orders of summation


@dataclass(frozen=True)
class Answers:
    """A network's probabilities for the test images, which its ONNX files are compared with."""

    inputs: np.ndarray  # float32 [N, 3, S, S], normalised
    labels: np.ndarray  # [N]
    expected: np.ndarray  # float32 [N, classes], of torch


class WithSoftmax(nn.Module):
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
        for start in tqdm(range(0, len(images), BATCH_SIZE), desc="calibration", leave=False, delay=1):
            yield {INPUT: images[start : start + BATCH_SIZE]}

    def get_next(self) -> dict[str, np.ndarray]:
        return next(self._batches, {})


def export_network(
    net: nn.Module, size_px: int, calibration: np.ndarray, test: Answers, folder: Path, max_int8_loss: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Write both files into a folder; returns the figures of each by its name, and int8's probabilities.

    `calibration`: training images, normalised; `max_int8_loss`: of accuracy. Raises ExportError.
    """
    float32, int8 = folder / FLOAT32, folder / INT8
    write_float32(net, size_px, float32)
    write_int8(float32, int8, calibration)
    answers = {path.name: run_onnx(path, test.inputs) for path in (float32, int8)}
    exports: dict[str, Any] = {
        name: accuracy(found, test.labels) | parity(found, test.expected) for name, found in answers.items()
    }
    check(exports, accuracy(test.expected, test.labels)["accuracy"], max_int8_loss)
    exports[INT8] |= {
        "calibration": f"{len(calibration)} training images, min-max, biases corrected",
        "quantised": "weights: int8 per channel, of 7 bits except where depthwise; activations: uint8",
        "libraries": {
            "torch": str(torch.__version__), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__
        },
    }  # fmt: skip
    return exports, answers[INT8]


def check(exports: dict[str, Any], torch_accuracy: float, max_int8_loss: float) -> None:
    """Raises ExportError, with the values, when a file is not the network that was trained."""
    difference = exports[FLOAT32]["max_abs_dprob"]
    if difference > MAX_FLOAT32_DIFFERENCE:
        raise ExportError(f"{FLOAT32} is not the same network: a probability differs by {difference:.4f}")
    int8 = exports[INT8]
    if int8["accuracy"] < torch_accuracy - max_int8_loss:
        raise ExportError(
            f"int8 costs too much: {torch_accuracy:.2%} became {int8['accuracy']:.2%} of {int8['n']} test images, and "
            f"{max_int8_loss:.1%} may be lost; more training images to calibrate with, or another network, may help"
        )


def write_float32(net: nn.Module, size_px: int, path: Path) -> None:
    """Write the network in float32 into one file. Raises ExportError when PyTorch cannot."""
    net = WithSoftmax(net).cpu().eval().to(memory_format=torch.contiguous_format)
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
    starts = tqdm(range(0, len(inputs), BATCH_SIZE), desc=path.name, leave=False, delay=1)
    return np.concatenate([np.asarray(session.run([OUTPUT], {name: inputs[i : i + BATCH_SIZE]})[0]) for i in starts])
