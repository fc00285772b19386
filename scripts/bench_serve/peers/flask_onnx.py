"""Plain Flask around ONNX Runtime: the int8 network loaded once, one run per request."""

from __future__ import annotations

import os

import onnxruntime
from flask import Flask, Response, jsonify, request

from scripts.bench_serve.peers.plain import BUNDLE, answer, read_picture

app = Flask(__name__)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = len(os.sched_getaffinity(0))  # its own count would be that of the whole machine
session = onnxruntime.InferenceSession(BUNDLE / "int8.onnx", options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name


@app.post("/predict")
def predict() -> Response:
    row = session.run(None, {name: read_picture(request.get_data())[None]})[0][0]
    return jsonify(answer(row))
