"""Fine-tune a network on class folders.

    ./cloudtrial finetune DATA --base efficientnet_lite0 --out runs/mine             # the last layer: minutes
    ./cloudtrial finetune DATA --base efficientnet_lite0 --out runs/mine --unfreeze  # then the whole network

The test images are used once, at the end. What is learnt lies in the run's folder, as run_folder.py says.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from service.manifest.records import ImageInput
from service.model import Bundle
from service.system import cpu_model, usable_cpus
from training.errors import DataError, FolderError, RunError
from training.finetune.curves import draw_curves
from training.finetune.dataset import Dataset, Part, copy_test_images, decode, read_dataset
from training.finetune.head import all_features, train_head
from training.finetune.options import Options, check_same, same_files
from training.finetune.run_folder import (
    CHECKPOINT,
    CURVES,
    HEAD,
    TEST_IMAGES,
    WHOLE,
    Epoch,
    Progress,
    check_replaceable,
    device,
    load_checkpoint,
    read_run,
    save_checkpoint,
    scratch_folder,
    write_run,
)  # fmt: skip
from training.finetune.unfrozen import FINE_LR, SCRATCH_LR, Schedule, predict, train_unfrozen
from training.folders import SPLITS, has_splits
from training.measure import accuracy
from training.networks.bases import RANDOM, Base, build, check_size, find_base, load_weights

SHOWN_FILES = 3
MAX_UNREADABLE = 0.5  # of the files; beyond, something else is wrong


@dataclass(frozen=True)
class Loaded:
    """The decoded images of a data set: uint8 [N, 3, S, S] and labels, for each part."""

    dataset: Dataset
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def image_bundle(base: Base, classes: tuple[str, ...]) -> Bundle:
    """How the service would take the images."""
    taken = ImageInput(base.size_px, base.resize_px, base.mean, base.std)
    return Bundle(folder=Path(), name=base.name, classes=classes, input=taken, engines={}, files={})


def input_of(base: Base) -> dict[str, Any]:
    """The same for model.json."""
    return {
        "kind": "image", "size_px": base.size_px, "resize_px": base.resize_px, "mean": list(base.mean),
        "std": list(base.std),
    }  # fmt: skip


def load(dataset: Dataset, base: Base, scratch: Path, say: Callable[[str], None]) -> Loaded:
    """Decode every image; files that cannot be read are left out, and named. Raises DataError when most cannot."""
    bundle = image_bundle(base, dataset.classes)
    parts: dict[str, tuple[Part, np.ndarray]] = {}
    bad: list[str] = []
    for name in ("train", "validation", "test"):
        part: Part = getattr(dataset, name)
        images, problems = decode(part, bundle, name, scratch)
        bad += [f"{path.name} ({why})" for path, why in zip(part.paths, problems, strict=True) if why]
        good = np.flatnonzero([not why for why in problems])
        for place, index in enumerate(good):  # in place: images may be a file, larger than memory
            if place != index:
                images[place] = images[index]
        parts[name] = (part.take(good), images[: len(good)])
    total = len(dataset.train) + len(dataset.validation) + len(dataset.test)
    if bad:
        shown = "; ".join(bad[:SHOWN_FILES]) + ("; ..." if len(bad) > SHOWN_FILES else "")
        message = f"{len(bad)} of {total} files cannot be read: {shown}"
        if len(bad) > MAX_UNREADABLE * total:
            raise DataError(f"{message}; give PNG, JPEG, WebP, GIF or BMP files")
        say(f"left out: {message}")
    for name in ("train", "validation", "test"):
        counts = np.bincount(parts[name][0].labels, minlength=len(dataset.classes))
        if name == "train" and counts.min() == 0:
            raise DataError(f"no training image of {dataset.classes[counts.argmin()]!r} can be read; mend or delete it")
        if not counts.any():
            raise DataError(f"no {name} image can be read; mend the files")
    learnt = {hashlib.sha256(image).digest() for name in ("train", "validation") for image in parts[name][1]}
    if copies := sum(hashlib.sha256(image).digest() in learnt for image in parts["test"][1]):
        say(f"note: copies of training images among the test images: {copies}; the accuracy is too high")
    clean = replace(dataset, **{name: part for name, (part, _) in parts.items()})
    train, validation, test = ((images, part.labels) for part, images in parts.values())
    return Loaded(clean, train, validation, test)


def normaliser(base: Base, on: torch.device) -> Callable[[Tensor], Tensor]:
    """uint8 [N, 3, S, S] -> the network's input on its device."""
    mean, std = (torch.tensor(values, device=on).view(1, 3, 1, 1) * 255 for values in (base.mean, base.std))
    return lambda batch: ((batch.to(on).float() - mean) / std).contiguous(memory_format=torch.channels_last)


