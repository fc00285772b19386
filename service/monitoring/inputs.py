"""What an input is like, in a few numbers: brightness and contrast of an image, or a row's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from service.manifest.records import ImageInput, TabularInput

LIGHT = ("brightness", "contrast")  # of an image, in this order
GREY = (0.299, 0.587, 0.114)  # of red, green and blue in a grey value, by ITU-R BT.601
MAX_FEATURES = 64  # of a row, whose distributions are kept

Measure = Callable[[np.ndarray], Sequence[float]]  # an input, as the network takes it -> its numbers, in order


def measured_names(taken: ImageInput | TabularInput) -> tuple[str, ...]:
    """Names of the numbers."""
    if isinstance(taken, ImageInput):
        return LIGHT
    return tuple(feature.name for feature in taken.features[:MAX_FEATURES])


def measure_of(taken: ImageInput | TabularInput) -> Measure:
    """What reads the numbers of inputs."""
    if isinstance(taken, TabularInput):
        return lambda row: row[:MAX_FEATURES].tolist()
    slopes = [weight * std for weight, std in zip(GREY, taken.std, strict=True)]
    black = sum(weight * mean for weight, mean in zip(GREY, taken.mean, strict=True))
    return lambda image: _light(image, slopes, black)


def _light(image: np.ndarray, slopes: Sequence[float], black: float) -> tuple[float, float]:
    """Mean and standard deviation of the grey values, from 0 to 1: normalised float32 [3, S, S], black less than 0.

    Without BLAS, whose threads would take the cores of the network's for images of some size.
    """
    grey = image[0] * slopes[0]
    grey += image[1] * slopes[1]
    grey += image[2] * slopes[2]
    mean = float(np.add.reduce(grey, None)) / grey.size
    grey -= mean
    grey *= grey
    return mean + black, math.sqrt(float(np.add.reduce(grey, None)) / grey.size)
