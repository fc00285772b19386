"""Plain Flask: the network loaded once, one forward pass per request. https://flask.palletsprojects.com/quickstart"""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from scripts.bench_serve.peers.plain import answer, load_network, probabilities, read_picture

app = Flask(__name__)
net = load_network()


@app.post("/predict")
def predict() -> Response:
    row = probabilities(net, read_picture(request.get_data())[None])[0]
    return jsonify(answer(row))
