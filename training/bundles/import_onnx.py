"""A trained network of anyone's, in an ONNX file, as a bundle.

    ./cloudtrial import mine.onnx --images photos --bundle models/mine

The file's own graph is kept. Around it goes what the service expects: images [N, 3, S, S] in, probabilities out. It is
measured on labelled images as the service decodes them, because only that shows that size, mean, deviation and the
order of the classes are those that the network was trained with.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from service.errors import BundleError
from service.manifest.reader import NAME, is_name
from training.bundles.from_run import network_inputs
from training.bundles.manifest import EngineSource, check_replaceable, write_bundle
from training.bundles.onnx_export import run_onnx
from training.bundles.onnx_file import Network, read_network, wrap
from training.bundles.reference import measured, reference_of
from training.bundles.self_test import image_self_test
from training.errors import DataError, ExportError, FolderError, PromotionError
from training.finetune.dataset import Part, decode
from training.finetune.run import image_bundle, input_of
from training.folders import class_folders
from training.measure import accuracy
from training.networks.bases import Base

FILE = "model.onnx"
MAX_BATCH_DIFFERENCE = 1e-3  # of a probability, between an image alone and in a batch
MAX_SUM_DIFFERENCE = 1e-2  # of an image's probabilities, from 1
BATCH_HINT = "export it with a first dimension that is not fixed, such as by dynamic_shapes of torch.onnx.export"


def import_onnx(
    file: Path,
    images: Path,
    folder: Path,
    *,
    class_file: Path | None,
    size_px: int | None,
    resize_px: int | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    licence: str,
    floor: float | None,
) -> dict[str, Any]:
    """Write the bundle; returns the accuracy on the images, with its interval. Raises TrainingError.

    `images`: CLASS/* or test/CLASS/*; `class_file`: names in the order of the network's outputs, without it the
    folders' names in theirs; `floor`: lowest accuracy to accept, without it what the most frequent class reaches.
    """
    check_replaceable(folder)
    if file.resolve().is_relative_to(folder.resolve()):
        raise FolderError(f"{file} lies in {folder}, which is replaced: move it elsewhere, or name another --bundle")
    network = read_network(file, size_px)
    side_px = network.size_px
    if resize_px is not None and resize_px < side_px:
        raise ExportError(f"--resize {resize_px} is below the {side_px} pixels that {file} takes; give more, or none")
    origin = f"Imported from {file.name} by ./cloudtrial import."
    base = Base(file.stem, side_px, resize_px or side_px, mean, std, licence, origin)
    classes, part = read_images(images, class_file, network.outputs)
    bundle = image_bundle(base, classes)
    with tempfile.TemporaryDirectory() as scratch:
        pixels, problems = decode(part, bundle, "images", Path(scratch))
        if bad := [f"{path} ({why})" for path, why in zip(part.paths, problems, strict=True) if why]:
            raise DataError(f"{len(bad)} of {len(part)} files cannot be read, the first is {bad[0]}; delete them")
        inputs = network_inputs(pixels, base, Path(scratch) / "inputs.npy")
        path = Path(scratch) / FILE
        found = run_network(network, len(classes), path, inputs, file)
        score = accuracy(found, part.labels)
        check_score(score, part.labels, floor)
        test = image_self_test(bundle, {"onnx": lambda taken: run_onnx(path, taken)})
        data = f"{len(part)} images of {images.name}"
        write_bundle(
            folder, classes, input_of(base), {"onnx": EngineSource(path, FILE, network.precision)}, test,
            licence=licence, origin=origin,
            details={"storage": network.precision, "metrics": {"test": score | {"data": data}}},
            reference=reference_of(
                bundle.image, measured(inputs, bundle.image), {"onnx": found}, part.labels, data
            ),
        )  # fmt: skip
    return score


def read_images(images: Path, class_file: Path | None, outputs: int) -> tuple[tuple[str, ...], Part]:
    """The classes in the order of the network's outputs, and the images of those that have a folder.

    `outputs`: how many the network has; 0 where that is not known. Raises DataError.
    """
    files = class_folders(images / "test" if (images / "test").is_dir() else images)
    classes = tuple(files) if class_file is None else read_class_names(class_file)
    if outputs and len(classes) != outputs:
        where = (
            f"{images} has {len(files)} class folders"
            if class_file is None
            else f"{class_file} has {len(classes)} names"
        )
        raise DataError(f"{where}, and the network has {outputs}; --classes FILE names them, one a line, in its order")
    if wrong := [name for name in classes if not is_name(name)]:
        raise DataError(f"a class is called {wrong[0]!r}; a name has to be {NAME}")
    if unknown := [name for name in files if name not in classes]:
        raise DataError(f"{images} has the folder {unknown[0]!r}, and {class_file} no such class; rename one of them")
    pairs = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    return classes, Part(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], np.int64))


def read_class_names(path: Path) -> tuple[str, ...]:
    """One name a line. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"no file {path}; name one with a class on each line") from None
    except UnicodeError:
        raise DataError(f"{path} is no text in UTF-8; save it so") from None
    names = tuple(name for line in lines if (name := line.strip()))
    if double := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path} names the class {double[0]!r} twice; each needs a name of its own")
    return names


def run_network(network: Network, outputs: int, path: Path, inputs: np.ndarray, file: Path) -> np.ndarray:
    """Write the network as the service runs it; returns its probabilities. Raises ExportError."""
    onnx.save(wrap(network, outputs, softmax=False), path)
    found = _answers(path, inputs, outputs, file)
    if not np.isfinite(found).all():
        raise ExportError(f"{file} gives numbers that are not finite; does it take pixels of another scale (--std)?")
    if not are_probabilities(found):
        onnx.save(wrap(network, outputs, softmax=True), path)
        found = _answers(path, inputs, outputs, file)
    alone = _answers(path, inputs[:1], outputs, file)
    if np.abs(alone[0] - found[0]).max() > MAX_BATCH_DIFFERENCE:
        cure = "export it in evaluation mode"
        if network.depends_on_batch:
            cure = "its 8-bit scales depend on the batch; quantise it statically, or import it in float32"
        raise ExportError(f"{file} answers otherwise for an image in a batch than alone; {cure}")
    return found


def _answers(path: Path, inputs: np.ndarray, outputs: int, file: Path) -> np.ndarray:
    try:
        found = run_onnx(path, inputs)
    except BundleError as error:
        reason = str(error).removeprefix(f"{path} ").removesuffix("; make export writes it again")
        raise ExportError(f"{file} {reason}") from None
    except OSError:
        raise
    except Exception as error:  # ONNX Runtime's own have no class in common
        reason = " ".join(str(error).split())
        raise ExportError(f"{file} cannot run a batch of images ({reason}); {BATCH_HINT}") from None
    if found.shape != (len(inputs), outputs):
        shape = list(found.shape)
        raise ExportError(f"{file} gives {shape} for {len(inputs)} images of {outputs} classes; {BATCH_HINT}")
    return found


def are_probabilities(found: np.ndarray) -> bool:
    """Whether each row is of numbers from 0 to 1 whose sum is 1."""
    return bool((found >= 0).all() and np.abs(found.sum(1) - 1).max() <= MAX_SUM_DIFFERENCE)


def check_score(score: dict[str, Any], labels: np.ndarray, floor: float | None) -> None:
    """Raises PromotionError when the network is not good enough."""
    majority = float(np.bincount(labels).max() / len(labels))
    if floor is None and score["accuracy"] <= majority:
        raise PromotionError(
            f"it is right on {score['accuracy']:.1%} of {score['n']} images, and always answering the most frequent "
            f"class on {majority:.1%}: are --mean, --std, --resize and the order of the classes those of its training?"
        )
    if floor is not None and score["accuracy"] < floor:
        raise PromotionError(
            f"it is right on {score['accuracy']:.1%} of {score['n']} images, below the floor, {floor:.1%}"
        )
