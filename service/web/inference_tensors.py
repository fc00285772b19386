"""The tensors of an inference request and its answer, as the Open Inference Protocol has them: JSON, and binary parts.

A model of images takes `image`, BYTES [n]: encoded image files; in JSON, which holds no bytes, as base64. A model of
rows takes `features`, FP32 [n, features]. Both give `probabilities`, FP32 [n, classes], and `label`, BYTES [n].
With the binary tensor extension, bytes follow the JSON, whose length the header Inference-Header-Content-Length says.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from service.errors import BadRequest, Problem, TooLarge, quoted
from service.lifecycle.served_model import ServedModel
from service.schema import MAX_BATCH_IMAGES, Prediction
from service.web.request_parsing import check_structure

HEADER_LENGTH = "Inference-Header-Content-Length"
IMAGE, FEATURES = "image", "features"  # the one input
PROBABILITIES, LABEL = "probabilities", "label"  # the outputs
BYTES, FLOAT = "BYTES", "FP32"
LENGTH = struct.Struct("<I")  # before each element of BYTES
MAX_STRUCTURE = 8 * MAX_BATCH_IMAGES  # brackets, commas and quotes in the long JSON of a batch of images


@dataclass(frozen=True)
class InferenceRequest:
    """What a request asks."""

    id: str | None  # that the answer repeats
    elements: Sequence[Any]  # image files, base64 texts, or rows
    outputs: dict[str, bool]  # name -> whether as a binary part


def input_tensor(model: ServedModel) -> dict[str, Any]:
    """What the model takes, as its metadata say; -1: any number."""
    if model.features:
        return {"name": FEATURES, "datatype": FLOAT, "shape": [-1, len(model.features)]}
    return {"name": IMAGE, "datatype": BYTES, "shape": [-1]}


def output_tensors(model: ServedModel) -> list[dict[str, Any]]:
    """What the model gives."""
    classes = len(model.classifier.classes)
    return [
        {"name": PROBABILITIES, "datatype": FLOAT, "shape": [-1, classes]},
        {"name": LABEL, "datatype": BYTES, "shape": [-1]},
    ]


def read_request(body: bytes, header_length: str | None, model: ServedModel) -> InferenceRequest:
    """The request in a body. Raises Problem."""
    if header_length is not None and not (header_length.isascii() and header_length.isdigit()):
        raise BadRequest(f"{HEADER_LENGTH} is {quoted(header_length)}; send the length of the JSON before the tensors")
    length = len(body) if header_length is None else int(header_length[:9])
    if length > len(body):
        raise BadRequest(f"{HEADER_LENGTH} is {length}, and the body has {len(body)} bytes; send both as they are")
    document, binary = _parsed(body[:length]), memoryview(body)[length:]
    wanted = input_tensor(model)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest(f"inputs has to be a list of one tensor, {_described(wanted)}")
    elements = _elements(inputs[0], wanted, binary)
    identifier = document.get("id")
    if identifier is not None and not (isinstance(identifier, str) and len(identifier) <= 200):
        raise BadRequest(f"id is {quoted(identifier)}; send a text of at most 200 characters, or none")
    return InferenceRequest(identifier, elements, _outputs(document, [each["name"] for each in output_tensors(model)]))


def _parsed(text: bytes) -> dict[str, Any]:
    check_structure(text, MAX_STRUCTURE)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON ({error}); send an object with inputs") from None
    if not isinstance(document, dict):
        raise BadRequest(f"the request is {quoted(document)}; send a JSON object with inputs")
    return document


def _elements(tensor: dict[str, Any], wanted: dict[str, Any], binary: memoryview) -> Sequence[Any]:
    """The tensor's images or rows. Raises Problem for another tensor than the one that is wanted."""
    for key in ("name", "datatype"):
        if tensor.get(key) != wanted[key]:
            raise BadRequest(f"the input's {key} is {quoted(tensor.get(key))}; send {_described(wanted)}")
    shape, width = tensor.get("shape"), math.prod(wanted["shape"][1:])
    if not isinstance(shape, list) or not shape or not all(type(size) is int and 0 < size < 2**31 for size in shape):
        raise BadRequest(f"the input's shape is {quoted(shape)}; send {_described(wanted)}")
    count = shape[0]
    if shape[1:] != wanted["shape"][1:] and (width > 1 or shape != [count, 1]):
        raise BadRequest(f"the input's shape is {quoted(shape)}; send {_described(wanted)}")
    if count > MAX_BATCH_IMAGES:
        raise TooLarge(f"the input's shape is {quoted(shape)}; send at most {MAX_BATCH_IMAGES} in one request")
    if "data" in tensor:
        values = _flat(tensor["data"])
    else:
        values = _from_binary(_binary_part(tensor, binary), wanted["datatype"], count * width)
    if len(values) != count * width:
        raise BadRequest(f"the input has {len(values)} values, and its shape {quoted(shape)} says {count * width}")
    return [values[at : at + width] for at in range(0, len(values), width)] if wanted["name"] == FEATURES else values


