"""Write the bundle's network as ONNX: in float32, and in 8-bit integers for the service's onnx engine.

    ./cloudtrial export                 # downloads CIFAR-10      (or: make export)
    ./cloudtrial export --data data     # data/train/CLASS/*, data/test/CLASS/*

Batch norm is folded into the convolutions. The ranges of the activations are calibrated on training images, each output
channel's weights have a scale of their own, and pooling, last layer and softmax stay in float32, where they cost
nothing. PyTorch and both files are measured on the whole test set: the accuracies go into model.json, with the data's
name. Refuses, and changes nothing, when int8 loses too much accuracy or fp32 differs from PyTorch.

Weights are reduced to 7 bits, and activations are unsigned: processors without VNNI add two products in 16 bits, where
full 8-bit weights can saturate. So every processor computes the same integers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from service.engines.onnx_engine import INPUT, OUTPUT, open_session
from service.engines.torch_engine import WEIGHTS, TorchEngine, fold_batch_norm, load_network
from service.model import MODEL_JSON, WEIGHTS_OF, Bundle, load_bundle, sha256
from service.system import usable_cpus
from training.bundles.reference import add_reference
from training.data import Split
from training.errors import ExportError
from training.measure import Probabilities, accuracy, normalise, parity, predict, split_reference
from training.onnx_graph import OPSET, onnx_model

FP32, INT8 = "fp32.onnx", WEIGHTS_OF["onnx"]
QUANTISED_OPS = ["Conv", "Relu", "Add"]
CALIBRATION_IMAGES = 1000
CALIBRATION_BATCH_SIZE = 50
SEED = 0
MAX_INT8_LOSS = 0.003  # of accuracy
MAX_FP32_DIFFERENCE = 0.001  # of a probability, from other orders of summation


class CalibrationImages(CalibrationDataReader):
    """Training images in batches, with a progress bar."""

    def __init__(self, images: np.ndarray, bundle: Bundle):
        self._batches = self._read(images, bundle)

    def _read(self, images: np.ndarray, bundle: Bundle) -> Iterator[dict[str, np.ndarray]]:
        for start in tqdm(range(0, len(images), CALIBRATION_BATCH_SIZE), desc="calibration", leave=False):
            yield {INPUT: normalise(images[start : start + CALIBRATION_BATCH_SIZE], bundle)}

    def get_next(self) -> dict[str, np.ndarray]:
        return next(self._batches, {})


def calibration_images(train: Split) -> np.ndarray:
    """The same number of every class, always the same images: uint8 [N, S, S, 3], in random order."""
    rng = np.random.default_rng(SEED)
    classes = np.unique(train.labels)
    per_class = CALIBRATION_IMAGES // len(classes)
    indices = [rng.permutation(np.flatnonzero(train.labels == label))[:per_class] for label in classes]
    return train.images[rng.permutation(np.concatenate(indices))]


def write_fp32(bundle: Bundle, path: Path) -> None:
    """Write the network in float32, with batch norm folded in."""
    net = load_network(bundle)
    fold_batch_norm(net)
    onnx.save(onnx_model(net, bundle), path)


def write_int8(fp32: Path, path: Path, calibration: CalibrationDataReader) -> None:
    """Write the network with convolutions and additions in integers; see the top of this file."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        # The skipped passes would change nothing in this graph
        quant_pre_process(fp32, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared, path, calibration, quant_format=QuantFormat.QDQ, calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=QUANTISED_OPS, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


def onnx_probabilities(path: Path) -> Probabilities:
    """An ONNX file, run as the onnx engine would."""
    session = open_session(str(path), usable_cpus())
    return lambda batch: np.asarray(session.run([OUTPUT], {INPUT: batch})[0])


def check(metrics: dict[str, dict[str, Any]], torch_accuracy: float) -> None:
    """Raises ExportError, with the values, when a file is not good enough."""
    difference = metrics[FP32]["max_abs_dprob"]
    if difference > MAX_FP32_DIFFERENCE:
        raise ExportError(
            f"{FP32} is not the same network: a probability differs by {difference:.4f}, "
            f"more than {MAX_FP32_DIFFERENCE}"
        )
    int8_accuracy = metrics[INT8]["accuracy"]
    if int8_accuracy < torch_accuracy - MAX_INT8_LOSS:
        raise ExportError(
            f"int8 costs too much: {torch_accuracy:.2%} became {int8_accuracy:.2%}, and {MAX_INT8_LOSS:.1%} may be "
            "lost; other calibration images, or fewer of QUANTISED_OPS, may help"
        )


def export(folder: Path, train: Split, test: Split, data_name: str) -> dict[str, dict[str, Any]]:
    """Write both files into the bundle and their metrics into its model.json; returns the metrics."""
    bundle = load_bundle(folder, [WEIGHTS])
    images = calibration_images(train)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in (FP32, INT8)}
        write_fp32(bundle, files[FP32])
        write_int8(files[FP32], files[INT8], CalibrationImages(images, bundle))
        reference = predict(TorchEngine(bundle, "float32").probabilities, bundle, test, "torch")
        metrics: dict[str, dict[str, Any]] = {}
        answers = {"torch": reference}
        for name, path in files.items():
            predictions = answers["onnx"] = predict(onnx_probabilities(path), bundle, test, name)  # of int8, the last
            metrics[name] = accuracy(predictions, test.labels) | parity(predictions, reference)
        stored = accuracy(reference, test.labels)
        check(metrics, stored["accuracy"])
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
    tested_on = {"data": f"{data_name}, test split"}
    common = tested_on | {"weights": bundle.version(WEIGHTS), "opset": OPSET}
    metrics[FP32] |= common
    metrics[INT8] |= common | {
        "calibration": {
            "data": f"{data_name}, train split",
            "pictures": len(images),
            "seed": SEED,
            "method": "min-max",
        },
        "quantised": {"kinds": QUANTISED_OPS, "weights": "int8, per channel, 7 bits", "activations": "uint8"},
        "libraries": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    write_metrics(folder, stored | tested_on, metrics)
    add_reference(folder, split_reference(bundle, test, answers, tested_on["data"]))
    return metrics


def write_metrics(folder: Path, stored: dict[str, Any], exports: dict[str, dict[str, Any]]) -> None:
    """Write the checksum of int8, and the metrics of the weights and both files; fp32 is measured, but not shipped."""
    path = folder / MODEL_JSON
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"][INT8] = sha256(folder / INT8)
    manifest["metrics"] = {"test": stored}
    manifest["exports"] = exports
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
