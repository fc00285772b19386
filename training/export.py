"""Write the bundle's network as ONNX: in float32, and in 8-bit integers for the service's onnx engine.

    ./cloudtrial export                 # downloads CIFAR-10      (or: make export)
    ./cloudtrial export --data data     # data/train/CLASS/*, data/test/CLASS/*

Batch norm is folded into the convolutions. The ranges of what flows between the layers are taken from training
pictures, each output channel's weights have a scale of their own, and pooling, last layer and softmax stay in float32,
where they cost nothing. Both files are measured on the whole test set against PyTorch in float32, and the figures go
into model.json under `exports`. Refuses, and changes nothing, when int8 loses too much or fp32 is another network.

Weights are reduced to 7 bits, and activations are unsigned: processors without VNNI add the products of two pairs up
in 16 bits, where pairs of full range would overflow and be cut off. So every processor computes the same integers.
"""

from __future__ import annotations

import argparse
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
from service.machine import usable_cpus
from service.model import MODEL_JSON, WEIGHTS_OF, Bundle, BundleError, load_bundle, sha256
from training.data import DataError, Split, load_split
from training.measure import Probabilities, accuracy, answers, normalised, parity
from training.onnx_graph import OPSET, onnx_model
from training.promote import BUNDLE

FP32, INT8 = "fp32.onnx", WEIGHTS_OF["onnx"]
QUANTISED = ["Conv", "Relu", "Add"]  # kinds of nodes
CALIBRATION_PICTURES = 1000
CALIBRATION_BATCH = 50
SEED = 0
INT8_LOSS = 0.003  # accuracy that int8 may cost
FP32_DIFFERENCE = 0.001  # of a probability, from other orders of summation


class ExportError(Exception):
    """An exported file is not good enough."""


class Pictures(CalibrationDataReader):
    """Training pictures in batches, with a progress bar."""

    def __init__(self, images: np.ndarray, bundle: Bundle):
        self._batches = self._read(images, bundle)

    def _read(self, images: np.ndarray, bundle: Bundle) -> Iterator[dict[str, np.ndarray]]:
        for start in tqdm(range(0, len(images), CALIBRATION_BATCH), desc="calibration", leave=False):
            yield {INPUT: normalised(images[start : start + CALIBRATION_BATCH], bundle)}

    def get_next(self) -> dict[str, np.ndarray]:
        return next(self._batches, {})


def calibration_pictures(train: Split) -> np.ndarray:
    """As many of every class, always the same ones: uint8 [N, S, S, 3], in random order."""
    rng = np.random.default_rng(SEED)
    classes = np.unique(train.labels)
    share = CALIBRATION_PICTURES // len(classes)
    picked = [rng.permutation(np.flatnonzero(train.labels == label))[:share] for label in classes]
    return train.images[rng.permutation(np.concatenate(picked))]


def write_fp32(bundle: Bundle, path: Path) -> None:
    """The network as it is, with batch norm folded in."""
    net = load_network(bundle)
    fold_batch_norm(net)
    onnx.save(onnx_model(net, bundle), path)


def write_int8(fp32: Path, path: Path, pictures: CalibrationDataReader) -> None:
    """The same with convolutions and additions in integers; see the top of this file."""
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(fp32, prepared, skip_optimization=True, skip_symbolic_shape=True)  # what ours has no use for
        quantize_static(
            prepared, path, pictures, quant_format=QuantFormat.QDQ, calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=QUANTISED, per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


def runner(path: Path) -> Probabilities:
    """An ONNX file, to be measured as an engine would run it."""
    session = open_session(str(path), usable_cpus())
    return lambda batch: np.asarray(session.run([OUTPUT], {INPUT: batch})[0])


def check(figures: dict[str, dict[str, Any]], torch_accuracy: float) -> None:
    """Raises ExportError, with the figures, when a file is not good enough."""
    difference = figures[FP32]["max_abs_dprob"]
    if difference > FP32_DIFFERENCE:
        raise ExportError(
            f"{FP32} is not the same network: a probability differs by {difference:.4f}, more than {FP32_DIFFERENCE}"
        )
    found = figures[INT8]["accuracy"]
    if found < torch_accuracy - INT8_LOSS:
        raise ExportError(
            f"int8 costs too much: {torch_accuracy:.2%} became {found:.2%}, and {INT8_LOSS:.1%} may be lost; other "
            "calibration pictures, or fewer of QUANTISED, may help"
        )


def export(folder: Path, train: Split, test: Split, data: str) -> dict[str, dict[str, Any]]:
    """Write both files into the bundle, and what they are worth into its model.json; returns that."""
    bundle = load_bundle(folder, [WEIGHTS])
    pictures = calibration_pictures(train)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / name for name in (FP32, INT8)}
        write_fp32(bundle, files[FP32])
        write_int8(files[FP32], files[INT8], Pictures(pictures, bundle))
        reference = answers(TorchEngine(bundle, "float32").probabilities, bundle, test, "torch")
        figures: dict[str, dict[str, Any]] = {}
        for name, path in files.items():
            found = answers(runner(path), bundle, test, name)
            figures[name] = accuracy(found, test.labels) | parity(found, reference)
        check(figures, accuracy(reference, test.labels)["accuracy"])
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
    common = {"data": f"{data}, test split", "weights": bundle.version(WEIGHTS), "opset": OPSET}
    figures[FP32] |= common
    figures[INT8] |= common | {
        "calibration": {"data": f"{data}, train split", "pictures": len(pictures), "seed": SEED, "method": "min-max"},
        "quantised": {"kinds": QUANTISED, "weights": "int8, per channel, 7 bits", "activations": "uint8"},
        "libraries": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    record(folder, figures)
    return figures


def record(folder: Path, figures: dict[str, dict[str, Any]]) -> None:
    """Put int8's checksum and all figures into model.json; fp32 is measured, but not shipped."""
    path = folder / MODEL_JSON
    facts = json.loads(path.read_text())
    facts["files"][INT8] = sha256(folder / INT8)
    facts["exports"] = figures
    path.write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial export", description="Write the bundle's network as ONNX, in float32 and in int8."
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"folder to read and write (default: {BUNDLE})")
    parser.add_argument("--data", type=Path, help="class folders; else CIFAR-10 is downloaded")
    parser.add_argument("--data-name", help="what the pictures are, for model.json; default: what the loader says")
    args = parser.parse_args()
    try:
        train, test = load_split(args.data, train=True), load_split(args.data, train=False)
        figures = export(args.bundle, train, test, args.data_name or test.source)
    except (DataError, BundleError, ExportError) as error:
        raise SystemExit(f"export: {error}") from None
    for file, facts in figures.items():
        print(
            f"{args.bundle / file}: {facts['accuracy']:.2%} ({facts['low']:.2%} to {facts['high']:.2%}) "
            f"of {facts['n']}; torch's answer to {facts['agreement']:.2%}, probabilities within "
            f"{facts['max_abs_dprob']:.4f}"
        )


if __name__ == "__main__":
    main()
