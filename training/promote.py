"""Turn a finished training run into the model bundle that the service ships.

    ./cloudtrial promote runs/resnet18 --data data

Halves the weights' storage to float16, measures them on the whole test set through the service's own engine, in float32
and in bfloat16 where the processor computes it, and writes the bundle. Refuses a network that loses accuracy in
float16, or whose accuracy is too low. ONNX files of earlier weights are deleted: training/export.py writes them again.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from service.engines.precision import probe_precision
from service.engines.resnet import ARCHITECTURE
from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.manifest.records import ImageInput
from service.model import Bundle
from training import train
from training.bundles.manifest import EngineSource, check_replaceable, write_bundle
from training.bundles.self_test import image_self_test
from training.data import CLASSES, SIZE_PX, Split
from training.defaults import CIFAR_MEAN, CIFAR_STD, NAME, RUN_JSON
from training.errors import PromotionError
from training.measure import accuracy, predict, split_reference, torch_bundle

MAX_FLOAT16_LOSS = 0.0005  # of accuracy, from storage in float16
TAKEN = Bundle(Path(), NAME, CLASSES, ImageInput(SIZE_PX, SIZE_PX, CIFAR_MEAN, CIFAR_STD), {}, {})
LICENCE = "Apache-2.0"
ORIGIN = (
    "Trained from random weights by this project on CIFAR-10's train split: `training` says how. No other weights "
    "went into it."
)


def read_run(run: Path) -> tuple[dict[str, Tensor], train.Progress]:
    """The network's tensors and the progress of a finished run. Raises PromotionError when it is not finished."""
    checkpoint = run / train.CHECKPOINT
    if not checkpoint.exists():
        raise PromotionError(
            f"no {RUN_JSON} and no {train.CHECKPOINT} in {run}: name the --out folder of ./cloudtrial finetune or train"
        )
    progress = train.read_progress(checkpoint)
    if progress.epoch < (epochs := progress.recipe["epochs"]):
        raise PromotionError(f"{run} has {progress.epoch} of {epochs} epochs; train with --resume first")
    tensors = train.read_network(checkpoint)
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}, progress


def engine_of(path: Path, tensors: dict[str, Tensor], precision: str = "float32") -> tuple[Bundle, TorchEngine]:
    """The weights in a file, and the service's engine that runs it."""
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    bundle = torch_bundle(TAKEN, path)
    return bundle, TorchEngine(bundle, precision)


def answers(path: Path, tensors: dict[str, Tensor], test: Split, precision: str = "float32") -> np.ndarray:
    """The network's probabilities for the test set."""
    bundle, engine = engine_of(path, tensors, precision)
    return predict(engine.probabilities, bundle, test, f"test set, {precision}")


def promote(run: Path, folder: Path, test: Split, data_name: str, *, min_accuracy: float) -> dict[str, Any]:
    """Measure a run's network as trained and as stored, and write the bundle. Returns the latter's accuracy."""
    check_replaceable(folder)
    tensors, progress = read_run(run)
    halves = {k: v.half() for k, v in tensors.items()}
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / WEIGHTS
        trained = accuracy(answers(weights, tensors, test), test.labels)
        found = answers(weights, halves, test)
        stored = accuracy(found, test.labels)
        check(stored["accuracy"], trained["accuracy"], min_accuracy)
        metrics = {"test": stored | {"data": f"{data_name}, test split"}, "test_float32_weights": trained}
        if probe_precision("bfloat16").usable:
            metrics["test_bfloat16"] = accuracy(answers(weights, halves, test, "bfloat16"), test.labels)
        bundle, engine = engine_of(weights, halves)
        write_bundle(
            folder, CLASSES,
            {"kind": "image", "size_px": SIZE_PX, "mean": list(CIFAR_MEAN), "std": list(CIFAR_STD)},
            {"torch": EngineSource(weights, WEIGHTS, "float16", ARCHITECTURE)},
            image_self_test(bundle, {"torch": engine.probabilities}),
            licence=LICENCE,
            origin=ORIGIN,
            details={
                "parameters": sum(v.numel() for k, v in tensors.items() if "running_" not in k),
                "storage": "float16, computed in float32",
                "metrics": metrics,
                "training": {
                    "data": f"{data_name}, train split",
                    "recipe": {"file": "training/train.py"} | progress.recipe,
                    "seed": progress.seed,
                    "hours": round(progress.train_seconds / 3600, 2),  # pauses of the machine included
                    "hardware": ", ".join(progress.hardware),
                    "libraries": {
                        "python": platform.python_version(), "torch": str(torch.__version__),
                        "torchvision": str(torchvision.__version__),
                    },
                },
            },
            reference=split_reference(bundle, test, {"torch": found}, f"{data_name}, test split"),
        )  # fmt: skip
    return stored


def check(stored: float, trained: float, min_accuracy: float) -> None:
    """Raises PromotionError, with the accuracies, when the network is not good enough."""
    if stored < trained - MAX_FLOAT16_LOSS:
        raise PromotionError(f"float16 costs too much: {trained:.2%} became {stored:.2%}")
    if stored < min_accuracy:
        raise PromotionError(f"the accuracy on the test set is {stored:.2%}, the floor is {min_accuracy:.2%}")
