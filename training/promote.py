"""Turn a finished training run into the model bundle that the service ships.

    ./cloudtrial promote runs/resnet18 --data data

Halves the weights' storage to float16, measures the bundle on the whole test set through the service's own engine,
and writes weights.safetensors and model.json. Refuses a bundle that float16 made worse, or that is under the floor.
What was exported from earlier weights is deleted: training/export.py writes it again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file, save_file

from service.engines.torch_engine import WEIGHTS, TorchEngine
from service.machine import cpu_model
from service.model import MODEL_JSON, load_bundle, sha256
from service.network import ARCHITECTURE
from training import train
from training.data import CLASSES, SIZE_PX, DataError, Split, load_split
from training.measure import accuracy, answers

NAME = "resnet18-cifar10"
BUNDLE = Path(__file__).resolve().parent.parent / "models" / NAME
FLOOR = 0.930  # of the test set; a network below it is not shipped
FLOAT16_LOSS = 0.0005  # accuracy that float16 storage may cost


class PromotionError(Exception):
    """The run is not finished, or its network is not good enough."""


def read_result(run: Path) -> tuple[dict[str, torch.Tensor], train.Progress]:
    """The resulting network's tensors and how far training had come. Raises PromotionError when it is not finished."""
    checkpoint = run / train.CHECKPOINT
    if not checkpoint.exists():
        raise PromotionError(f"no {checkpoint}; name the --out folder of training.train")
    progress = train.read_progress(checkpoint)
    if progress.epoch < train.EPOCHS:
        raise PromotionError(f"{run} has {progress.epoch} of {train.EPOCHS} epochs; train with --resume first")
    if not (run / train.NETWORK).exists():
        raise PromotionError(f"no {run / train.NETWORK}, which training ends with; train with --resume first")
    tensors = load_file(run / train.NETWORK)
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}, progress


def write_bundle(folder: Path, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write the weights and the model.json that vouches for them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone; the service runs as another user
    manifest = {
        "name": NAME,
        "architecture": ARCHITECTURE,
        "classes": list(CLASSES),
        "input": {"size_px": SIZE_PX, "mean": list(train.MEAN), "std": list(train.STD)},
        "files": {WEIGHTS: sha256(folder / WEIGHTS)},
        **facts,
    }
    (folder / MODEL_JSON).write_text(json.dumps(manifest, indent=2) + "\n")


def measure(folder: Path, test: Split) -> dict[str, Any]:
    """Top-1 accuracy of a bundle with its Wilson 95% interval."""
    bundle = load_bundle(folder)
    engine = TorchEngine(bundle, "float32")  # on any processor
    return accuracy(answers(engine.probabilities, bundle, test, "test set"), test.labels)


def recipe() -> dict[str, Any]:
    """The constants of training/train.py that made the network."""
    names = (
        "STAGES", "BATCH_SIZE", "FILTER_LR", "FILTER_MOMENTUM", "RATE_KNOTS", "OTHER_LR", "OTHER_MOMENTUM",
        "OTHER_WEIGHT_DECAY", "LABEL_SMOOTHING", "AVERAGE_STEPS", "CYCLE_ENDS", "ALIKE",
        "SETTLE_PICTURES",
    )  # fmt: skip
    return {"file": "training/train.py"} | {name.lower(): getattr(train, name) for name in names}


def promote(run: Path, folder: Path, test: Split, data: str, *, floor: float) -> dict[str, Any]:
    """Measure a run's network as trained and as stored, and write the bundle. Returns the stored one's figures."""
    tensors, progress = read_result(run)
    with tempfile.TemporaryDirectory() as scratch:
        write_bundle(Path(scratch), tensors, {})
        trained = measure(Path(scratch), test)
        halves = {k: v.half() for k, v in tensors.items()}
        write_bundle(Path(scratch), halves, {})
        stored = measure(Path(scratch), test)
    if stored["accuracy"] < trained["accuracy"] - FLOAT16_LOSS:
        raise PromotionError(f"float16 costs too much: {trained['accuracy']:.2%} became {stored['accuracy']:.2%}")
    if stored["accuracy"] < floor:
        raise PromotionError(f"{stored['accuracy']:.2%} of the test set is right, the floor is {floor:.2%}")
    facts = {
        "parameters": sum(v.numel() for k, v in tensors.items() if "running_" not in k),
        "storage": "float16, computed in float32",
        "metrics": {"test": {**stored, "data": f"{data}, test split", "float32_accuracy": trained["accuracy"]}},
        "training": {
            "data": f"{data}, train split",
            "recipe": recipe(),
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
    write_bundle(folder, halves, facts)
    for stale in folder.glob("*.onnx"):
        stale.unlink()
    return stored


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial promote", description="Turn a finished training run into the model bundle."
    )
    parser.add_argument("run", type=Path, help="the --out folder of ./cloudtrial train")
    parser.add_argument("--data", type=Path, help="class folders; else CIFAR-10 is downloaded")
    parser.add_argument("--data-name", help="what the pictures are, for model.json; default: what the loader says")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"folder to write (default: {BUNDLE})")
    parser.add_argument("--floor", type=float, default=FLOOR, help=f"least accuracy to accept (default: {FLOOR})")
    args = parser.parse_args()
    try:
        test = load_split(args.data, train=False)
        stored = promote(args.run, args.bundle, test, args.data_name or test.source, floor=args.floor)
    except (DataError, PromotionError) as error:
        raise SystemExit(f"promote: {error}") from None
    print(f"{args.bundle}: {stored['accuracy']:.2%} ({stored['low']:.2%} to {stored['high']:.2%}) of {stored['n']}")
    print("It has no ONNX files: write them with `make export`, and the golden set with `make golden`.")


if __name__ == "__main__":
    main()
