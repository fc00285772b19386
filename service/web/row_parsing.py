"""A request's body -> rows of numbers. Three forms: JSON, CSV, and the fields of the page's form."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from flask import Request

from service.errors import BadRequest, TooLarge, Unsupported, quoted
from service.images.image_formats import image_format, looks_like_json
from service.manifest.records import Feature
from service.schema import CSV_TYPE, JSON_TYPE, MAX_BATCH_ROWS, MAX_ROWS_BYTES
from service.tabular.rows import Rows, number_or_text, read_rows, wanted
from service.web.middleware import MULTIPART

SHORT_BYTES = 64 * 1024
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}
FIELD = "number"  # of the form, before the feature's index: names of features may hold anything


def parse_rows(request: Request, features: Sequence[Feature]) -> Rows:
    """The rows of a prediction. Raises Problem."""
    data, kind = request.get_data(), request.mimetype
    if kind == MULTIPART:
        if request.files:
            raise Unsupported(f"this model takes rows of numbers, and the form has a file; {wanted(features)}")
        return read_rows([number_or_text(text) for text in typed(request.form, features)], features)
    if kind == CSV_TYPE:
        return read_rows(csv_rows(data, features), features)
    if kind != JSON_TYPE:
        cure = f"send the JSON with Content-Type: {JSON_TYPE}" if looks_like_json(data) else wanted(features)
        image = image_format(data) or ("image" if kind.startswith("image/") else "")
        found = f"this model takes rows of numbers, not a {image} file" if image else f"{quoted(kind)} is not read"
        raise Unsupported(f"{found}; {cure}")
    if len(data) > MAX_ROWS_BYTES:
        raise TooLarge(f"the JSON body has {len(data)} bytes; send at most {MAX_ROWS_BYTES // 2**20} MiB of rows")
    check_value_count(data, features)
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        if kind := image_format(data):
            raise Unsupported(f"this model takes rows of numbers, not a {kind} file; {wanted(features)}") from None
        raise BadRequest(f"the body is not JSON ({error}); {wanted(features)}") from None
    return read_rows(body, features)


def check_value_count(data: bytes, features: Sequence[Feature]) -> None:
    """Raise TooLarge for a long body of more values than its rows may have: parsed, they take 50 times its bytes."""
    if len(data) <= SHORT_BYTES:
        return  # what is wrong with it is told better once it is parsed
    for sign in (b",", b"[", b"{"):
        of_a_row = len(features) + 1 + sum(feature.name.encode().count(sign) for feature in features)
        if data.count(sign) > MAX_BATCH_ROWS * of_a_row:
            values = f"over {MAX_BATCH_ROWS * len(features)} values"
            raise TooLarge(f"the body has {values}; send at most {MAX_BATCH_ROWS} rows in one request")


def csv_rows(data: bytes, features: Sequence[Feature]) -> list[Any]:
    """A line of numbers as one row, several as a list of rows. Raises TooLarge or BadRequest."""
    if len(data) > MAX_ROWS_BYTES:
        raise TooLarge(f"the CSV body has {len(data)} bytes; send at most {MAX_ROWS_BYTES // 2**20} MiB of rows")
    check_value_count(data, features)
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        lines = list(islice(filter(None, reader), MAX_BATCH_ROWS + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"the body is not CSV in UTF-8 ({error}); {wanted(features)}") from None
    rows = [[number_or_text(text) for text in line] for line in lines]
    first = ",".join(lines[0] if lines else [])
    if other := next((name for sign, name in OTHER_SEPARATORS.items() if sign in first), None):
        raise BadRequest(
            f"the first line, {quoted(first)}, has {other}; put commas between the numbers, and write 5.1 with a point"
        )
    if rows and all(isinstance(value, str) for value in rows[0]):
        raise BadRequest(
            f"the first line, {quoted(','.join(map(str, rows[0])))}, holds no number; leave the header out"
        )
    if not rows:
        raise BadRequest(f"the body holds no row; {wanted(features)}")
    if len(rows) > MAX_BATCH_ROWS:
        raise TooLarge(f"over {MAX_BATCH_ROWS} rows; send at most {MAX_BATCH_ROWS} in one request")
    return rows[0] if len(rows) == 1 else rows


def typed(form: Mapping[str, str], features: Sequence[Feature]) -> list[str]:
    """What was typed into the form for each feature; empty where nothing was."""
    return [form.get(f"{FIELD}{index}", "") for index in range(len(features))]
