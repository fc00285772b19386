"""Turn a finished training run into the model bundle that the service ships.

    ./cloudtrial promote runs/resnet18 --data data

Halves the weights' storage to float16, measures the bundle on the whole test set through the service's own engine,
and writes weights.safetensors and model.json. Refuses a bundle that loses accuracy in float16, or whose accuracy is
too low. ONNX files of earlier weights are deleted: training/export.py writes them again.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

from service.engines.resnet import ARCHITECTURE
from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.model import MODEL_JSON, load_bundle, sha256
from service.system import cpu_model
from training import train
from training.bundles.manifest import check_replaceable
from training.bundles.reference import add_reference
from training.data import CLASSES, SIZE_PX, Split
from training.defaults import CIFAR_MEAN, CIFAR_STD, NAME, RUN_JSON
from training.errors import PromotionError
from training.measure import accuracy, predict, split_reference

MAX_FLOAT16_LOSS = 0.0005  # of accuracy, from storage in float16


def read_run(run: Path) -> tuple[dict[str, torch.Tensor], train.Progress]:
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


def write_bundle(folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Write the weights, and model.json with their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone; the service runs as another user
    manifest = {
        "name": NAME,
        "architecture": ARCHITECTURE,
        "classes": list(CLASSES),
        "input": {"size_px": SIZE_PX, "mean": list(CIFAR_MEAN), "std": list(CIFAR_STD)},
        "files": {WEIGHTS: sha256(folder / WEIGHTS)},
        **metadata,
    }
    (folder / MODEL_JSON).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def answers(folder: Path, test: Split) -> np.ndarray:
    """A bundle's probabilities for the test set."""
    bundle = load_bundle(folder)
    engine = TorchEngine(bundle, "float32")  # on any processor
    return predict(engine.probabilities, bundle, test, "test set")


def promote(run: Path, folder: Path, test: Split, data_name: str, *, min_accuracy: float) -> dict[str, Any]:
    """Measure a run's network as trained and as stored, and write the bundle. Returns the latter's accuracy."""
    check_replaceable(folder)
    tensors, progress = read_run(run)
    with tempfile.TemporaryDirectory() as scratch:
        write_bundle(Path(scratch), tensors, {})
        trained = accuracy(answers(Path(scratch), test), test.labels)
        halves = {k: v.half() for k, v in tensors.items()}
        write_bundle(Path(scratch), halves, {})
        found = answers(Path(scratch), test)
        stored = accuracy(found, test.labels)
    if stored["accuracy"] < trained["accuracy"] - MAX_FLOAT16_LOSS:
        raise PromotionError(f"float16 costs too much: {trained['accuracy']:.2%} became {stored['accuracy']:.2%}")
    if stored["accuracy"] < min_accuracy:
        raise PromotionError(
            f"the accuracy on the test set is {stored['accuracy']:.2%}, the floor is {min_accuracy:.2%}"
        )
    metadata = {
        "parameters": sum(v.numel() for k, v in tensors.items() if "running_" not in k),
        "storage": "float16, computed in float32",
        "metrics": {"test": {**stored, "data": f"{data_name}, test split", "float32_accuracy": trained["accuracy"]}},
        "training": {
            "data": f"{data_name}, train split",
            "recipe": {"file": "training/train.py"} | progress.recipe,
            "seed": progress.seed,
            "epochs": progress.epoch,
            "hardware": f"{os.cpu_count()} cores of {cpu_model()}",
            "duration_s": round(progress.train_seconds),
            "libraries": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "torchvision": str(torchvision.__version__),
            },
        },
    }
    write_bundle(folder, halves, metadata)
    add_reference(folder, split_reference(load_bundle(folder), test, {"torch": found}, f"{data_name}, test split"))
    for stale in folder.glob("*.onnx"):
        stale.unlink()
    return stored
