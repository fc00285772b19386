"""A classifier of images in an ONNX file of anyone's: what it takes and gives, and its graph as the service runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.engines.onnx_engine import INPUT, OUTPUT
from service.manifest.reader import MAX_CLASSES, MAX_SIZE_PX
from training.errors import ExportError

BATCH = "N"
CHANNELS = 3
CHANNELS_FIRST, CHANNELS_LAST = (0, 1, 2, 3), (0, 2, 3, 1)  # the service's order, in the network's
OWN_PREFIX = "imported_"  # of names in the file that are the service's
MIN_IR_VERSION = 4  # before it, weights were inputs, too
PRECISIONS: Mapping[int, str] = {
    int(TensorProto.INT8): "int8", int(TensorProto.UINT8): "int8", int(TensorProto.FLOAT16): "float16",
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """What an ONNX file takes and gives, and its graph."""

    model: onnx.ModelProto  # no name in it is one of the service's
    layout: tuple[int, ...]  # CHANNELS_FIRST or CHANNELS_LAST
    size_px: int
    outputs: int  # 0 where the file does not say

    @property
    def precision(self) -> str:
        """Of most of its weights, as model.json names it."""
        sizes: dict[int, int] = {}
        for each in self.model.graph.initializer:
            sizes[each.data_type] = sizes.get(each.data_type, 0) + int(np.prod(each.dims))
        most = max(sizes, key=lambda kind: sizes[kind], default=int(TensorProto.FLOAT))
        return PRECISIONS.get(most, "float32")

    @property
    def depends_on_batch(self) -> bool:
        """Whether it scales its activations by the batch that an image is in."""
        return any(node.op_type == "DynamicQuantizeLinear" for node in self.model.graph.node)


def read_network(file: Path, size_px: int | None) -> Network:
    """The network of a file; `size_px`: of its images, where the file does not fix that. Raises ExportError."""
    model = _load(file)
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    for kind, values, what in (
        ("input", inputs, "images"),
        ("output", list(model.graph.output), "scores (zipmap=False in skl2onnx)"),
    ):
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise ExportError(f"{file} has {len(values)} {kind}s, {names}; export the network with one, of {what}")
        if (dtype := values[0].type.tensor_type.elem_type) != TensorProto.FLOAT:
            name = TensorProto.DataType.Name(dtype).lower()
            raise ExportError(f"the {kind} of {file}, {values[0].name}, is of {name}; export it with one of float32")
    layout, side_px = _input(file, inputs[0], size_px)
    outputs = _shape(model.graph.output[0])
    if len(outputs) != 2 or outputs[1] == 1 or outputs[1] > MAX_CLASSES:
        raise ExportError(
            f"{file} gives {_text(model.graph.output[0])}; it has to be [N, classes], of 2 to {MAX_CLASSES:,} classes"
        )
    _rename(model.graph, {name: OWN_PREFIX + name for name in (INPUT, OUTPUT)})
    return Network(model, layout, side_px, outputs[1])


def _load(file: Path) -> onnx.ModelProto:
    try:
        onnx.checker.check_model(str(file))  # by its path: from memory it takes 2 GB at most
        model = onnx.load(file)
    except OSError as error:
        if not file.exists():
            raise ExportError(f"no file {file}: name an ONNX file") from None
        raise ExportError(f"{file} cannot be read: {error}") from None
    except Exception as error:  # of protobuf and onnx, without a class in common
        if not file.exists():
            raise ExportError(f"no file {file}: name an ONNX file") from None
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{file} is no ONNX file that can be read: {reason}") from None
    if sum(len(each.raw_data) for each in model.graph.initializer) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise ExportError(f"{file} has 2 GB of weights or more, and a model is one ONNX file of less")
    return model


def _input(file: Path, value: onnx.ValueInfoProto, size_px: int | None) -> tuple[tuple[int, ...], int]:
    """The layout and the side of the square. Raises ExportError."""
    shape = _shape(value)
    is_last = len(shape) == 4 and shape[3] == CHANNELS and shape[1] != CHANNELS
    layout = CHANNELS_LAST if is_last else CHANNELS_FIRST
    channels, height, width = (shape[layout.index(axis)] for axis in (1, 2, 3)) if len(shape) == 4 else (-1, 0, 0)
    if channels not in (0, CHANNELS):
        raise ExportError(f"{file} takes {_text(value)}; the service sends images, [N, 3, S, S] or [N, S, S, 3]")
    sides = {side for side in (height, width, size_px) if side}
    if not sides:
        raise ExportError(f"{file} takes {_text(value)}, images of any size; name the side of its training with --size")
    if len(sides) > 1 or max(sides) > MAX_SIZE_PX:
        given = f" and --size is {size_px}" if size_px else ""
        raise ExportError(f"{file} takes {_text(value)}{given}; the service sends squares, of {MAX_SIZE_PX} px at most")
    return layout, sides.pop()


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """Its dimensions, 0 where one is not fixed."""
    return [each.dim_value for each in value.type.tensor_type.shape.dim]


def _text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return f"{value.name} [{', '.join(str(each.dim_value or each.dim_param or '?') for each in dims)}]"


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give other names to what is called so, in the graphs of its nodes, too."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, names)
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    del graph.value_info[:]  # which may have a fixed batch


def wrap(network: Network, outputs: int, *, softmax: bool) -> onnx.ModelProto:
    """The model from the service's input, [N, 3, S, S], to its output, [N, outputs]."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph, size_px = model.graph, network.size_px
    weights = {each.name for each in graph.initializer}
    taken, given = next(each.name for each in graph.input if each.name not in weights), graph.output[0].name
    first = helper.make_node("Transpose", [INPUT], [taken], perm=network.layout)
    last = helper.make_node("Softmax" if softmax else "Identity", [given], [OUTPUT])  # of the last axis
    nodes = [first, *graph.node, last]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, CHANNELS, size_px, size_px]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, outputs]))
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    return model
