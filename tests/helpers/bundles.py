"""Model bundles for tests: small ones on disk, and one in memory for an engine of the test's own."""

from __future__ import annotations

from pathlib import Path

from service.manifest.records import EngineFile, ImageInput
from service.model import Bundle

VERSION = "0123456789ab"


def bundle_in_memory(classes: str = "abcdef", mean: float = 0.5, std: float = 0.5, size_px: int = 32) -> Bundle:
    """An image bundle without files, for an engine named "test"; a class for each letter."""
    return Bundle(
        folder=Path(),
        name="test",
        classes=tuple(classes),
        input=ImageInput(size_px, size_px, (mean,) * 3, (std,) * 3),
        engines={"test": EngineFile("weights", "float32")},
        files={"weights": "0123456789abcdef" * 4},
    )