def start_network(options: Options, base: Base, dataset: Dataset) -> tuple[nn.Module, Progress, dict[str, Tensor]]:
    """The network as the options say: from its weights, or from the run's checkpoint. Raises RunError, BaseError."""
    torch.manual_seed(options.seed)
    net = build(base, len(dataset.classes))
    if options.size_px is not None:
        check_size(net, base)
    exists = (options.out / CHECKPOINT).exists()
    if options.resume and not exists:
        raise RunError(f"{options.out / CHECKPOINT} is missing: start without --resume")
    if not exists:
        load_weights(net, base, options.weights)
        return net, Progress(), {}
    check_same(read_run(options.out), options, base, dataset)
    progress, momentum = load_checkpoint(options.out, net)
    if not options.resume and not (options.unfreeze and progress.finished(WHOLE) == 0):
        raise RunError(f"{options.out / CHECKPOINT} exists: add --resume or choose another --out")
    return net, progress, momentum


def check_images(run: dict[str, Any], folder: Path, loaded: Loaded) -> None:
    """Raises DataError when the images are others than the run's."""
    now = (list(loaded.dataset.classes), len(loaded.train[1]) + len(loaded.validation[1]), len(loaded.test[1]))
    then = (run["classes"], run["data"]["train"] + run["data"]["validation"], run["data"]["test"])
    if now != then:
        raise DataError(
            f"{folder} has {now[1]} training and {now[2]} test images of {len(now[0])} classes, the run had {then[1]} "
            f"and {then[2]} of {len(then[0])}; name the same images"
        )
    if not same_files(run, loaded.dataset):
        raise DataError(f"{folder} has other files than those of the run; name the same images")


