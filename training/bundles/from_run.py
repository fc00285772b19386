"""A fine-tuned network as ONNX files, and then as a bundle.

./cloudtrial export runs/mine                          # runs/mine/float32.onnx and int8.onnx, compared with torch
./cloudtrial promote runs/mine --bundle models/mine    # models/mine, when it is good enough
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import nn

from service.engines.resnet import ARCHITECTURE
from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.model import sha256
from training.bundles.manifest import EngineSource, SelfTest, check_replaceable, write_bundle
from training.bundles.onnx_export import BATCH_SIZE, INT8, Answers, export_network, run_onnx
from training.bundles.reference import measured, reference_of
from training.bundles.self_test import image_self_test
from training.errors import PromotionError
from training.finetune.dataset import file_array, read_dataset
from training.finetune.run import Loaded, check_images, image_bundle, load, normaliser
from training.finetune.run_folder import device, load_checkpoint, read_run, scratch_folder, write_run
from training.finetune.unfrozen import predict
from training.measure import torch_bundle
from training.networks.bases import Base, build

CALIBRATION_IMAGES = 200
MAX_INT8_LOSS = 0.01  # of accuracy, or two images where these are more
SEED = 0


def base_of(run: dict[str, Any]) -> Base:
    """How the run's network takes images."""
    taken = run["input"]
    return Base(
        run["base"], taken["size_px"], taken["resize_px"], tuple(taken["mean"]), tuple(taken["std"]), run["licence"],
        run["weights"],
    )  # fmt: skip


def load_run(folder: Path) -> tuple[dict[str, Any], Base, nn.Module]:
    """A finished run and its network. Raises RunError, PromotionError."""
    run = read_run(folder)
    if "metrics" not in run:
        raise PromotionError(f"{folder} has not ended; continue it with ./cloudtrial finetune ... --resume")
    base = base_of(run)
    net = build(base, len(run["classes"]))
    load_checkpoint(folder, net)
    return run, base, net


def load_data(run: dict[str, Any], base: Base, data: Path | None, scratch: Path) -> Loaded:
    """The run's images again, in the same split. Raises DataError when they are others."""
    folder = data or Path(run["data"]["folder"])
    loaded = load(read_dataset(folder, run["data"]["seed"]), base, scratch, lambda _: None)
    check_images(run, folder, loaded)
    return loaded


def export_run(folder: Path, data: Path | None) -> dict[str, Any]:
    """Write both ONNX files into the run and their figures into run.json; returns these. Raises TrainingError."""
    run, base, net = load_run(folder)
    normalise = normaliser(base, device())
    with scratch_folder(folder) as scratch:
        loaded = load_data(run, base, data, Path(scratch))
        expected = predict(net.to(device()), loaded.test[0], normalise, "test set")
        images = loaded.train[0]
        chosen = np.random.default_rng(SEED).permutation(len(images))[:CALIBRATION_IMAGES]
        inputs, labels = network_inputs(loaded.test[0], base, Path(scratch) / "inputs.npy"), loaded.test[1]
        test, max_loss = Answers(inputs, labels, expected), max(MAX_INT8_LOSS, 2 / len(labels))
        calibration = network_inputs(images[np.sort(chosen)], base, Path(scratch) / "calibration.npy")
        exports, found = export_network(net, base.size_px, calibration, test, Path(scratch), max_loss)
        for name in exports:
            (Path(scratch) / name).replace(folder / name)
            exports[name]["sha256"] = sha256(folder / name)
        answers = {"onnx": found}
        if base.name == ARCHITECTURE:  # whose bundle runs with torch too
            answers["torch"] = expected
        taken = image_bundle(base, tuple(run["classes"])).input
        images = f"{run['data']['name']}, test images"
        run["reference"] = reference_of(taken, measured(inputs, taken), answers, labels, images)
    write_run(folder, run | {"exports": exports})
    return exports


def network_inputs(images: np.ndarray, base: Base, path: Path) -> np.ndarray:
    """uint8 [N, 3, S, S] -> the network's input, in a file: it takes four times as many bytes."""
    mean, std = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in (base.mean, base.std))
    inputs = file_array(path, np.float32, images.shape)
    for start in range(0, len(images), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        inputs[batch] = (images[batch].astype(np.float32) / 255 - mean) / std
    return inputs


def promote_run(folder: Path, bundle: Path, floor: float | None) -> dict[str, Any]:
    """Write the bundle of an exported run; returns int8's figures. Raises TrainingError when it is not good enough."""
    check_replaceable(bundle)
    run, base, net = load_run(folder)
    exports = run.get("exports")
    if not exports:
        raise PromotionError(f"{folder} has no ONNX files: ./cloudtrial export {folder} writes them")
    if "schema" not in run["reference"]:
        raise PromotionError(f"{folder} was exported by an earlier release; ./cloudtrial export {folder} again")
    int8 = exports[INT8]
    if sha256(folder / INT8) != int8["sha256"]:
        raise PromotionError(f"{folder / INT8} is not the file that was measured; ./cloudtrial export {folder} again")
    lowest = majority_baseline(run) if floor is None else floor
    if int8["accuracy"] <= lowest if floor is None else int8["accuracy"] < lowest:
        meaning = "which always answering the most frequent class reaches" if floor is None else "the floor"
        raise PromotionError(
            f"the accuracy on the test images is {int8['accuracy']:.2%}, not above {lowest:.2%}, {meaning}"
        )
    taken = image_bundle(base, tuple(run["classes"]))
    engines = {"onnx": EngineSource(folder / INT8, INT8, "int8")}
    runs: dict[str, Callable[[np.ndarray], np.ndarray]] = {"onnx": lambda inputs: run_onnx(folder / INT8, inputs)}
    with tempfile.TemporaryDirectory() as scratch:
        if base.name == ARCHITECTURE:
            path = Path(scratch) / WEIGHTS
            save_file({k: v.contiguous() for k, v in net.state_dict().items() if "num_batches" not in k}, path)
            engines["torch"] = EngineSource(path, WEIGHTS, "float32", ARCHITECTURE)
            runs["torch"] = TorchEngine(torch_bundle(taken, path), "float32").probabilities
        test: SelfTest = image_self_test(taken, runs)
        tested_on = {"data": f"{run['data']['name']}, test images"}
        metrics = {"test": run["metrics"] | tested_on}
        if "torch" not in engines:  # the trained network's figures are none of what the bundle runs
            own = {key: int8[key] for key in ("accuracy", "low", "high", "n")}
            metrics = {"test": own | tested_on, "test_torch": run["metrics"]}
        write_bundle(
            bundle, run["classes"], run["input"], engines, test, licence=run["licence"],
            origin=f"Fine-tuned by ./cloudtrial finetune on {run['data']['name']} from: {run['weights']}."[:1000],
            details={
                "parameters": sum(each.numel() for each in net.parameters()),
                "storage": "int8",
                "metrics": metrics,
                "training": {
                    "data": {k: v for k, v in run["data"].items() if k != "folder"}, "base": run["base"],
                    "seed": run["seed"], "epochs": run["epochs"], "options": run["options"],
                    "hardware": run["hardware"], "minutes": run["minutes"], "libraries": run["libraries"],
                },
                "exports": exports,
            },
            reference=run["reference"],
        )  # fmt: skip
    return int8


def majority_baseline(run: dict[str, Any]) -> float:
    """The accuracy of always answering the class that most test images are of."""
    return run["metrics"]["majority"]
