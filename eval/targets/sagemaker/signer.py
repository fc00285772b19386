"""Signs requests to SageMaker (AWS Signature Version 4), with credentials and region as AWS's own tools find them.

botocore is imported only when an endpoint needs it. The credentials are in no file of a run, and masked in all text.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from eval.errors import EndpointError
from eval.targets.sagemaker.naming import SageMakerEndpoint
from eval.targets.tokens import MASK, MIN_MASKED_CHARACTERS, Scrubber, Token
from infra.local.invoke_endpoint.limits import max_body_bytes

SIGNING_NAME = "sagemaker"
RENEW_AFTER_S = 60.0  # then the credentials are looked at again; botocore renews those that end in 10 to 15 minutes
MUST_RENEW_AFTER_S = 300.0  # the same in the middle of a block of requests
NO_CREDENTIALS = (
    "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`"
)
NO_REGION = "no AWS region: write {}@REGION, or set AWS_DEFAULT_REGION"


class Keys(NamedTuple):
    """Credentials as they are at one moment, with botocore's names."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return MASK


class Signer:
    """Signs for one endpoint."""

    def __init__(self, name: str, region: str, credentials: Any, scrub: Scrubber, *, serverless: bool = False):
        """credentials: botocore's, which may renew themselves. scrub: is told every secret of theirs."""
        self.name = name
        self.region = region
        self.max_body_bytes = max_body_bytes(serverless=serverless)
        self._credentials = credentials
        self._scrub = scrub
        self._keys: Keys | None = None
        self.renew()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process: the credentials as they are now."""
        return vars(self) | {"_credentials": None}

    @property
    def is_due(self) -> bool:
        """Whether the credentials should be looked at again before the next block of requests."""
        return self._credentials is not None and time.monotonic() - self._renewed_at > RENEW_AFTER_S

    def renew(self) -> None:
        """Look at the credentials again, which may ask AWS for new ones. Raises EndpointError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            frozen = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, RuntimeError) as error:  # the last: the new ones have ended, too
            raise EndpointError(f"{self.name}: {one_line(error)}") from None
        keys = Keys(frozen.access_key, frozen.secret_key, frozen.token)
        if keys != self._keys:
            secrets = (keys.secret_key, keys.token or "")
            self._scrub.add(Token(secret) for secret in secrets if len(secret) >= MIN_MASKED_CHARACTERS)
        self._keys, self._renewed_at = keys, time.monotonic()

    def sign(self, url: str, headers: Mapping[str, str], body: bytes, sha256: str | None = None) -> dict[str, str]:
        """The headers of a POST with its signature, which is valid for five minutes. Raises EndpointError.

        sha256: of the body, hexadecimal, where it is known: computing it would take most of the time.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        if self._credentials is not None and time.monotonic() - self._renewed_at > MUST_RENEW_AFTER_S:
            self.renew()
        checksum = sha256 or hashlib.sha256(body).hexdigest()
        request = AWSRequest("POST", url, headers={**headers, "X-Amz-Content-SHA256": checksum})
        SigV4Auth(self._keys, SIGNING_NAME, self.region).add_auth(request)
        return dict(request.headers.items())


def open_signer(endpoint: SageMakerEndpoint, name: str, scrub: Scrubber) -> tuple[str, Signer]:
    """The address to which requests are posted, and their signer. name: of the target. Raises EndpointError.

    As AWS's tools do, it follows AWS_PROFILE, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME and the other variables and files.
    """
    try:
        import botocore.session
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise EndpointError(f"{name}: requests to SageMaker are signed by botocore: pip install botocore") from None
    try:
        session = botocore.session.get_session()
        region = endpoint.region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
        if not region:
            raise EndpointError(f"{name}: {NO_REGION.format(endpoint.text)}")
        credentials = session.get_credentials()
        if credentials is None:
            raise EndpointError(f"{name}: {NO_CREDENTIALS}")
        client = session.create_client("sagemaker-runtime", region_name=region)
    except (BotoCoreError, ClientError, ValueError) as error:
        raise EndpointError(f"{name}: {one_line(error)}") from None
    url = f"{client.meta.endpoint_url.rstrip('/')}/endpoints/{endpoint.name}/invocations"
    return url, Signer(name, region, credentials, scrub, serverless=endpoint.serverless)


def one_line(error: Exception) -> str:
    """The first line of botocore's message."""
    return f"AWS credentials or settings: {(str(error).splitlines() or [type(error).__name__])[0]}"
