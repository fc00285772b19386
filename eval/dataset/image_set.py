"""What is posted in a run: images, or rows of a table, with their labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from eval.samples.model import IMAGE, ImageEntry

MEDIA_TYPE_BY_SUFFIX = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".jpe": "image/jpeg",
            ".jfif": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp"}  # fmt: skip


@dataclass(frozen=True)
class EncodedImage:
    """One image as it is posted; of a tabular model one row, as JSON."""

    entry: ImageEntry
    data: bytes
    media_type: str


@dataclass(frozen=True)
class ImageSet:
    """The images of a run, in the order of its manifest."""

    source: str  # description
    classes: tuple[str, ...]  # in the order of their ids
    images: tuple[EncodedImage, ...]
    reference_probabilities: tuple[tuple[float, ...], ...] | None = None  # of the golden set, by image
    reference_model_version: str | None = None  # of the model that predicted them
    kind: str = IMAGE  # or TABULAR: then each image is a row
    model: str | None = None  # the bundle of models/ whose classes these are; None: only the data's own

    @property
    def entries(self) -> list[ImageEntry]:
        return [image.entry for image in self.images]

    @property
    def sha256(self) -> str:
        """Checksum of names, checksums and labels: runs with the same value posted the same images."""
        rows = [[entry.name, entry.sha256, entry.label] for entry in self.entries]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class ImageSource:
    """An image that has not been read yet."""

    name: str
    label: int
    media_type: str
    read: Callable[[], bytes]

    def load(self) -> EncodedImage:
        """The image with its checksum. Raises what `read` raises."""
        data = self.read()
        return EncodedImage(ImageEntry(self.name, hashlib.sha256(data).hexdigest(), self.label), data, self.media_type)


def describe_sample(source: str, chosen_count: int, available_count: int) -> str:
    """The source; of a sample, with its size."""
    if chosen_count == available_count:
        return source
    return f"{source}; a sample of {chosen_count:,} of {available_count:,}"
