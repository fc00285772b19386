"""Requests JSON from an HTTP API; an error is one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from infra.errors import ProbeError

TIMEOUT_S = 30


@dataclass(frozen=True)
class Response:
    """Status and body of an API's response."""

    status: int
    body: Any  # of JSON; None when it was none

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


def request_json(
    session: requests.Session, method: str, url: str, params: Mapping[str, str] | None = None, json: Any = None
) -> Response:
    """Send one request. Raises ProbeError when there is no response, or one without JSON."""
    try:
        response = session.request(method, url, params=params, json=json, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise ProbeError(f"{url} does not answer: {_short(error)}") from None
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.ok and body is None:
        raise ProbeError(f"{url} answered {response.status_code} without JSON")
    return Response(response.status_code, body)


def _short(error: Exception) -> str:
    return type(error).__name__ + ("" if len(str(error)) > 200 else f": {error}")
