"""Checks a response against the wire contract: a prediction, or the kind of failure. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.errors import InvalidInput, InvalidResponse
from eval.samples.model import Version
from eval.validation import MAX_MS, parse_json, printable, validate
from service.schema import PROBABILITY_DIGITS, SERVER_TIMING_PARTS

PROBABILITY_SUM_TOLERANCE = 1e-3  # probabilities are rounded to six digits, so ten of them miss 1 by far less
MAX_DETAIL_CHARS = 200
HTML_PAGE = "an HTML page"  # starts the detail of a response that is for people


def parse_prediction(body: bytes | bytearray, classes: Sequence[str]) -> tuple[int, tuple[float, ...]]:
    """Class ID and probabilities in a response of `/predict?probabilities=1`. Raises InvalidResponse."""
    payload = _parse_json_object(body)
    probabilities = _parse_probabilities(payload.get("probabilities"), len(classes))
    label = payload.get("id")
    if type(label) is not int or not 0 <= label < len(classes):
        raise InvalidResponse(f"id is {label!r}, expected 0 to {len(classes) - 1}")
    if payload.get("label") != classes[label]:
        raise InvalidResponse(f"id {label} is called {payload.get('label')!r}, expected {classes[label]!r}")
    if probabilities[label] < max(probabilities) - 10**-PROBABILITY_DIGITS:
        raise InvalidResponse(f"id {label} has {probabilities[label]}, but another class has {max(probabilities)}")
    return label, probabilities


def check_encoding(headers: Mapping[str, str]) -> None:
    """Raises InvalidResponse for a compressed body: the request accepts none."""
    if (encoding := _content_encoding(headers)) != "identity":
        raise InvalidResponse(f"a body in {encoding}, though only identity was accepted")


def classify_status(status: int, headers: Mapping[str, str], body: bytes | bytearray) -> tuple[str, str] | None:
    """Kind and detail of a status that is not 200; None for 200."""
    if status == 200:
        return None
    if status == 429:
        kind = "http_429"
    elif 400 <= status < 600:
        kind = "http_4xx" if status < 500 else "http_5xx"
    else:
        kind = "invalid_response"
    if 300 <= status < 400 and "Location" in headers:
        return kind, f"{status}: redirected to {_redacted_location(headers['Location'])}, which is not followed"
    encoding = _content_encoding(headers)
    detail = problem_detail(body) if encoding == "identity" else f"a body in {encoding}"
    return kind, f"{status}: {detail or 'an empty body'}"


def parse_version(body: bytes | bytearray) -> dict[str, Any]:
    """What a response of /version says, as far as it is understood; nothing of what is no JSON object.

    Foreign endpoints have a /version of their own, so a field of another type is passed over.
    """
    try:
        return validate(Version, parse_json(body, allow_nan=True))  # type: ignore[arg-type]  # an annotated type
    except InvalidInput:
        return {}


def parse_server_timing(header: str) -> dict[str, float]:
    """The service's durations in ms by name, from a Server-Timing header; others, and invalid ones, are left out."""
    durations_ms = {}
    for metric in header.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            try:
                duration_ms = float(value.strip('"'))
            except ValueError:
                continue
            if key.strip() == "dur" and name in SERVER_TIMING_PARTS and 0 <= duration_ms <= MAX_MS:  # NaN is neither
                durations_ms[name] = duration_ms
    return durations_ms


def parse_count(text: str | None) -> int | None:
    """A whole number in a header, or None."""
    return int(text) if text and len(text) <= 12 and text.isascii() and text.isdigit() else None


def to_short_line(text: str) -> str:
    """One line of bounded length that a terminal can show."""
    line = printable(" ".join(text[: 4 * MAX_DETAIL_CHARS].split()))
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"


def _content_encoding(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Encoding", "").strip().lower() or "identity"


def _redacted_location(location: str) -> str:
    """The target of a redirect, without user, password and query, which may be secret."""
    url_without_query = location.partition("?")[0].partition("#")[0]
    scheme, slashes, remainder = url_without_query.partition("//")
    host, slash, path = remainder.partition("/") if slashes else ("", "", remainder)
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _parse_json_object(body: bytes | bytearray) -> dict[str, Any]:
    try:
        payload = parse_json(body)
    except InvalidInput:
        kind = HTML_PAGE if body.lstrip().startswith(b"<") else "not JSON"
        raise InvalidResponse(f"{kind}: {_body_excerpt(body)}" if body else "an empty body") from None
    if not isinstance(payload, dict):
        raise InvalidResponse(f"not a JSON object: {_body_excerpt(body)}")
    return payload


def _parse_probabilities(values: Any, class_count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != class_count:
        actual = len(values) if isinstance(values, list) else type(values).__name__
        raise InvalidResponse(f"expected {class_count} probabilities, found {actual}")
    for value in values:
        if type(value) not in (int, float) or not 0 <= value <= 1:  # NaN is neither
            raise InvalidResponse(f"{value!r} is not a probability")
    if abs(sum(values) - 1) > PROBABILITY_SUM_TOLERANCE:
        raise InvalidResponse(f"the probabilities sum to {sum(values):.6g}, not 1")
    return tuple(float(value) for value in values)


def problem_detail(body: bytes | bytearray) -> str:
    """The detail of a problem document, or the start of any other body."""
    try:
        return str(parse_json(body)["detail"])
    except (InvalidInput, LookupError, TypeError):
        return _body_excerpt(body)


def _body_excerpt(body: bytes | bytearray) -> str:
    return body[: 4 * MAX_DETAIL_CHARS].decode(errors="replace")