def finetune(options: Options, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the stages, measure once on the test images; returns what run.json holds. Raises TrainingError."""
    start = time.perf_counter()
    base = find_base(options.base, options.size_px, options.weights)
    dataset = read_dataset(options.data, options.seed)
    roots = [options.data / split for split in SPLITS] if has_splits(options.data) else [options.data]
    if any(options.out.resolve().is_relative_to(root.resolve()) for root in roots):
        raise FolderError(
            f"{options.out} lies in {options.data}, whose folders are classes: name one elsewhere with --out, such as "
            "runs/mine"
        )
    check_replaceable(options.out, test_images=dataset.split_here)
    net, progress, momentum = start_network(options, base, dataset)
    begun = read_run(options.out) if progress.history else None
    history = list(progress.history)
    if begun:
        base = replace(base, origin=begun["weights"], licence=begun["licence"])
    on = device()
    options.out.mkdir(parents=True, exist_ok=True)
    for note in dataset.notes:
        say(f"note: {note}")
    with scratch_folder(options.out) as scratch:
        loaded = load(dataset, base, Path(scratch), say)
        if begun:
            check_images(begun, options.data, loaded)
        run = describe_run(options, base, loaded)
        # Before test/, which it tells from a folder of the user. Earlier figures stay until their network goes.
        write_run(options.out, begun | {"options": run["options"]} if begun else run)
        if dataset.split_here:
            copy_test_images(loaded.dataset, options.data, options.out / TEST_IMAGES)
        say(
            f"{base.name} at {base.size_px} px on {on.type}, weights: {base.origin}; {len(dataset.classes)} classes, "
            f"{len(loaded.train[1])} images to train, {len(loaded.validation[1])} to follow it, "
            f"{len(loaded.test[1])} to test"
        )
        net = net.to(on)
        normalise = normaliser(base, on)

        def record(epoch: Epoch, momentum: dict[str, Tensor]) -> None:
            progress.stage = epoch.stage
            progress.history.append(epoch)
            if epoch.stage == WHOLE:
                write_run(options.out, run)
                save_checkpoint(options.out, net, progress, momentum)
                draw_curves(progress.history, options.out / CURVES)
            say(row(epoch))

        scratch_weights = base.origin == RANDOM
        if not progress.finished(WHOLE) and not progress.finished(HEAD) and not scratch_weights:
            say(HEADING)
            train_frozen(net, base, loaded, normalise, options, record)
            save_checkpoint(options.out, net, progress, {})
            draw_curves(progress.history, options.out / CURVES)
        if options.unfreeze or scratch_weights:
            say(HEADING)
            schedule = Schedule(
                options.epochs, min(options.batch_size, len(loaded.train[1])),
                options.lr or (SCRATCH_LR if scratch_weights else FINE_LR), options.seed,
            )  # fmt: skip
            train_unfrozen(
                net, loaded.train, loaded.validation, normalise, schedule, progress, momentum, on_epoch=record
            )
        probabilities = predict(net, loaded.test[0], normalise, "test")
    if begun and progress.history == history:  # the same network: its ONNX files are still its own
        run |= {name: begun[name] for name in ("exports", "reference") if name in begun}
    run |= {
        "metrics": measure_test(probabilities, loaded.test[1], loaded.dataset.classes),
        "epochs": {stage: progress.finished(stage) for stage in (HEAD, WHOLE)},
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "training_minutes": round(progress.minutes(HEAD) + progress.minutes(WHOLE), 2),
    }
    write_run(options.out, run)
    say(result_line(run))
    return run


HEADING = "stage  epoch  train loss  validation loss  validation accuracy  minutes"


def row(epoch: Epoch) -> str:
    """A line of the table on the terminal."""
    return (
        f"{epoch.stage:<5}  {epoch.epoch:5d}  {epoch.train_loss:10.4f}  {epoch.validation_loss:15.4f}  "
        f"{epoch.validation_accuracy:19.2%}  {epoch.minutes:7.1f}"
    )


def train_frozen(
    net: nn.Module, base: Base, loaded: Loaded, normalise: Callable[[Tensor], Tensor], options: Options,
    record: Callable[[Epoch, dict[str, Tensor]], None],
) -> None:  # fmt: skip
    """The last layer on frozen features."""
    rows = [
        (all_features(net, base, images, normalise, f"features, {title}"), torch.from_numpy(labels))
        for title, (images, labels) in (("training", loaded.train), ("validation", loaded.validation))
    ]
    train_head(
        net, base, *rows, classes=len(loaded.dataset.classes), seed=options.seed,
        on_epoch=lambda epoch: record(epoch, {}),
    )  # fmt: skip


def describe_run(options: Options, base: Base, loaded: Loaded) -> dict[str, Any]:
    """What made the network, for run.json and later for model.json."""
    return {
        "kind": "image",
        "base": base.name,
        "weights": base.origin,
        "licence": base.licence,
        "classes": list(loaded.dataset.classes),
        "input": input_of(base),
        "data": {
            "folder": str(options.data.resolve()), "name": loaded.dataset.name, "seed": options.seed,
            "split_here": loaded.dataset.split_here, "train": len(loaded.train[1]),
            "validation": len(loaded.validation[1]), "test": len(loaded.test[1]), "notes": list(loaded.dataset.notes),
            "names_sha256": loaded.dataset.names_sha256,
        },
        "seed": options.seed,
        "options": {k: v for k, v in asdict(options).items() if k in ("unfreeze", "epochs", "batch_size", "lr")},
        "hardware": hardware(),
        "libraries": libraries(),
    }  # fmt: skip


def libraries() -> dict[str, str]:
    """Versions; torchvision's where it is installed."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    with suppress(PackageNotFoundError):
        versions["torchvision"] = version("torchvision")
    return versions


def hardware() -> str:
    """What the network is trained on."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"{usable_cpus()} cores of {cpu_model()}"


def measure_test(probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Top-1 and top-5 with the interval of the former, and the recall of every class that has test images."""
    predicted = probabilities.argmax(1)
    result = accuracy(probabilities, labels)
    if len(classes) > 5:
        top5 = np.argsort(probabilities, axis=1)[:, -5:]
        result["top5_accuracy"] = round(float((top5 == labels[:, None]).any(1).mean()), 5)
    recall = {
        name: round(float((predicted[labels == label] == label).mean()), 4)
        for label, name in enumerate(classes)
        if (labels == label).any()
    }
    result["majority"] = round(float(np.bincount(labels).max() / len(labels)), 5)
    result["balanced_accuracy"] = round(float(np.mean(list(recall.values()))), 5)
    return result | {"recall": recall}


def result_line(run: dict[str, Any]) -> str:
    """What a run ends with on the terminal."""
    metrics = run["metrics"]
    top5 = f", top-5 {metrics['top5_accuracy']:.2%}" if "top5_accuracy" in metrics else ""
    worst = min(metrics["recall"], key=metrics["recall"].__getitem__)
    return (
        f"test: {metrics['accuracy']:.2%} ({metrics['low']:.2%} to {metrics['high']:.2%}) of {metrics['n']}{top5}; "
        f"worst class: {worst}, {metrics['recall'][worst]:.2%}; {run['minutes']:.1f} minutes"
    )
