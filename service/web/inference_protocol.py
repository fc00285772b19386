"""The routes of the Open Inference Protocol under /v2: there only with MANAGE_TOKEN. docs/switch.md lists them.

A load takes as long as it takes, and its request has a thread meanwhile; the switcher lets only a few wait.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from flask import Flask, Response, request

from service import schema
from service.errors import BadRequest, ModelNotFound, Problem, ServiceUnavailable, StoreError, SwitchConflict, quoted
from service.images.preprocess import decode_image, read_base64
from service.lifecycle.served_model import ServedModel
from service.lifecycle.switcher import ModelSwitcher
from service.settings import Settings
from service.store_layout import ModelReference, check_alias, check_name, parse_reference
from service.tabular.rows import check_answers, read_rows
from service.web.inference_tensors import (
    HEADER_LENGTH,
    InferenceRequest,
    input_tensor,
    named_part,
    output_tensors,
    read_request,
    write_answer,
)
from service.web.middleware import CLIENT_CONNECTION, ServiceState, json_line, trace_of

PLATFORMS = {"onnx": "onnxruntime_onnx", "torch": "pytorch_safetensors"}
EXTENSIONS = ["model_repository", "binary_tensor_data"]
MAX_ORDER_BYTES = 64 * 1024  # of a management call
MANAGE_ENDPOINTS = ("v2_index", "v2_load", "v2_unload")  # these need MANAGE_TOKEN
MODEL = "/v2/models/<name>"
VERSION = f"{MODEL}/versions/<version>"


class InferenceProtocol:
    """The views."""

    def __init__(self, state: ServiceState, settings: Settings, switcher: ModelSwitcher):
        self.state, self.settings, self.switcher = state, settings, switcher

    def add_to(self, app: Flask) -> None:
        """Add the routes."""
        app.add_url_rule(schema.V2, "v2_server", self.server)
        app.add_url_rule(schema.V2_LIVE, "v2_live", self.live)
        app.add_url_rule(schema.V2_READY, "v2_ready", self.ready)
        for prefix, rule in (("v2_model", MODEL), ("v2_version", VERSION)):
            app.add_url_rule(rule, prefix, self.metadata)
            app.add_url_rule(f"{rule}/ready", f"{prefix}_ready", self.model_ready)
            app.add_url_rule(f"{rule}/infer", f"{prefix}_infer", self.infer, methods=["POST"])
        repository = schema.V2_REPOSITORY
        app.add_url_rule(f"{repository}/index", "v2_index", self.index, methods=["POST"])
        app.add_url_rule(f"{repository}/models/<name>/load", "v2_load", self.load, methods=["POST"])
        app.add_url_rule(f"{repository}/models/<name>/unload", "v2_unload", self.unload, methods=["POST"])

    def server(self) -> Response:
        return answer({"name": "cloudtrial", "version": self.settings.git_sha or "", "extensions": EXTENSIONS})

    def live(self) -> Response:
        return answer({"live": True})

    def ready(self) -> Response:
        if not self._model().classifier.ready():
            raise ServiceUnavailable("the thread that runs the model has ended; restart the process")
        return answer({"ready": True})

    def metadata(self, name: str, version: str | None = None) -> Response:
        """What the model takes and gives."""
        model = self._named(name, version)
        body = {"name": model.name, "versions": [model.version], "platform": PLATFORMS[model.answer["engine"]]}
        return answer(body | {"inputs": [input_tensor(model)], "outputs": output_tensors(model)})

    def model_ready(self, name: str, version: str | None = None) -> Response:
        model = self._named(name, version)
        self.ready()
        return answer({"name": model.name, "ready": True})

    def infer(self, name: str, version: str | None = None) -> Response:
        """Predictions for a tensor of images or rows; all are answered or none."""
        model, started_at = self._named(name, version), time.perf_counter()
        asked = read_request(request.get_data(), request.headers.get(HEADER_LENGTH), model)
        if model.features:
            rows = read_rows(asked.elements, model.features)
            predictions = self.state.classify(request.environ, list(rows.values), started_at)
            check_answers([each.probabilities for each in predictions], rows)
        else:
            predictions = self.state.classify(request.environ, decode_images(model, asked), started_at)
        body, header_length = write_answer(model, asked, predictions)
        if header_length is None:
            return Response(body, content_type=schema.JSON_TYPE)
        headers = {HEADER_LENGTH: str(header_length)}
        return Response(body, headers=headers, content_type="application/octet-stream")

    def index(self) -> Response:
        """Every version that could be served, and which one is."""
        read_object()
        model = self._model()
        served = (model.name, model.version)
        try:
            found = dict.fromkeys([served, *self.switcher.stored()])
        except StoreError as error:
            raise ServiceUnavailable(str(error)) from None
        return answer([index_entry(*each, is_served=each == served) for each in found])

    def load(self, name: str) -> Response:
        """Load the model again; or with a version or an alias as a parameter, change to that."""
        reference = self._reference(name, read_object())
        with self.state.without_model(request.environ):  # which could not be freed else before this has ended
            model = self.switcher.load(reference)
        store = model.stored.to_json() if model.stored else None
        return answer(index_entry(model.name, model.version, is_served=True) | {"model": model.answer, "store": store})

    def unload(self, name: str) -> Response:
        read_object()
        raise SwitchConflict(f"{quoted(name)} is not unloaded: a process serves one model; load another in its place")

    def _reference(self, name: str, body: dict[str, Any]) -> ModelReference | None:
        """What is to be loaded; None: the present model again. Triton's client can send it as the name, NAME@ALIAS."""
        parameters = body.get("parameters") or {}
        wanted = 'send {"parameters": {"alias": "..."}}, or "version", or neither'
        if not isinstance(parameters, dict) or parameters.keys() - {"version", "alias"} or len(parameters) > 1:
            raise BadRequest(f"parameters is {quoted(parameters)}; {wanted}")
        if not all(isinstance(value, str) for value in parameters.values()):
            raise BadRequest(f"parameters is {quoted(parameters)}, whose value is no text; {wanted}")
        try:
            if "@" in name and not parameters:
                return parse_reference(name)
            if "alias" in parameters:
                check_alias(parameters["alias"])
            if parameters.get("version") == "":
                raise StoreError("version is '', which is none; use 12 hex digits, or send {} for the present model")
            return self.switcher.resolve(check_name(name), **parameters)
        except StoreError as error:
            raise BadRequest(str(error)) from None

    def _model(self) -> ServedModel:
        return trace_of(request.environ).model

    def _named(self, name: str, version: str | None) -> ServedModel:
        """The model of this request, if that is its name. Raises ModelNotFound."""
        model = self._model()
        if name != model.name or version not in (None, model.version):
            found = f"{quoted(name)}" + (f", version {quoted(version)}" if version else "")
            raise ModelNotFound(f"{found} is not served here, but {model.name!r}, version {model.version}")
        return model


