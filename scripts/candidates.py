"""Candidates to try a release on: the committed network in 8-bit integers, as it is, made worse, and broken.

    python -m scripts.candidates FOLDER [--push STORE]

    production  the network, to be compared with
    equal       the same, with another text in model.json and so another version
    worse       noise on the last layer's weights; its self-test is its own, so it starts
    broken      the last layer's classes in another order, with the self-test of the right order: it does not start
    swapped     the same, with a self-test of its own: it starts, and nearly every answer is wrong

A better one is `production` while prod is `worse`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from scripts.paths import ROOT
from service.engines.onnx_engine import OnnxEngine
from service.images.preprocess import decode_image
from service.manifest.self_test import read_self_test
from service.model import MODEL_JSON, load_bundle, sha256

BUNDLE = ROOT / "models" / "resnet18-cifar10"
ONNX_FILE, SELF_TEST, ENGINE = "int8.onnx", "self_test.json", "onnx"
LAST_LAYER = "fc.weight"  # [classes, features], in float32
NOISE = 1.5  # of the weights' standard deviation: 0.94 of 400 test images right become 0.88
SEED = 21
KEPT_KEYS = ("schema", "name", "classes", "input", "self_test", "licence")

Change = Callable[[np.ndarray], np.ndarray]


def write_candidates(folder: Path, noise: float = NOISE) -> dict[str, Path]:
    """Write them all. Returns name -> bundle's folder."""
    rng = np.random.default_rng(SEED)

    def add_noise(weights: np.ndarray) -> np.ndarray:
        return weights + rng.normal(0, noise * weights.std(), weights.shape).astype(weights.dtype)

    def roll(weights: np.ndarray) -> np.ndarray:
        return np.roll(weights, 1, axis=0)

    return {
        "production": write_candidate(folder / "production", lambda weights: weights, own_self_test=False),
        "equal": write_candidate(folder / "equal", lambda weights: weights, own_self_test=False),
        "worse": write_candidate(folder / "worse", add_noise, own_self_test=True),
        "broken": write_candidate(folder / "broken", roll, own_self_test=False),
        "swapped": write_candidate(folder / "swapped", roll, own_self_test=True),
    }


def write_candidate(folder: Path, change: Change, *, own_self_test: bool) -> Path:
    """The committed bundle for ONNX Runtime alone, with its last layer changed."""
    folder.mkdir(parents=True)
    network = onnx.load(str(BUNDLE / ONNX_FILE))
    weights = next(each for each in network.graph.initializer if each.name == LAST_LAYER)
    weights.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weights)), LAST_LAYER))
    onnx.save(network, str(folder / ONNX_FILE))
    test = json.loads((BUNDLE / SELF_TEST).read_text(encoding="utf-8"))
    (folder / SELF_TEST).write_text(json.dumps(test) + "\n", encoding="utf-8")
    _write_manifest(folder)
    if own_self_test:
        test["probabilities"] = {ENGINE: _answers(folder)}
        (folder / SELF_TEST).write_text(json.dumps(test) + "\n", encoding="utf-8")
        _write_manifest(folder)
    return folder


def _write_manifest(folder: Path) -> None:
    committed = json.loads((BUNDLE / MODEL_JSON).read_text(encoding="utf-8"))
    manifest = {
        **{key: committed[key] for key in KEPT_KEYS},
        "engines": {ENGINE: committed["engines"][ENGINE]},
        "files": {file: sha256(folder / file) for file in (ONNX_FILE, SELF_TEST)},
        "origin": f"The committed network, to try a release on: {folder.name}.",
    }
    (folder / MODEL_JSON).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _answers(folder: Path) -> list[list[float]]:
    bundle = load_bundle(folder)
    test = read_self_test(folder / SELF_TEST, ENGINE, len(bundle.classes), None)
    inputs = np.stack([decode_image(image, bundle) for image in test.inputs])
    return [[round(float(p), 6) for p in row] for row in OnnxEngine(bundle).probabilities(inputs)]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.candidates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="new folder for the bundles")
    parser.add_argument("--push", metavar="STORE", help="push them, and give each an alias of its name")
    arguments = parser.parse_args()
    for name, bundle in write_candidates(arguments.folder).items():
        print(f"{name:<10} {bundle}", flush=True)
        if arguments.push:
            from store.model_store import ModelStore

            store = ModelStore.open(arguments.push)
            version = store.push(bundle)
            store.move_alias(version.name, name, version.version, reason="to try a release on")
            print(f"{'':<10} {version.name}@{name} is {version.version}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
