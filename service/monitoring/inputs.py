"""What an input is like, in a few numbers: brightness and contrast of an image, or a row's own numbers."""

from __future__ import annotations

import numpy as np

from service.manifest.records import ImageInput, TabularInput

LIGHT = ("brightness", "contrast")  # of an image, in this order
GREY = (0.299, 0.587, 0.114)  # of red, green and blue in a grey value, by ITU-R BT.601
MAX_SIDE_PX = 32  # of larger images every second, third, ... pixel is read, both ways
MAX_FEATURES = 64  # of a row, whose distributions are kept


class InputMeasure:
    """Reads the numbers of inputs as the network takes them: normalised float32 [3, S, S], or rows."""

    def __init__(self, taken: ImageInput | TabularInput):
        self._step, self._is_tabular = 1, isinstance(taken, TabularInput)
        if isinstance(taken, TabularInput):
            self.names = tuple(feature.name for feature in taken.features[:MAX_FEATURES])
            return
        self.names, self._step = LIGHT, -(-taken.size_px // MAX_SIDE_PX)
        self._slopes = [weight * std for weight, std in zip(GREY, taken.std, strict=True)]
        self._black = sum(weight * mean for weight, mean in zip(GREY, taken.mean, strict=True))

    def sample(self, inputs: np.ndarray) -> np.ndarray:
        """What is read of an input, or of [N, input]."""
        return inputs if self._step == 1 else inputs[..., :: self._step, :: self._step].copy()

    def numbers(self, samples: np.ndarray) -> np.ndarray:
        """The numbers of [N, sample]: float64 [numbers, N]."""
        return samples[:, :MAX_FEATURES].T.astype(np.float64) if self._is_tabular else self._light(samples)

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
