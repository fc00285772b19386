"""Plain Flask around the network, in three ways. https://flask.palletsprojects.com/quickstart"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from flask import Flask, Response, jsonify, request

from scripts.benchmarks.serving.baselines.common import load_network, probabilities, read_image, response_of
from scripts.paths import MODEL_DIR


def every_post() -> Flask:
    """The original design: builds the network and loads its weights on every POST."""
    return _app(lambda batch: probabilities(load_network(), batch))


def eager_torch() -> Flask:
    """The network loaded once, one forward pass per request."""
    net = load_network()
    return _app(lambda batch: probabilities(net, batch))


def onnx_int8() -> Flask:
    """The int8 network in ONNX Runtime, loaded once, one run per request."""
    import onnxruntime  # only here: it would add to the others' start and memory

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))  # its default counts the whole machine
    session = onnxruntime.InferenceSession(MODEL_DIR / "int8.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return _app(lambda batch: np.asarray(session.run(None, {name: batch})[0]))


def _app(predict: Callable[[np.ndarray], np.ndarray]) -> Flask:
    app = Flask(__name__)

    @app.post("/predict")
    def predict_one() -> Response:
        return jsonify(response_of(predict(read_image(request.get_data())[None])[0]))

    return app
