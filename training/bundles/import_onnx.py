"""A trained network of anyone's, in an ONNX file, as a bundle.

    ./cloudtrial import mine.onnx --images photos --bundle models/mine

The file's own graph is kept. Around it goes what the service expects: images [N, 3, S, S] in, probabilities out. It is
measured on labelled images as the service decodes them, because only that shows that size, mean, deviation and the
order of the classes are those that the network was trained with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.compose import add_prefix

from service.engines.onnx_engine import INPUT, OUTPUT
from service.errors import BundleError
from service.manifest.reader import NAME, is_name
from training.bundles.from_run import network_inputs
from training.bundles.manifest import EngineSource, check_replaceable, write_bundle
from training.bundles.onnx_export import run_onnx
from training.bundles.reference import measured, reference_of
from training.bundles.self_test import image_self_test
from training.errors import DataError, ExportError, PromotionError
from training.finetune.dataset import Part, decode
from training.finetune.run import image_bundle, input_of
from training.folders import class_folders, has_splits
from training.measure import accuracy
from training.networks.bases import Base

FILE = "model.onnx"
PREFIX = "imported/"  # of all names in the file, so that none is one of the service's
BATCH = "N"
CHANNELS = 3
MAX_BATCH_DIFFERENCE = 1e-3  # of a probability, between an image alone and in a batch
MAX_SUM_DIFFERENCE = 1e-2  # of an image's probabilities, from 1
PRECISIONS: Mapping[int, str] = {
    int(TensorProto.INT8): "int8", int(TensorProto.UINT8): "int8", int(TensorProto.FLOAT16): "float16",
}  # fmt: skip
NCHW, NHWC = "channels first", "channels last"


@dataclass(frozen=True)
class Network:
    """What an ONNX file takes and gives, and its graph."""

    model: onnx.ModelProto  # every name has PREFIX
    layout: str  # NCHW or NHWC
    size_px: int
    outputs: int

    @property
    def precision(self) -> str:
        """Of most of its weights, as model.json names it."""
        sizes: dict[int, int] = {}
        for each in self.model.graph.initializer:
            sizes[each.data_type] = sizes.get(each.data_type, 0) + int(np.prod(each.dims))
        most = max(sizes, key=lambda kind: sizes[kind], default=int(TensorProto.FLOAT))
        return PRECISIONS.get(most, "float32")


def import_onnx(
    file: Path,
    images: Path,
    folder: Path,
    *,
    class_file: Path | None,
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
    network = read_network(file)
    size_px = network.size_px
    if resize_px is not None and resize_px < size_px:
        raise ExportError(f"--resize {resize_px} is below the {size_px} pixels that {file} takes; give more, or none")
    origin = f"Imported from {file.name} by ./cloudtrial import."
    base = Base(file.stem, size_px, resize_px or size_px, mean, std, licence, origin)
    classes, part = read_images(images, class_file, network.outputs)
    bundle = image_bundle(base, classes)
    with tempfile.TemporaryDirectory() as scratch:
        pixels, problems = decode(part, bundle, "images", Path(scratch))
        if bad := [f"{path} ({why})" for path, why in zip(part.paths, problems, strict=True) if why]:
            raise DataError(f"{len(bad)} of {len(part)} files cannot be read, the first is {bad[0]}; delete them")
        inputs = network_inputs(pixels, base, Path(scratch) / "inputs.npy")
        path = Path(scratch) / FILE
        found = run_network(network, path, inputs, file)
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


def read_network(file: Path) -> Network:
    """The graph of an ONNX file, and what it takes. Raises ExportError where the service could not run it."""
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ExportError(f"no file {error.filename or file}: name an ONNX file") from None
    except OSError:
        raise
    except Exception as error:  # of protobuf and onnx, without a class in common
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{file} is no ONNX file that can be read: {reason}") from None
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    ends = {"input": inputs, "output": list(model.graph.output)}
    for kind, values in ends.items():
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise ExportError(f"{file} has {len(values)} {kind}s, {names}; export the network with one, of images")
    taken, given = _shape(inputs[0]), _shape(model.graph.output[0])
    for kind, values in ends.items():
        if values[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            dtype = TensorProto.DataType.Name(values[0].type.tensor_type.elem_type).lower()
            raise ExportError(f"the {kind} of {file}, {values[0].name}, is of {dtype}; export it with one of float32")
    layout = NHWC if len(taken) == 4 and taken[3] == CHANNELS and taken[1] != CHANNELS else NCHW
    channels, height, width = (
        (taken[3], *taken[1:3]) if layout == NHWC else (taken[1:4] if len(taken) == 4 else (0, 0, 0))
    )
    if channels != CHANNELS or not height or height != width:
        shown = _text(inputs[0])
        raise ExportError(
            f"{file} takes {shown}; the service sends squares of a fixed size, [N, 3, S, S] or [N, S, S, 3]"
        )
    if len(given) != 2 or given[1] < 2:
        raise ExportError(
            f"{file} gives {_text(model.graph.output[0])}; it has to be [N, classes], of two classes or more"
        )
    return Network(add_prefix(model, PREFIX), layout, height, given[1])


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Its dimensions, 0 where one is not fixed."""
    return [each.dim_value for each in value.type.tensor_type.shape.dim]


