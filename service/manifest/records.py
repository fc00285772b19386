"""What model.json says of a model: what it takes, and the files that its engines run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageInput:
    """Images: the shorter side is resized to resize_px, then the centre square of size_px is taken."""

    size_px: int  # side of the square
    resize_px: int  # at least size_px
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]


@dataclass(frozen=True)
class Feature:
    """One number of a row."""

    name: str  # "sepal length (cm)"
    min: float  # of the training data; a value outside is answered, with a warning
    max: float


@dataclass(frozen=True)
class TabularInput:
    """Rows of numbers."""

    features: tuple[Feature, ...]  # in the order of the network's inputs


@dataclass(frozen=True)
class EngineFile:
    """What one engine runs."""

    file: str  # of the bundle
    precision: str  # of its weights, one of PRECISIONS
    architecture: str | None = None  # of a torch file, which holds weights alone
