"""The size of an engine's deployment: the files that are shipped, and what their requirements install.

The second is measured in the environment that this runs in, and only where that has just what the requirements ask
for by name. Another version or another build says nothing of the clouds': then there is no figure but a reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from infra.artifact import deployment_files, direct_requirements
from infra.errors import NotMeasured
from infra.models import DEFAULT_MODEL

MB = 1_000_000
BASE_IMAGE_MB = 50.0  # python:3.11-slim as a registry stores it; an estimate, also of what a function is built on
COMPILED = ".pyc"  # written at the first start, by the installer, or never


@dataclass(frozen=True)
class ArtifactSize:
    """Sizes in bytes, as the files are on disk: nothing packed, no Python, no operating system."""

    files_bytes: int  # the service, the model, the entry points
    installed_bytes: int | None  # of the libraries that its requirements install, their own requirements included
    reason: str | None = None  # why that is not known


@dataclass(frozen=True)
class LibrariesSize:
    """What an engine's requirements take, as it was measured once with the versions that `basis` names."""

    installed_mb: float
    packed_mb: float  # by gzip, as registries store it
    files_mb: float  # of what is shipped beside them
    basis: str

    @property
    def packed_fraction(self) -> float:
        return self.packed_mb / self.installed_mb


LIBRARIES = {
    "torch": LibrariesSize(995.0, 265.0, 22.5, "torch 2.13.0+cpu, measured 2026-11"),
    "onnx": LibrariesSize(179.0, 59.0, 11.4, "onnxruntime 1.31.1, measured 2026-11"),
}


def stored_image_gib(engine: str, files_bytes: int | None = None, libraries_bytes: int | None = None) -> float:
    """A container image in a registry: the base, the shipped files as they are, and the packed libraries.

    What was not measured of a deployment is as LIBRARIES states it.
    """
    stated = LIBRARIES[engine]
    files_mb = stated.files_mb if files_bytes is None else files_bytes / MB
    libraries_mb = stated.installed_mb if libraries_bytes is None else libraries_bytes / MB
    return (BASE_IMAGE_MB + files_mb + libraries_mb * stated.packed_fraction) * MB / 2**30


def measure_artifact(engine: str, target: str, model: str = DEFAULT_MODEL) -> ArtifactSize:
    """The size of a target's deployment for an engine."""
    size = sum(path.stat().st_size for path in deployment_files(engine=engine, target=target, model=model).values())
    try:
        return ArtifactSize(size, installed_bytes(direct_requirements(engine, target)))
    except NotMeasured as error:
        return ArtifactSize(size, None, str(error))


def installed_bytes(requirements: str) -> int:
    """Bytes that an .in file's lines install on this machine. Raises NotMeasured when this environment differs."""
    direct = [requirement for line in requirements.splitlines() if (requirement := _requirement(line))]
    pending = [requirement for requirement in direct if _applies(requirement)]
    installed: dict[tuple[str, frozenset[str]], Distribution] = {}
    while pending:
        requirement = pending.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in installed:
            continue
        installed[key] = _installed(requirement)
        texts = installed[key].requires or []
        pending += [needed for needed in map(Requirement, texts) if _applies(needed, requirement.extras)]
    by_name = {name: dist for (name, _), dist in installed.items()}  # with extras and without, it counts once
    return sum(map(_bytes, by_name.values()))


def _requirement(line: str) -> Requirement | None:
    """A line's requirement; None for a comment."""
    text = line.split(" #")[0].strip()
    if not text or text.startswith("#"):
        return None
    try:
        return Requirement(text)
    except InvalidRequirement:
        raise NotMeasured(f"{text!r} in an .in file is not one requirement") from None


def _applies(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    """Whether the requirement applies to this machine, for one that was required with these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _installed(requirement: Requirement) -> Distribution:
    try:
        dist = distribution(requirement.name)
    except PackageNotFoundError:
        raise NotMeasured(f"{requirement.name} is not installed here") from None
    if not requirement.specifier.contains(dist.version, prereleases=True):
        required = f"{requirement.name}{requirement.specifier}"
        raise NotMeasured(f"{requirement.name} is {dist.version} here, and not {required}")
    return dist


def _bytes(dist: Distribution) -> int:
    if dist.files is None:
        raise NotMeasured(f"{dist.name} does not say which files are its own")
    paths = {Path(str(dist.locate_file(file))) for file in dist.files if file.suffix != COMPILED}
    return sum(path.stat().st_size for path in paths if path.is_file())
