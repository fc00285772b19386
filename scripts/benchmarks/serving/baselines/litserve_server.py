"""LitServe, without batching or with.

python -m scripts.benchmarks.serving.baselines.litserve_server PORT [BATCH]

After its own documentation: https://lightning.ai/docs/litserve/api-reference/litapi for the five methods, a file as
UploadFile in a multipart field `request`; https://lightning.ai/docs/litserve/features/batching for max_batch_size and
batch_timeout; LitServer.run's "production configuration" for the log level.
"""

import sys
from typing import Any

import litserve
import numpy as np
from fastapi import UploadFile
from PIL import Image

from scripts.benchmarks.serving.baselines.common import load_network, probabilities, read_pixels, response_of

BATCH_TIMEOUT_S = 0.005  # longest wait of an image for others


class Classifier(litserve.LitAPI):
    """One image a request."""

    def setup(self, device: str) -> None:
        self.net = load_network()

    def decode_request(self, request: UploadFile) -> Any:  # LitServe reads this annotation
        return read_pixels(Image.open(request.file))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return probabilities(self.net, x[None])[0]

    def encode_response(self, output):  # LitServe reads the annotation of what this returns, too
        return response_of(output)


class BatchClassifier(Classifier):
    """Images that arrive together share a pass: LitServe stacks the results of decode_request and splits the rows."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        return probabilities(self.net, x)


def main(port: int, batch: int) -> None:
    api = BatchClassifier(max_batch_size=batch, batch_timeout=BATCH_TIMEOUT_S) if batch > 1 else Classifier()
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
