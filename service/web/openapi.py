"""What GET /openapi.json answers: service/openapi.json; with another body for a model of rows; with /v2, if there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.manifest.records import Feature
from service.schema import CSV_TYPE, MAX_BATCH_ROWS
from service.tabular.rows import MAX_NUMBER, range_text
from service.web.row_parsing import FIELD

FOLDER = Path(__file__).resolve().parent.parent
DOCUMENT = FOLDER / "openapi.json"
ROWS_PATCH = FOLDER / "openapi_rows.json"  # a JSON merge patch (RFC 7396) of that
CSV_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,9})?"  # as far as a pattern can say it: 1e30 is read as well
V2_PATCH = FOLDER / "openapi_v2.json"  # another, with the routes of the Open Inference Protocol


def openapi_document(features: Sequence[Feature], *, has_v2: bool = False) -> bytes:
    """The document for a model of these features; of images, where there are none."""
    if not features and not has_v2:
        return DOCUMENT.read_bytes()
    document = json.loads(DOCUMENT.read_bytes())
    if features:
        document = _of_rows(document, features)
    if has_v2:
        document = merged(document, json.loads(V2_PATCH.read_bytes()))
    return json.dumps(document, indent=2).encode()


def _of_rows(document: dict[str, Any], features: Sequence[Feature]) -> dict[str, Any]:
    document = merged(document, json.loads(ROWS_PATCH.read_bytes()))
    schemas, names = document["components"]["schemas"], [feature.name for feature in features]
    number = {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}
    numbers = [number | {"description": f"{each.name}; {range_text(each)} in training"} for each in features]
    schemas["ListRow"] |= {"prefixItems": numbers, "minItems": len(names), "maxItems": len(names)}
    schemas["NamedRow"] |= {"properties": dict(zip(names, numbers, strict=True)), "required": names}
    fields = [f"{FIELD}{index}" for index in range(len(names))]
    form = {"type": "object", "properties": dict(zip(fields, numbers, strict=True)), "required": fields}
    content = document["components"]["requestBodies"]["Rows"]["content"]
    content["multipart/form-data"]["schema"] = form
    line = ",".join([CSV_NUMBER] * len(names))
    content[CSV_TYPE]["schema"]["pattern"] = f"^{line}(\\n{line}){{0,{MAX_BATCH_ROWS - 1}}}$"
    return document


def merged(document: Any, patch: Any) -> Any:
    """The document after a merge patch: objects are merged, null removes a key, all else replaces."""
    if not isinstance(document, dict) or not isinstance(patch, dict):
        return patch
    changed = {key: merged(document.get(key), value) for key, value in patch.items() if value is not None}
    return {key: value for key, value in (document | changed).items() if patch.get(key, 0) is not None}
