"""The tensors of a file that torch.save wrote, without unpickling it.

Such a file describes its tensors in a pickle, which could run any code when it is loaded. Here pickletools lists the
description's opcodes, which runs nothing, and what they say of names and shapes is checked against the sizes of the raw
numbers that follow. What a plain state dict does not need is refused.
"""

from __future__ import annotations

import pickletools
import zipfile
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from training.errors import BaseError

DTYPES = {
    "FloatStorage": np.float32, "HalfStorage": np.float16, "DoubleStorage": np.float64,
    "LongStorage": np.int64, "IntStorage": np.int32,
}  # fmt: skip
HEADER_PICKLES = 3  # of the older format: magic number, version, sizes of types
IGNORED = ("PROTO", "FRAME", "STOP", "BUILD", "MEMOIZE")
PUT, GET = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
EMPTY = {"EMPTY_TUPLE": (), "EMPTY_DICT": {}, "EMPTY_LIST": [], "NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MARK = object()


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's numbers are."""

    storage: str
    dtype: type
    count: int  # of the storage's numbers
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a state dict, by name. Raises BaseError when the file holds anything else."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (listing,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
                tensors = _state_dict(BytesIO(archive.read(listing)))
                folder = listing.removesuffix("data.pkl")
                storages = {each.storage: archive.read(f"{folder}data/{each.storage}") for each in tensors.values()}
        else:
            with path.open("rb") as file:
                for _ in range(HEADER_PICKLES):
                    _values(file)
                tensors = _state_dict(file)
                storages = _older_storages(file, {each.storage: each for each in tensors.values()})
        return {name: _tensor(each, storages[each.storage]) for name, each in tensors.items()}
    except (ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise BaseError(f"{path} is not a plain state dict of torch.save: {error}; use a .safetensors file") from None


def _older_storages(file: BinaryIO, stored: dict[str, StoredTensor]) -> dict[str, bytes]:
    """The storages of the older format: a list of their names, then for each its length and its numbers."""
    storages = {}
    for name in _values(file)[-1]:
        count = int.from_bytes(file.read(8), "little")
        storages[name] = file.read(count * np.dtype(stored[name].dtype).itemsize)
    return storages


def _tensor(stored: StoredTensor, data: bytes) -> Tensor:
    numbers = np.frombuffer(data, stored.dtype)
    if len(numbers) != stored.count:
        raise ValueError(f"a storage has {len(numbers)} numbers of {stored.count}")
    last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.strides, strict=True))
    if prod(stored.shape) and not 0 <= stored.offset <= last < stored.count:
        raise ValueError("a tensor reaches beyond its storage")
    return torch.from_numpy(numbers.copy()).as_strided(stored.shape, stored.strides, stored.offset).clone()


def _state_dict(file: BinaryIO) -> dict[str, StoredTensor]:
    found = _values(file)[-1]
    return {name: value for name, value in found.items() if isinstance(value, StoredTensor)}


def _values(file: BinaryIO) -> list[Any]:
    """What the opcodes of one pickle describe: the stack at its end. Nothing is imported or called."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        index = len(stack) - 1 - stack[::-1].index(MARK)
        items = stack[index + 1 :]
        del stack[index:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in IGNORED:
            if name == "BUILD":  # the version of each module
                stack.pop()
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
        elif name in PUT:
            memo[argument] = stack[-1]
        elif name in GET:
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(MARK)
        elif name in EMPTY:
            value = EMPTY[name]
            stack.append(value.copy() if isinstance(value, dict | list) else value)
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "APPENDS":
            items = above_mark()
            stack[-1].extend(items)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].append(item)
        elif name == "SETITEMS":
            items = above_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "SETITEM":
            key, value = stack[-2:]
            del stack[-2:]
            stack[-1][key] = value
        elif name == "BINPERSID":
            stack.append(("storage", *stack.pop()[1:]))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        elif name == "GLOBAL" or argument is not None:
            stack.append(argument)
        else:
            raise ValueError(f"it has the opcode {name}")
    return stack


def _called(function: str, arguments: tuple[Any, ...]) -> Any:
    """What a call in a description stands for."""
    match function:
        case "collections OrderedDict":
            return {}
        case "torch._utils _rebuild_tensor_v2":
            (_, kind, storage, _, count, *_), offset, shape, strides, *_ = arguments
            dtype = DTYPES[str(kind).removeprefix("torch ")]
            return StoredTensor(str(storage), dtype, int(count), int(offset), tuple(shape), tuple(strides))
        case "torch._utils _rebuild_parameter":
            return arguments[0]
    raise ValueError(f"it calls {function}")
