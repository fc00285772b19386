"""A model bundle: the folder with model.json and the weights that it names.

`model.json` holds name, architecture, classes, input (size_px, mean, std), and under `files` the sha256 of
every other file. What is used is checked first. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import BundleError

MODEL_JSON = "model.json"
VERSION_DIGITS = 12
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_CLASSES = 10_000
MAX_NAME_CHARACTERS = 100
MAX_SIZE_PX = 1024
CHANNELS = 3
# Engine -> the one of the bundle's files that it runs, as ENGINE names it; whoever ships an engine ships that file
WEIGHTS_OF = {"torch": "weights.safetensors", "onnx": "int8.onnx"}


@dataclass(frozen=True)
class Bundle:
    """A checked model bundle."""

    folder: Path
    name: str  # "resnet18-cifar10"
    architecture: str  # "resnet18-cifar"
    classes: tuple[str, ...]  # in the order of the network's outputs
    size_px: int  # side of the square input
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]
    files: dict[str, str]  # file name -> sha256, hex

    def path(self, name: str) -> Path:
        """A file of the bundle. Raises BundleError when model.json does not list it."""
        if name not in self.files:
            raise BundleError(
                f"{self.folder / MODEL_JSON} lists no file {name!r}, only {sorted(self.files)}; "
                "fetch the bundle again, or have make export write what is missing"
            )
        return self.folder / name

    def version(self, name: str) -> str:
        """The short form of a file's checksum: the version of the model that it is."""
        self.path(name)
        return self.files[name][:VERSION_DIGITS]


def load_bundle(folder: Path, needed: Iterable[str] | None = None) -> Bundle:
    """Read model.json and check the files that are `needed`, or else every file it lists.

    A deployment has the file of its own engine alone. Raises BundleError naming the file and what to do.
    """
    bundle = _read_manifest(folder)
    for name in bundle.files if needed is None else needed:
        _check(bundle.path(name), bundle.files[name])
    return bundle


def _read_manifest(folder: Path) -> Bundle:
    """What model.json says, every value checked. Raises BundleError with the key, its value and what it has to be."""
    path = folder / MODEL_JSON
    try:
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
        content = json.loads(text) if len(text) <= MAX_MANIFEST_BYTES else None
    except FileNotFoundError:
        raise BundleError(f"no model at {folder}: {MODEL_JSON} is missing; set MODEL_DIR to a bundle") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}; fetch the bundle again") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} has to hold a JSON object of at most {MAX_MANIFEST_BYTES} bytes")

    def value(key: str, is_valid: Callable[[Any], bool], expected: str) -> Any:
        found: Any = content
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not is_valid(found):
            raise BundleError(
                f"{path}: {key} is {ascii(found)[:200]}; it has to be {expected}, as in models/resnet18-cifar10"
            )
        return found

    name_hint = f"1 to {MAX_NAME_CHARACTERS} printable characters"
    return Bundle(
        folder=folder,
        name=value("name", _is_name, name_hint),
        architecture=value("architecture", _is_name, name_hint),
        classes=tuple(value("classes", _are_classes, f"1 to {MAX_CLASSES} different names, each of {name_hint}")),
        size_px=value("input.size_px", _is_size, f"a whole number from 1 to {MAX_SIZE_PX}"),
        mean=tuple(value("input.mean", _are_channels, f"{CHANNELS} numbers from -10 to 10")),
        std=tuple(value("input.std", _are_deviations, f"{CHANNELS} numbers above 0, at most 10")),
        files=value("files", _are_files, "file names without folders, each with its sha256 in hex"),
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable()


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_CLASSES
        and all(map(_is_name, value))
        and len(set(value)) == len(value)
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_SIZE_PX


def _are_channels(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == CHANNELS
        and all(type(number) in (int, float) and -10 <= number <= 10 for number in value)  # NaN is not
    )


def _are_deviations(value: Any) -> bool:
    return _are_channels(value) and all(number >= 1e-6 for number in value)  # pixels are divided by it


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name)
        and isinstance(digest, str)
        and re.fullmatch(r"[0-9a-f]{64}", digest)
        for name, digest in value.items()
    )


def _check(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing, though {MODEL_JSON} lists it; fetch the bundle again")
    actual = sha256(path)
    if actual != wanted:
        raise BundleError(f"{path} has sha256 {actual}, {MODEL_JSON} says {wanted}; fetch the bundle again")


def sha256(path: Path) -> str:
    """The checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
