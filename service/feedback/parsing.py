"""The body of POST /feedback -> Feedback: JSON, or the fields of the page's form."""

from __future__ import annotations

import json
from typing import Any

from flask import Request

from service.errors import BadRequest, TooLarge, UnknownParameter, Unsupported, quoted
from service.feedback.recorder import Feedback
from service.schema import JSON_TYPE, MAX_FEEDBACK_BYTES
from service.web.middleware import MULTIPART

FIELDS = ("instance", "ordinal", "label", "index")
LOWEST = {"ordinal": 1, "index": 0}
WANTED = 'send {"instance": "<X-Instance-Id>", "ordinal": <X-Request-Ordinal>, "label": "<true class>"}'
TOKEN_FIELD = "token"  # was looked at before
MAX_DIGITS = 18


def parse_feedback(request: Request) -> Feedback:
    """Raises Problem."""
    data = request.get_data()
    if len(data) > MAX_FEEDBACK_BYTES:
        raise TooLarge(f"the body has {len(data)} bytes; send at most {MAX_FEEDBACK_BYTES // 1024} KiB of feedback")
    if request.mimetype == MULTIPART:
        return read_fields(_typed(request))
    if request.mimetype != JSON_TYPE:
        raise Unsupported(f"feedback of type {quoted(request.mimetype)} is not read; {WANTED} as {JSON_TYPE}")
    try:
        body: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON ({error}); {WANTED}") from None
    return read_fields(body)


def _typed(request: Request) -> dict[str, Any]:
    """The form's fields. Of two labels the first counts: the button's, which stands before the list of classes."""
    names = (request.form.keys() | request.files.keys()) - {TOKEN_FIELD}
    body: dict[str, Any] = {name: text for name in names if (text := request.form.get(name)) or name not in FIELDS}
    for name in LOWEST:
        text = body.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
            body[name] = int(text)
    return body


def read_fields(body: Any) -> Feedback:
    """Raises BadRequest for what is missing, of another type, or not understood."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body is {quoted(body)}, which is no object; {WANTED}")
    if unknown := sorted(body.keys() - set(FIELDS)):
        raise UnknownParameter(f"the feedback has {quoted(unknown)}, which is not understood; {WANTED}")
    if missing := [name for name in FIELDS[:3] if name not in body]:
        raise BadRequest(f"the feedback lacks {missing[0]}; {WANTED}")
    numbers = {name: _whole(name, body[name], lowest) for name, lowest in LOWEST.items() if name in body}
    for name in ("instance", "label"):
        if not isinstance(body[name], str) or not body[name]:
            raise BadRequest(f"{name} is {quoted(body[name])}; send it as text")
    return Feedback(body["instance"], numbers["ordinal"], body["label"], numbers.get("index"))


def _whole(name: str, value: Any, lowest: int) -> int:
    """A number as JSON has it, where 7.0 is whole."""
    if type(value) not in (int, float) or value < lowest or value % 1 != 0:  # nor infinity
        raise BadRequest(f"{name} is {quoted(value)}; send a whole number from {lowest}, without quotes")
    return int(value)
