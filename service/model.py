"""A model bundle: the folder with model.json and the files that it names.

`model.json` of schema 2 holds name, classes, input (an image's size, or a row's features), engines with their files,
the self-test, licence, origin, and under `files` the sha256 of every other file; docs/own-model.md describes it.
Schema 1, which the first bundles have, is read too. What is used is checked first. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import BundleError
from service.manifest.reader import WEIGHTS_OF, ManifestReader
from service.manifest.records import EngineFile, ImageInput, TabularInput

__all__ = ["MODEL_JSON", "VERSION_DIGITS", "WEIGHTS_OF", "Bundle", "load_bundle", "load_for_engine", "sha256"]

MODEL_JSON = "model.json"
VERSION_DIGITS = 12


@dataclass(frozen=True)
class Bundle:
    """A checked model bundle."""

    folder: Path
    name: str  # "resnet18-cifar10"
    classes: tuple[str, ...]  # in the order of the network's outputs
    input: ImageInput | TabularInput
    engines: Mapping[str, EngineFile]  # that can run it, by the names of ENGINE
    files: Mapping[str, str]  # file name -> sha256, hex
    self_test: str | None = None  # the file with inputs and expected answers
    licence: str | None = None  # of the weights
    origin: str | None = None  # where they came from

    @property
    def image(self) -> ImageInput:
        """What images become. Raises BundleError for a model of rows."""
        if isinstance(self.input, ImageInput):
            return self.input
        raise BundleError(f"{self.name} takes rows of {len(self.input.features)} numbers, not images")

    def engine(self, name: str) -> EngineFile:
        """What an engine runs. Raises BundleError when the bundle has nothing for it."""
        if name in self.engines:
            return self.engines[name]
        found = f"{self.folder / MODEL_JSON} has no file for the engine {name!r}, only for: {', '.join(self.engines)}"
        raise BundleError(f"{found}; set ENGINE to one of these, or have make export write what is missing")

    def files_for(self, engine: str) -> list[str]:
        """The files that a deployment with this engine needs: the engine's own, and those of no engine."""
        own = self.engine(engine).file
        of_others = {each.file for each in self.engines.values()} - {own}
        return [name for name in self.files if name not in of_others]

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

    Raises BundleError naming the file and what to do.
    """
    values = ManifestReader(folder / MODEL_JSON)
    bundle = Bundle(
        folder=folder,
        name=values.name(),
        classes=values.classes(),
        input=values.input(),
        engines=values.engines(),
        files=values.files(),
        self_test=values.self_test(),
        licence=values.text("licence"),
        origin=values.text("origin"),
    )
    for name in bundle.files if needed is None else needed:
        _check(bundle.path(name), bundle.files[name])
    return bundle


def load_for_engine(folder: Path, engine: str) -> Bundle:
    """The same, with the files checked that this engine needs: a deployment has no others."""
    bundle = load_bundle(folder, [])
    for name in bundle.files_for(engine):
        _check(bundle.path(name), bundle.files[name])
    return bundle


def _check(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing, though {MODEL_JSON} lists it; fetch the bundle again")
    try:
        actual = sha256(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; see to its rights, or fetch it again") from None
    if actual != wanted:
        raise BundleError(f"{path} has sha256 {actual}, {MODEL_JSON} says {wanted}; fetch the bundle again")


def sha256(path: Path) -> str:
    """The checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
