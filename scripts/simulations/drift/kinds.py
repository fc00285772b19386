"""Five kinds of drift, and none: what becomes of an image, and how often each class comes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

JPEG_QUALITY = 20
NOISE_SD = 20.0  # of 255, on each channel of each pixel
BLUR_RADIUS_PX = 1.0  # standard deviation of the Gaussian
BRIGHTNESS = 0.5
FREQUENT_CLASS, TIMES_AS_FREQUENT = 0, 4

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _same(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def _compressed(image: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Image.open(buffer)


def _noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    noise = rng.normal(0, NOISE_SD, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def _blurred(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS_PX))


def _darkened(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(BRIGHTNESS)


@dataclass(frozen=True)
class Kind:
    """One kind of traffic."""

    name: str  # a job's
    title: str
    change: Change = _same
    shifts_labels: bool = False  # one class comes more often than the others

    def weights(self, labels: np.ndarray) -> np.ndarray:
        """How probable each image is, by its true class; the sum is 1."""
        weights = np.ones(len(labels))
        if self.shifts_labels:
            weights[labels == FREQUENT_CLASS] = TIMES_AS_FREQUENT
        return weights / weights.sum()

    def png(self, image: Image.Image, rng: np.random.Generator) -> bytes:
        """The image as it comes, encoded without further loss."""
        buffer = io.BytesIO()
        self.change(image.convert("RGB"), rng).save(buffer, "PNG")
        return buffer.getvalue()


EQUAL = Kind("equal", "none")
DRIFTS = (
    Kind("jpeg", f"JPEG at quality {JPEG_QUALITY}", _compressed),
    Kind("noise", f"Gaussian noise, {NOISE_SD:g} of 255", _noisy),
    Kind("blur", f"Gaussian blur, {BLUR_RADIUS_PX:g} px", _blurred),
    Kind("dark", "half as bright", _darkened),
    Kind("labels", f"one class {TIMES_AS_FREQUENT} times as often", shifts_labels=True),
)
