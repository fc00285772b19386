"""What an input is like, in a few numbers: brightness and contrast of an image, or a row's own numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from service.manifest.records import ImageInput, TabularInput

LIGHT = ("brightness", "contrast")  # of an image, in this order
GREY = (0.299, 0.587, 0.114)  # of red, green and blue in a grey value, by ITU-R BT.601
MAX_SIDE_PX = 32  # of larger images every second, third, ... pixel is read, both ways
MAX_FEATURES = 64  # of a row, whose distributions are kept


class InputMeasure:
    """Reads the numbers of inputs as the network takes them: normalised float32 [3, S, S], or rows."""

    def __init__(self, taken: ImageInput | TabularInput):
        self.numbers: Callable[[np.ndarray], np.ndarray]  # of [N, sample]: float64 [numbers, N]
        self._step = 1
        if isinstance(taken, TabularInput):
            self.names = tuple(feature.name for feature in taken.features[:MAX_FEATURES])
            self.numbers = lambda rows: rows[:, :MAX_FEATURES].T.astype(np.float64)
            return
        self.names, self._step, self.numbers = LIGHT, -(-taken.size_px // MAX_SIDE_PX), self._light
        self._slopes = [weight * std for weight, std in zip(GREY, taken.std, strict=True)]
        self._black = sum(weight * mean for weight, mean in zip(GREY, taken.mean, strict=True))

    def sample(self, inputs: np.ndarray) -> np.ndarray:
        """What is read of an input, or of [N, input]."""
        return inputs if self._step == 1 else inputs[..., :: self._step, :: self._step].copy()

    def _light(self, images: np.ndarray) -> np.ndarray:
        """Means and standard deviations of the grey values, from 0 to 1.

        Without BLAS, whose threads would take the cores of the network's.
        """
        grey = images[:, 0] * self._slopes[0]
        grey += images[:, 1] * self._slopes[1]
        grey += images[:, 2] * self._slopes[2]
        grey = grey.reshape(len(images), -1)
        means = grey.mean(1, keepdims=True)
        grey -= means
        grey *= grey
        return np.stack([means[:, 0] + self._black, np.sqrt(grey.mean(1))]).astype(np.float64)
