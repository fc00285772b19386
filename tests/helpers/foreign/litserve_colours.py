"""python -m tests.helpers.foreign.litserve_colours PORT: LitServe, as its documentation has it for a file."""

import sys

import litserve
from fastapi import UploadFile

from tests.helpers.foreign.colours import COLOURS, probabilities


class Colours(litserve.LitAPI):
    """Answers all classes with their scores."""

    def setup(self, device):
        """There is no model to load."""

    def decode_request(self, request: UploadFile):
        return request.file.read()

    def predict(self, x):
        return probabilities(x)

    def encode_response(self, output):
        return {"output": [{"label": name, "score": score} for name, score in zip(COLOURS, output, strict=True)]}


if __name__ == "__main__":
    server = litserve.LitServer(Colours(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
