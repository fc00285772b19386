"""How `--target NAME=sagemaker:ENDPOINT[@REGION]` names an endpoint of Amazon SageMaker. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.errors import EndpointError
from eval.validation import MAX_SHOWN_CHARS

SCHEMES = {"sagemaker": False, "sagemaker-serverless": True}  # -> whether it has the limits of a serverless endpoint
ENDPOINT_PATTERN = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")  # of AWS's API
REGION_PATTERN = re.compile(r"[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")


@dataclass(frozen=True)
class SageMakerEndpoint:
    """An endpoint of the account whose credentials AWS's tools find."""

    name: str
    region: str | None = None  # None: as AWS's tools find it
    serverless: bool = False

    @property
    def text(self) -> str:
        """As `--target` names it."""
        scheme = next(scheme for scheme, serverless in SCHEMES.items() if serverless == self.serverless)
        return f"{scheme}:{self.name}{f'@{self.region}' if self.region else ''}"


def parse_sagemaker(address: str) -> SageMakerEndpoint | None:
    """The endpoint that an address names; None for an address of another scheme. Raises EndpointError."""
    scheme, separator, rest = address.partition(":")
    if not separator or scheme not in SCHEMES:
        return None
    name, at, region = rest.partition("@")
    if not ENDPOINT_PATTERN.fullmatch(name) or (at and not REGION_PATTERN.fullmatch(region)):
        raise EndpointError(
            f"{ascii(address)[:MAX_SHOWN_CHARS]} is no endpoint of SageMaker: expected {scheme}:ENDPOINT or"
            f" {scheme}:ENDPOINT@REGION, such as {scheme}:my-endpoint@us-east-1"
        )
    return SageMakerEndpoint(name, region or None, SCHEMES[scheme])
