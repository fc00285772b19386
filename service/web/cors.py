"""Cross-origin requests: which pages of other origins a browser lets read the answers (CORS, of the Fetch standard)."""

from __future__ import annotations

from typing import Any

from service import schema
from service.settings import ANY_ORIGIN

READABLE = (
    *(schema.INSTANCE_ID, schema.INSTANCE_STARTED, schema.REQUEST_ORDINAL, schema.MODEL_VERSION),
    *(schema.SERVER_TIMING, "Retry-After", "WWW-Authenticate"),
)
PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
    ("Access-Control-Max-Age", "600"),
]


def cors_headers(environ: dict[str, Any], allowed: tuple[str, ...]) -> list[tuple[str, str]]:
    """The headers of an answer, whatever it is; none where no origin is allowed. Cookies are never taken."""
    if not allowed:
        return []
    headers = [("Vary", "Origin")]
    origin = environ.get("HTTP_ORIGIN")
    if origin is None or not {origin, ANY_ORIGIN} & set(allowed):
        return headers
    headers.append(("Access-Control-Allow-Origin", origin))
    if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
        return headers + PREFLIGHT
    return [*headers, ("Access-Control-Expose-Headers", ", ".join(READABLE))]