def decode_images(model: ServedModel, asked: InferenceRequest) -> list[np.ndarray]:
    """The images of a request, in order. Raises Problem that names the image."""
    bundle, images = model.classifier.bundle, []
    with model.classifier.decode_work(request.environ.get(CLIENT_CONNECTION)) as work:
        work.add_bytes(len(request.get_data()))
        model.classifier.begin_batch(work, len(asked.elements))
        for number, element in enumerate(asked.elements, 1):
            decode = decode_image if isinstance(element, bytes) else read_base64
            try:
                images.append(decode(element, bundle, work))
            except Problem as problem:
                raise named_part(number, problem) from None
    return images


def index_entry(name: str, version: str, *, is_served: bool) -> dict[str, Any]:
    return {"name": name, "version": version, "state": "READY" if is_served else "UNAVAILABLE", "reason": ""}


def read_object() -> dict[str, Any]:
    """The JSON object of a management call; an empty body is an empty one. Raises BadRequest."""
    data = request.get_data()
    try:
        body: Any = json.loads(data or b"{}") if len(data) <= MAX_ORDER_BYTES else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise BadRequest(
            f"the body is no JSON object of at most {MAX_ORDER_BYTES // 1024} KiB; send {{}}, or parameters"
        )
    return body


def answer(body: Any) -> Response:
    return Response(json_line(body), content_type=schema.JSON_TYPE)
