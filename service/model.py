"""A model bundle: the folder with model.json and the weights that it names.

`model.json` holds name, architecture, classes, input (size_px, mean, std), and under `files` the sha256 of
every other file. What is used is checked first. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.errors import BundleError

MODEL_JSON = "model.json"
VERSION_DIGITS = 12
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
    manifest = folder / MODEL_JSON
    try:
        manifest_json = json.loads(manifest.read_text())
        bundle = Bundle(
            folder=folder,
            name=manifest_json["name"],
            architecture=manifest_json["architecture"],
            classes=tuple(manifest_json["classes"]),
            size_px=int(manifest_json["input"]["size_px"]),
            mean=tuple(manifest_json["input"]["mean"]),
            std=tuple(manifest_json["input"]["std"]),
            files=dict(manifest_json["files"]),
        )
    except FileNotFoundError:
        raise BundleError(f"no model at {folder}: {MODEL_JSON} is missing; set MODEL_DIR to a bundle") from None
    except json.JSONDecodeError as error:
        raise BundleError(f"{manifest} is not JSON: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest} lacks or garbles {error}; see models/resnet18-cifar10/model.json") from None
    for name in bundle.files if needed is None else needed:
        _check(bundle.path(name), bundle.files[name])
    return bundle


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
