"""The contract as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from service.machine import INSTRUCTION_SETS
from service.schema import (
    HEALTHZ,
    IMAGE_PART,
    IMAGE_TYPES,
    INSTANCE_ID,
    INSTANCE_STARTED,
    MAX_BATCH_IMAGES,
    METRICS,
    MODEL_VERSION,
    OPENAPI,
    PIXELS_KEY,
    PREDICT,
    PREDICT_BATCH,
    PROBLEM_TYPE,
    READYZ,
    REQUEST_ORDINAL,
    SERVER_TIMING,
    TOP_K,
    VERSION,
)

Json = dict[str, Any]

PROBLEMS = {
    "400": "Nothing to read: no picture, or JSON that is not JSON",
    "401": "The bearer token is missing or wrong; only where the service was given one",
    "413": "Body or batch over the limit",
    "415": "Not a type of picture that the service reads",
    "422": "The right type, but damaged, too many pixels, or values out of range",
    "503": "The queue is full, or the wait was too long; Retry-After says when to come back",
}
STRING: Json = {"type": "string"}
FILE: Json = {"type": "string", "format": "binary"}


def document(classes: tuple[str, ...], size_px: int) -> Json:
    """What /openapi.json answers."""
    one, many = {"$ref": "#/components/schemas/Prediction"}, {"$ref": "#/components/schemas/Predictions"}
    page: Json = {"text/html": {"schema": STRING}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cloudtrial image classifier", "version": "1"},
        "paths": {
            "/": {
                "get": _operation("The upload form", page),
                "post": _prediction("One picture", _json(one) | page, _one_picture()),
            },
            PREDICT: {"post": _prediction("One picture", _json(one) | page, _one_picture())},
            PREDICT_BATCH: {
                "post": _prediction("Several pictures; all are answered or none", _json(many), _pictures())
            },
            HEALTHZ: {"get": _operation("The process is alive", _json(_object(status=STRING)))},
            READYZ: {"get": _operation("The model is loaded and warmed", _json(_object(status=STRING)), ("503",))},
            VERSION: {"get": _operation("Model, code, libraries, machine, start", _json(_version()))},
            METRICS: {"get": _operation("Counts and times of this process, for Prometheus", _metrics())},
            OPENAPI: {"get": _operation("This document", _json({"type": "object"}))},
        },
        "components": {
            "schemas": _schemas(classes, size_px),
            "headers": {name: {"schema": STRING, "description": text} for name, text in _headers().items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(classes: tuple[str, ...], size_px: int) -> dict[str, Json]:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    ranked = {
        "id": {"type": "integer", "minimum": 0, "maximum": len(classes) - 1},
        "label": {"type": "string", "enum": list(classes)},
        "probability": probability,
    }
    top = {"type": "array", "items": _object(**ranked), "maxItems": TOP_K}
    vector = {"type": "array", "items": probability, "minItems": len(classes), "maxItems": len(classes)}
    model = _object(name=STRING, version=STRING, engine=STRING)
    answer = _object(**ranked, top=top)
    answer["properties"]["probabilities"] = vector | {"description": "with ?probabilities=1, in class order"}
    prediction = {**answer, "properties": {**answer["properties"], "model": model}}
    prediction["required"] = [*answer["required"], "model"]
    channel = {"type": "number", "minimum": 0, "maximum": 255}
    pixel = {"type": "array", "items": channel, "minItems": 3, "maxItems": 3}
    rows = {"type": "array", "items": {"type": "array", "items": pixel}}
    hint = f"[height][width][r, g, b]; {size_px}x{size_px} is used as it is"
    return {
        "Prediction": prediction,
        "Predictions": _object(predictions={"type": "array", "items": answer}, model=model),
        "Problem": _object(type=STRING, title=STRING, status={"type": "integer"}, detail=STRING),
        "Base64Picture": _object(**{IMAGE_PART: {"type": "string", "contentEncoding": "base64"}}),
        "Pixels": _object(**{PIXELS_KEY: rows | {"description": hint}}),
    }


def _one_picture() -> Json:
    forms = [{"$ref": "#/components/schemas/Base64Picture"}, {"$ref": "#/components/schemas/Pixels"}]
    raw = {media_type: {"schema": FILE} for media_type in IMAGE_TYPES}
    return {"multipart/form-data": {"schema": _object(**{IMAGE_PART: FILE})}} | raw | _json({"oneOf": forms})


def _pictures() -> Json:
    files = {"type": "array", "items": FILE, "minItems": 1, "maxItems": MAX_BATCH_IMAGES}
    return {"multipart/form-data": {"schema": _object(**{IMAGE_PART: files})}}


def _prediction(summary: str, answer: Json, body: Json) -> Json:
    flag = {"name": "probabilities", "in": "query", "schema": {"enum": ["0", "1"]}, "description": "1: the full vector"}
    operation = _operation(summary, answer, tuple(PROBLEMS))
    return operation | {
        "parameters": [flag],
        "requestBody": {"required": True, "content": body},
        "security": [{}, {"token": []}],
    }


def _operation(summary: str, answer: Json, problems: tuple[str, ...] = ()) -> Json:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _headers()}
    responses: Json = {"200": {"description": summary, "content": answer, "headers": headers}}
    problem = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in problems:
        responses[status] = {"description": PROBLEMS[status], "content": problem, "headers": headers}
    return {"summary": summary, "responses": responses}


def _version() -> Json:
    """What the figures of this instance depend on is described; the rest explains itself."""
    return _object(
        cpu_model={"type": "string", "description": "The processor's name, as the system has it"},
        cpu_generation={"type": ["string", "null"], "description": "As Zen 3, or the maker's numbers; null: not known"},
        instruction_sets={
            "type": ["array", "null"],
            "items": {"enum": list(INSTRUCTION_SETS.values())},
            "description": "That speed a network up and this processor has; null: not known",
        },
        instruction_limits={
            "type": "object",
            "additionalProperties": STRING,
            "description": "Environment variables that may leave some of them unused",
        },
        cpus={"type": "integer", "minimum": 1, "description": "Cores that this process may use"},
    )


def _metrics() -> Json:
    return {"text/plain": {"schema": STRING}, "application/openmetrics-text": {"schema": STRING}}


def _headers() -> dict[str, str]:
    return {
        INSTANCE_ID: "Random, one per process",
        INSTANCE_STARTED: "When the process began, ISO 8601, UTC",
        REQUEST_ORDINAL: "Prediction requests that this process has accepted, this one included",
        MODEL_VERSION: "First digits of the weights' sha256",
        SERVER_TIMING: "decode, queue, inference, total; milliseconds",
    }


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}
