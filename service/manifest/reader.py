"""The values of model.json, each checked: an error names the key, its value and what it has to be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.errors import BundleError
from service.manifest.records import EngineFile, Feature, ImageInput, TabularInput

SCHEMAS = (1, 2)
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_CLASSES = 10_000
MAX_FEATURES = 1000
MAX_NAME_CHARACTERS = 100
MAX_TEXT_CHARACTERS = 1000
MAX_SIZE_PX = 1024
CHANNELS = 3
# Engine -> its file in a bundle of schema 1, whose model.json names no engines
WEIGHTS_OF = {"torch": "weights.safetensors", "onnx": "int8.onnx"}
PRECISIONS = ("int8", "float16", "float32")
FIRST_SCHEMA_PRECISIONS = {"torch": "float16", "onnx": "int8"}
KINDS = ("image", "tabular")
NAME = f"1 to {MAX_NAME_CHARACTERS} printable characters"
TEXT = f"1 to {MAX_TEXT_CHARACTERS} printable characters"


class ManifestReader:
    """The JSON object of a model.json."""

    def __init__(self, path: Path):
        self.path = path
        self.content = _read_object(path)
        self.schema = 1  # which did not say so
        if self.has("schema"):
            self.schema = self.get("schema", lambda value: type(value) is int and value in SCHEMAS, "1 or 2")

    def has(self, key: str) -> bool:
        return self._find(key) is not None

    def get(self, key: str, is_valid: Callable[[Any], bool], expected: str) -> Any:
        """A value by its dotted key. Raises BundleError with what is there and what has to be."""
        found = self._find(key)
        if not is_valid(found):
            raise BundleError(
                f"{self.path}: {key} is {ascii(found)[:200]}; it has to be {expected}, as in models/resnet18-cifar10"
            )
        return found

    def _find(self, key: str) -> Any:
        found: Any = self.content
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def name(self) -> str:
        return self.get("name", is_name, NAME)

    def classes(self) -> tuple[str, ...]:
        return tuple(self.get("classes", _are_classes, f"1 to {MAX_CLASSES} different names, each of {NAME}"))

    def files(self) -> dict[str, str]:
        return self.get("files", _are_files, "file names without folders, each with its sha256 in hex")

    def input(self) -> ImageInput | TabularInput:
        if self.schema > 1 and self.get("input.kind", lambda kind: kind in KINDS, " or ".join(KINDS)) == "tabular":
            wanted = f"1 to {MAX_FEATURES} objects with a name of their own, min and max"
            features = self.get("input.features", _are_features, wanted)
            return TabularInput(tuple(Feature(each["name"], each["min"], each["max"]) for each in features))
        size_px = self.get("input.size_px", _is_size, f"a whole number from 1 to {MAX_SIZE_PX}")
        resize_px = size_px
        if self.has("input.resize_px"):
            wanted = f"a whole number from size_px, {size_px}, to {MAX_SIZE_PX}"
            resize_px = self.get("input.resize_px", lambda value: _is_size(value) and value >= size_px, wanted)
        mean = self.get("input.mean", _are_channels, f"{CHANNELS} numbers from -10 to 10")
        std = self.get("input.std", _are_deviations, f"{CHANNELS} numbers above 0, at most 10")
        return ImageInput(size_px, resize_px, tuple(mean), tuple(std))

    def engines(self) -> dict[str, EngineFile]:
        """Every engine that can run the bundle."""
        files = self.files()
        if self.schema == 1:
            architecture = self.get("architecture", is_name, NAME)
            return {
                engine: EngineFile(file, FIRST_SCHEMA_PRECISIONS[engine], architecture if engine == "torch" else None)
                for engine, file in WEIGHTS_OF.items()
                if file in files
            }
        wanted = f"an object with one or more of {', '.join(WEIGHTS_OF)}"
        return {engine: self._engine(engine, files) for engine in self.get("engines", _are_engines, wanted)}

    def _engine(self, engine: str, files: dict[str, str]) -> EngineFile:
        key = f"engines.{engine}"
        return EngineFile(
            self.get(f"{key}.file", _is_one_of(files), f"one of files: {', '.join(files)}"),
            self.get(f"{key}.precision", _is_one_of(PRECISIONS), f"one of {', '.join(PRECISIONS)}"),
            self.get(f"{key}.architecture", is_name, NAME) if engine == "torch" else None,
        )

    def self_test(self) -> str | None:
        """The file with inputs and the answers to them; a bundle of schema 1 has none."""
        if self.schema == 1:
            return None
        files = self.files()
        return self.get("self_test", _is_one_of(files), f"one of files: {', '.join(files)}")

    def text(self, key: str) -> str | None:
        """A sentence or two, which schema 1 does not have."""
        return self.get(key, _is_text, TEXT) if self.schema > 1 else None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
        content = json.loads(text) if len(text) <= MAX_MANIFEST_BYTES else None
    except FileNotFoundError:
        raise BundleError(f"no model at {path.parent}: {path.name} is missing; set MODEL_DIR to a bundle") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}; fetch the bundle again") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} has to hold a JSON object of at most {MAX_MANIFEST_BYTES} bytes")
    return content


def is_number(value: Any) -> bool:
    """A finite number that float can hold; true and false are none."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _is_one_of(choices: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in choices


def is_name(value: Any) -> bool:
    """A name of a model, a class or a feature: NAME says what that is."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS and value.isprintable()


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_CLASSES
        and all(map(is_name, value))
        and len(set(value)) == len(value)
    )


def _are_engines(value: Any) -> bool:
    return isinstance(value, dict) and set() < value.keys() <= WEIGHTS_OF.keys()


def _are_features(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_FEATURES
        and all(
            isinstance(each, dict)
            and is_name(each.get("name"))
            and is_number(each.get("min"))
            and is_number(each.get("max"))
            and each["min"] <= each["max"]
            for each in value
        )
        and len({each["name"] for each in value}) == len(value)
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