def _flat(data: Any) -> list[Any]:
    """The values of JSON's data, which may be nested once."""
    if not isinstance(data, list):
        raise BadRequest(f"the input's data is {quoted(data)}; send a list")
    return [value for row in data for value in (row if isinstance(row, list) else [row])]


def _binary_part(tensor: dict[str, Any], binary: memoryview) -> memoryview:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        raise BadRequest(f"the input has no data; send it as data, or binary with binary_data_size and {HEADER_LENGTH}")
    if size != len(binary):
        raise BadRequest(f"binary_data_size is {quoted(size)}, and {len(binary)} bytes follow the JSON; send as many")
    return binary


def _from_binary(binary: memoryview, datatype: str, count: int) -> list[Any]:
    """The values, of which the shape says how many: of more, no list is made."""
    if datatype == FLOAT:
        if len(binary) != 4 * count:
            raise BadRequest(f"the input has {len(binary)} bytes, and its shape says {4 * count}: 4 of each FP32")
        return np.frombuffer(binary, "<f4").tolist()
    values = list(islice(_byte_elements(binary), count + 1))
    if len(values) > count:
        raise BadRequest(f"the input has more than the {count} elements that its shape says")
    return values


def _byte_elements(binary: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(binary):
        size = LENGTH.unpack_from(binary, at)[0] if at + LENGTH.size <= len(binary) else len(binary)
        at += LENGTH.size
        if at + size > len(binary):
            raise BadRequest("the input's bytes end within an element; send each as its length, 4 bytes, and its bytes")
        yield bytes(binary[at : at + size])
        at += size


def _outputs(document: dict[str, Any], names: list[str]) -> dict[str, bool]:
    """The outputs that are asked for, all by default, and whether each is to be binary."""
    parameters = document.get("parameters")
    by_default = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = document.get("outputs")
    if asked is None or asked == []:
        return dict.fromkeys(names, by_default)
    if not isinstance(asked, list) or not all(isinstance(each, dict) and each.get("name") in names for each in asked):
        raise BadRequest(f"outputs is {quoted(asked)}; send a list of {', '.join(names)}, or none")
    found = {}
    for each in asked:
        own = each["parameters"] if isinstance(each.get("parameters"), dict) else {}
        if "classification" in own:
            raise BadRequest(
                f"the output {each['name']} has classification, which is not done; ask for {PROBABILITIES}"
            )
        found[each["name"]] = own.get("binary_data", by_default) is True
    return found


def _described(wanted: dict[str, Any]) -> str:
    shape = ", ".join("n" if size < 0 else str(size) for size in wanted["shape"])
    return f"{wanted['name']}, {wanted['datatype']} [{shape}]"


def write_answer(
    model: ServedModel, request: InferenceRequest, predictions: list[Prediction]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where binary parts follow."""
    outputs, parts = [], []
    for tensor in output_tensors(model):
        if (is_binary := request.outputs.get(tensor["name"])) is None:
            continue
        values, part = _output(tensor["name"], predictions)
        shape = [len(predictions), *tensor["shape"][1:]]
        data = {"parameters": {"binary_data_size": len(part)}} if is_binary else {"data": values}
        outputs.append(tensor | {"shape": shape} | data)
        parts += [part] * is_binary
    named = {"model_name": model.name, "model_version": model.version}
    document = named | ({"id": request.id} if request.id is not None else {}) | {"outputs": outputs}
    text = json.dumps(document, separators=(",", ":")).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def _output(name: str, predictions: list[Prediction]) -> tuple[list[Any], bytes]:
    """An output's values for JSON, flat, and its bytes."""
    if name == PROBABILITIES:
        values = [value for each in predictions for value in each.probabilities]
        return values, np.array(values, "<f4").tobytes()
    labels = [each.classes[each.class_id] for each in predictions]
    encoded = [label.encode() for label in labels]
    return labels, b"".join(LENGTH.pack(len(text)) + text for text in encoded)


def named_part(number: int, problem: Problem) -> Problem:
    """The problem of one image, which says of which."""
    problem.detail = f"image {number}: {problem.detail}"
    return problem
