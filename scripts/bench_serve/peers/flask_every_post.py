"""The original design: Flask that builds the network and loads its weights on every POST."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from scripts.bench_serve.peers.plain import answer, load_network, probabilities, read_picture

app = Flask(__name__)


@app.post("/predict")
def predict() -> Response:
    net = load_network()
    row = probabilities(net, read_picture(request.get_data())[None])[0]
    return jsonify(answer(row))