def _text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return f"{value.name} [{', '.join(str(each.dim_value or each.dim_param or '?') for each in dims)}]"


def read_images(images: Path, class_file: Path | None, outputs: int) -> tuple[tuple[str, ...], Part]:
    """The classes in the order of the network's outputs, and the images of those that have a folder."""
    files = class_folders(images / "test" if has_splits(images) else images)
    if class_file is None:
        classes, where = tuple(files), f"{images} has {len(files)} class folders"
    else:
        classes = tuple(
            line.strip() for line in class_file.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        )
        where = f"{class_file} names {len(classes)} classes"
    if len(classes) != outputs:
        raise DataError(f"{where}, and the network has {outputs}; --classes FILE names them, one a line, in its order")
    if wrong := [name for name in classes if not is_name(name)]:
        raise DataError(f"a class is called {wrong[0]!r}; a name has to be {NAME}")
    if len(set(classes)) < len(classes):
        raise DataError(f"{class_file} names a class twice")
    if unknown := [name for name in files if name not in classes]:
        raise DataError(f"{images} has the folder {unknown[0]!r}, and {class_file} no such class; rename one of them")
    pairs = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    return classes, Part(tuple(path for path, _ in pairs), np.array([label for _, label in pairs], np.int64))


def run_network(network: Network, path: Path, inputs: np.ndarray, file: Path) -> np.ndarray:
    """Write the network as the service runs it; returns its probabilities. Raises ExportError."""
    try:
        onnx.save(with_ends(network, softmax=False), path)
        found = run_onnx(path, inputs)
        if not are_probabilities(found):
            onnx.save(with_ends(network, softmax=True), path)
            found = run_onnx(path, inputs)
        alone = run_onnx(path, inputs[:1])
    except BundleError as error:
        raise ExportError(f"ONNX Runtime cannot load {file}: {error}") from None
    except ValueError as error:  # protobuf's limit of 2 GB
        raise ExportError(f"{file} cannot be written as one file: {error}") from None
    except Exception as error:  # ONNX Runtime's own have no class in common
        reason = " ".join(str(error).split())
        raise ExportError(
            f"{file} cannot run a batch of images ({reason}); export it with a first dimension that is not fixed: "
            "dynamic_shapes of torch.onnx.export"
        ) from None
    if found.shape != (len(inputs), network.outputs) or np.abs(alone[0] - found[0]).max() > MAX_BATCH_DIFFERENCE:
        raise ExportError(
            f"{file} answers otherwise for an image in a batch than alone; export it in evaluation mode, with a first "
            "dimension that is not fixed"
        )
    if not np.isfinite(found).all():
        raise ExportError(f"{file} gives numbers that are not finite; does it take pixels of another scale (--std)?")
    return found


def are_probabilities(found: np.ndarray) -> bool:
    """Whether each row is of numbers from 0 to 1 whose sum is 1."""
    return bool((found >= 0).all() and np.abs(found.sum(1) - 1).max() <= MAX_SUM_DIFFERENCE)


def with_ends(network: Network, *, softmax: bool) -> onnx.ModelProto:
    """The model from the service's input to its output."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph, size_px = model.graph, network.size_px
    weights = {each.name for each in graph.initializer}
    taken, given = next(each.name for each in graph.input if each.name not in weights), graph.output[0].name
    order = [0, 2, 3, 1] if network.layout == NHWC else [0, 1, 2, 3]
    first = helper.make_node("Transpose", [INPUT], [taken], perm=order)
    last = helper.make_node("Softmax" if softmax else "Identity", [given], [OUTPUT])  # of the last axis
    nodes = [first, *graph.node, last]
    model.ir_version = max(model.ir_version, 4)  # before it, weights were inputs, too
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]  # which may have a fixed batch
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, CHANNELS, size_px, size_px]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, network.outputs]))
    return model


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
