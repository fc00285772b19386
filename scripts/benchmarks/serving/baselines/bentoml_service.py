"""BentoML with adaptive batching.

bentoml serve scripts.benchmarks.serving.baselines.bentoml_service:Classifier

After its own documentation: https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html for `batchable` and
`max_batch_size`, and its example of a ResNet, https://github.com/bentoml/BentoResnet, for a list of images as input,
each sent as a multipart field `images`. The latency limit stays at its default, as requests beyond it are refused: the
documentation's 1,000 ms is less than 256 concurrent requests take here.
"""

import bentoml
import numpy as np
from PIL.Image import Image

from scripts.benchmarks.serving.baselines.common import load_network, probabilities, read_pixels, response_of


@bentoml.service
class Classifier:
    """Images that arrive together share a pass."""

    def __init__(self) -> None:
        self.net = load_network()

    @bentoml.api(batchable=True, max_batch_size=32)
    def predict(self, images: list[Image]) -> list[dict]:
        rows = probabilities(self.net, np.stack([read_pixels(image) for image in images]))
        return [response_of(row) for row in rows]
