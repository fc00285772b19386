"""What a service answered, held against the wire contract: a prediction, or the kind of failure. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from eval.errors import InvalidResponse
from service.schema import PROBABILITY_DIGITS

SUM_TOLERANCE = 1e-3  # probabilities are rounded to six digits, so ten of them miss 1 by far less
DETAIL_CHARACTERS = 200


def read_answer(body: bytes | bytearray, classes: Sequence[str]) -> tuple[int, tuple[float, ...]]:
    """Class id and probabilities of an answer of `/predict?probabilities=1`. Raises InvalidResponse."""
    answer = _json_object(body)
    probabilities = _probabilities(answer.get("probabilities"), len(classes))
    label = answer.get("id")
    if type(label) is not int or not 0 <= label < len(classes):
        raise InvalidResponse(f"id is {label!r}, expected 0 to {len(classes) - 1}")
    if answer.get("label") != classes[label]:
        raise InvalidResponse(f"id {label} is called {answer.get('label')!r}, expected {classes[label]!r}")
    if probabilities[label] < max(probabilities) - 10**-PROBABILITY_DIGITS:
        raise InvalidResponse(f"id {label} has {probabilities[label]}, but another class has {max(probabilities)}")
    return label, probabilities


def refuse_encoding(headers: Mapping[str, str]) -> None:
    """Raises InvalidResponse for a compressed body: none was asked for, and it is not the contract's."""
    if (encoding := _encoding(headers)) != "identity":
        raise InvalidResponse(f"a body in {encoding}, though only identity was accepted")


def status_failure(status: int, headers: Mapping[str, str], body: bytes | bytearray) -> tuple[str, str] | None:
    """Kind and detail of a status that is not 200; None for 200."""
    if status == 200:
        return None
    if status == 429:
        kind = "http_429"
    elif 400 <= status < 600:
        kind = "http_4xx" if status < 500 else "http_5xx"
    else:
        kind = "bad_answer"
    if 300 <= status < 400 and "Location" in headers:
        return kind, f"{status}: redirected to {_place(headers['Location'])}, which is not followed"
    encoding = _encoding(headers)
    said = _problem_detail(body) if encoding == "identity" else f"a body in {encoding}"
    return kind, f"{status}: {said or 'an empty body'}"


def server_timing(header: str) -> dict[str, float]:
    """Durations by name, in ms, of a Server-Timing header; what cannot be read is left out."""
    found = {}
    for entry in header.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            try:
                duration = float(value.strip('"'))
            except ValueError:
                continue
            if key.strip() == "dur" and math.isfinite(duration):
                found[name] = duration
    return found


def shortened(text: str) -> str:
    """One line of bounded length that a terminal can show."""
    line = " ".join(text[: 4 * DETAIL_CHARACTERS].split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else "\ufffd" for c in line)
    return line if len(line) <= DETAIL_CHARACTERS else line[: DETAIL_CHARACTERS - 1] + "…"


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Encoding", "").strip().lower() or "identity"


def _place(location: str) -> str:
    """Where a redirect leads, without what may be secret in it: user, password, query."""
    place = location.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = place.partition("//")
    host, slash, path = rest.partition("/") if slashes else ("", "", rest)
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _json_object(body: bytes | bytearray) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidResponse(f"not JSON: {_text(body)}" if body else "an empty body") from None
    if not isinstance(answer, dict):
        raise InvalidResponse(f"not a JSON object: {_text(body)}")
    return answer


def _probabilities(values: Any, classes: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != classes:
        found = len(values) if isinstance(values, list) else type(values).__name__
        raise InvalidResponse(f"expected {classes} probabilities, found {found}")
    for value in values:
        if type(value) not in (int, float) or not 0 <= value <= 1:  # NaN is neither
            raise InvalidResponse(f"{value!r} is not a probability")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise InvalidResponse(f"the probabilities sum to {sum(values):.6g}, not 1")
    return tuple(float(value) for value in values)


def _problem_detail(body: bytes | bytearray) -> str:
    """The detail of a problem document, or the beginning of whatever else it is."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return _text(body)


def _text(body: bytes | bytearray) -> str:
    return body[: 4 * DETAIL_CHARACTERS].decode(errors="replace")
