"""Write the bundle's network as ONNX: in float32, and in 8-bit integers for the service's onnx engine.

    ./cloudtrial export                 # downloads CIFAR-10      (or: make export)
    ./cloudtrial export --data data     # data/train/CLASS/*, data/test/CLASS/*

The ranges of the activations are calibrated on training images. PyTorch and both files are measured on the whole test
set: the accuracies go into model.json, with the data's name. Refuses, and changes nothing, when int8 loses too much
accuracy or float32 differs from PyTorch. training/bundles/onnx_export.py says how the files are written.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from service.engines.torch_engine import WEIGHTS, TorchEngine, load_network
from service.model import MODEL_JSON, load_bundle
from training.bundles.manifest import EngineSource, check_replaceable, details_of, write_bundle
from training.bundles.onnx_export import FLOAT32, INT8, Answers, export_network, run_onnx
from training.bundles.self_test import image_self_test
from training.data import Split
from training.measure import accuracy, normalise, predict, split_reference

CALIBRATION_IMAGES = 1000
SEED = 0
MAX_INT8_LOSS = 0.003  # of accuracy
UNKNOWN = "not stated"  # of a bundle of schema 1, which does not say


def calibration_images(train: Split) -> np.ndarray:
    """The same number of every class, always the same images: uint8 [N, S, S, 3], in random order."""
    rng = np.random.default_rng(SEED)
    classes = np.unique(train.labels)
    per_class = CALIBRATION_IMAGES // len(classes)
    indices = [rng.permutation(np.flatnonzero(train.labels == label))[:per_class] for label in classes]
    return train.images[rng.permutation(np.concatenate(indices))]


def export(folder: Path, train: Split, test: Split, data_name: str) -> dict[str, dict[str, Any]]:
    """Write both files into the bundle and their figures into its model.json; returns these by file name.

    float32.onnx is measured and left in the folder, but is no part of the bundle. Raises BundleError, TrainingError.
    """
    check_replaceable(folder)
    bundle = load_bundle(folder, [WEIGHTS])
    manifest = json.loads((folder / MODEL_JSON).read_text(encoding="utf-8"))
    engine = TorchEngine(bundle, "float32")  # on any processor
    found = predict(engine.probabilities, bundle, test, "torch")
    answers = Answers(normalise(test.images, bundle), test.labels, found)
    stored, tested_on = accuracy(found, test.labels), f"{data_name}, test split"
    with tempfile.TemporaryDirectory() as scratch:
        int8 = Path(scratch) / INT8
        calibration = normalise(calibration_images(train), bundle)
        exports, int8_found = export_network(
            load_network(bundle), bundle.image.size_px, calibration, answers, Path(scratch), MAX_INT8_LOSS
        )
        for figures in exports.values():
            figures |= {"data": tested_on, "weights": bundle.version(WEIGHTS)}
        own = bundle.engine("torch")
        runs = {"torch": engine.probabilities, "onnx": lambda inputs: run_onnx(int8, inputs)}
        write_bundle(
            folder, bundle.classes, manifest["input"] | {"kind": "image"},
            {
                "torch": EngineSource(folder / WEIGHTS, WEIGHTS, own.precision, own.architecture),
                "onnx": EngineSource(int8, INT8, "int8"),
            },
            image_self_test(bundle, runs),
            licence=bundle.licence or UNKNOWN,
            origin=bundle.origin or UNKNOWN,
            details=details_of(manifest)
            | {
                "metrics": manifest.get("metrics", {}) | {"test": stored | {"data": tested_on}},
                "exports": exports,
            },
            reference=split_reference(bundle, test, {"torch": found, "onnx": int8_found}, tested_on),
        )  # fmt: skip
        shutil.copyfile(Path(scratch) / FLOAT32, folder / FLOAT32)
    return exports
