"""Checks a request's AWS Signature Version 4 as AWS does: by its documentation, not by botocore, which signs. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from infra.local.invoke_endpoint.limits import SIGNATURE_LIFETIME_S

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "sagemaker"
TERMINATOR = "aws4_request"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"
AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^/\s]+)/(\d{{8}})/([a-z0-9-]+)/([a-z0-9-]+)/{TERMINATOR},"
    r" ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True)
class Credentials:
    """Those that the front takes."""

    access_key_id: str
    secret_access_key: str


# Of the local twin alone: no account has them, so they are no secret
TWIN_CREDENTIALS = Credentials("AKIDOFTHELOCALTWIN00", "the-local-twin-has-no-account-and-this-is-no-key")


@dataclass(frozen=True)
class SignedRequest:
    """What a signature covers."""

    method: str
    path: str  # as it was sent, percent-encoded
    query: str
    headers: Mapping[str, str]  # by lower-case name
    body: bytes


@dataclass(frozen=True)
class Refusal:
    """AWS's answer to a request that it does not pass on."""

    status: int
    kind: str  # the error's name
    message: str


def check_signature(
    request: SignedRequest, credentials: Credentials, region: str, now: datetime | None = None
) -> Refusal | None:
    """Why the request is refused; None for one that these credentials have signed, for this service and region."""
    header = request.headers.get("authorization", "")
    if not header:
        return Refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    match = AUTHORIZATION.fullmatch(header)
    if match is None:
        return Refusal(403, "IncompleteSignatureException", "the Authorization header is not of Signature Version 4")
    access_key_id, date, signed_region, service, names, signature = match.groups()
    if access_key_id != credentials.access_key_id or "x-amz-security-token" in request.headers:
        message = "The security token included in the request is invalid."
        return Refusal(403, "UnrecognizedClientException", message)
    if fault := _fault_of_scope(signed_region, service, region) or _fault_of_headers(request.headers, names.split(";")):
        return Refusal(403, "InvalidSignatureException", fault)
    timestamp = request.headers["x-amz-date"]
    if fault := _fault_of_date(timestamp, date, now or datetime.now(UTC)):
        return Refusal(403, "InvalidSignatureException", fault)
    scope = f"{date}/{signed_region}/{service}/{TERMINATOR}"
    if not hmac.compare_digest(signature, _signature(request, names, timestamp, scope, credentials.secret_access_key)):
        message = "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
        return Refusal(403, "InvalidSignatureException", f"{message} Access Key and signing method.")
    return None


def _fault_of_scope(signed_region: str, service: str, region: str) -> str | None:
    if service != SERVICE:
        return f"Credential should be scoped to correct service: '{SERVICE}'."
    return f"Credential should be scoped to a valid region, not '{signed_region}'." if signed_region != region else None


def _fault_of_headers(headers: Mapping[str, str], names: list[str]) -> str | None:
    """A signature covers the host, the date and each header that begins with x-amz."""
    needed = {"host", "x-amz-date", *(name for name in headers if name.startswith("x-amz-"))}
    if missing := sorted(needed - set(names)):
        return f"'{missing[0]}' must be a 'SignedHeader' in the AWS Authorization."
    absent = [name for name in names if name not in headers]
    return f"the signed header '{absent[0]}' is not in the request." if absent else None


def _fault_of_date(timestamp: str, date: str, now: datetime) -> str | None:
    try:
        signed_at = datetime.strptime(timestamp, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return f"Date must be in ISO-8601 'basic format'. Got '{timestamp}'."
    if not timestamp.startswith(date):
        return f"Date in Credential scope does not match the date of X-Amz-Date: '{date}' != '{timestamp[:8]}'."
    lifetime = timedelta(seconds=SIGNATURE_LIFETIME_S)
    earliest, latest = f"{now - lifetime:{DATE_FORMAT}}", f"{now + lifetime:{DATE_FORMAT}}"
    if signed_at < now - lifetime:
        return f"Signature expired: {timestamp} is now earlier than {earliest} ({now:{DATE_FORMAT}} - 5 min.)"
    if signed_at > now + lifetime:
        return f"Signature not yet current: {timestamp} is still later than {latest} ({now:{DATE_FORMAT}} + 5 min.)"
    return None


def _signature(request: SignedRequest, names: str, timestamp: str, scope: str, secret: str) -> str:
    """Hexadecimal, of AWS's "Create a signed AWS API request"."""
    pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(request.query, True))
    canonical = "\n".join(
        (
            *(request.method, quote(request.path, safe="/-_.~"), "&".join(f"{k}={v}" for k, v in pairs)),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names.split(";")),
            *("", names, hashlib.sha256(request.body).hexdigest()),
        )
    )
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = "\n".join((ALGORITHM, timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    return hmac.digest(key, to_sign.encode(), "sha256").hex()
