"""What an input is like, in a few numbers: brightness and contrast of an image, or a row's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from service.manifest.records import ImageInput, TabularInput

LIGHT = ("brightness", "contrast")  # of an image, in this order
GREY = (0.299, 0.587, 0.114)  # of red, green and blue in a grey value, by ITU-R BT.601
MAX_FEATURES = 64  # of a row, whose distributions are kept

Measure = Callable[[np.ndarray], np.ndarray]  # [N, input], as the network takes them -> float64 [numbers, N]


def measured_names(taken: ImageInput | TabularInput) -> tuple[str, ...]:
    """Names of the numbers."""
    if isinstance(taken, ImageInput):
        return LIGHT
    return tuple(feature.name for feature in taken.features[:MAX_FEATURES])


def measure_of(taken: ImageInput | TabularInput) -> Measure:
    """What reads the numbers of inputs, in the order of their names."""
    if isinstance(taken, TabularInput):
        return lambda rows: rows[:, :MAX_FEATURES].T.astype(np.float64)
    slopes = [weight * std for weight, std in zip(GREY, taken.std, strict=True)]
    black = sum(weight * mean for weight, mean in zip(GREY, taken.mean, strict=True))
    return lambda images: _light(images, slopes, black)


def _light(images: np.ndarray, slopes: Sequence[float], black: float) -> np.ndarray:
    """Means and standard deviations of grey values from 0 to 1, of normalised float32 [N, 3, S, S]; 0 is `black` there.

    Without BLAS, whose threads would take the cores of the network's.
    """
    grey = images[:, 0] * slopes[0]
    grey += images[:, 1] * slopes[1]
    grey += images[:, 2] * slopes[2]
    grey = grey.reshape(len(images), -1)
    means = grey.mean(1, keepdims=True)
    grey -= means
    grey *= grey
    return np.stack([means[:, 0] + black, np.sqrt(grey.mean(1))]).astype(np.float64)
