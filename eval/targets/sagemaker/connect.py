"""Gives the endpoints of SageMaker their address and their signer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from eval.errors import EndpointError
from eval.targets.endpoints import Endpoint, TargetSet
from eval.targets.sagemaker.signer import Keys, Signer, open_signer
from eval.targets.tokens import Scrubber, TokenOption, check_route
from infra.local.invoke_endpoint.process import REGION, invoke_url
from infra.local.invoke_endpoint.signature import TWIN_CREDENTIALS


def check_sagemaker_options(remote: TargetSet, tokens: Sequence[TokenOption], restarted: Collection[str] = ()) -> None:
    """Raises EndpointError for options that an endpoint of SageMaker cannot have."""
    names = [endpoint.name for endpoint in remote.endpoints if endpoint.sagemaker]
    only = len(remote.endpoints) + len(remote.start_failures) == 1
    for name in names:
        if any(option.target == name or (only and option.target is None) for option in tokens):
            raise EndpointError(f"{name} takes no token: requests to SageMaker are signed with AWS credentials")
        if name in restarted:
            raise EndpointError(f"{name} cannot be restarted by --cold-command: SageMaker has no /readyz to wait for")


def assign_signers(remote: TargetSet, scrub: Scrubber, *, allow_http: bool) -> TargetSet:
    """The targets, those of SageMaker with address and signer. Raises EndpointError, which names the target."""
    return replace(remote, endpoints=tuple(_with_signer(each, scrub, allow_http) for each in remote.endpoints))


def _with_signer(endpoint: Endpoint, scrub: Scrubber, allow_http: bool) -> Endpoint:
    if endpoint.sagemaker is None:
        return endpoint
    if endpoint.access.query or any(name.lower() == "authorization" for name in endpoint.access.headers):
        raise EndpointError(f"{endpoint.name}: SageMaker takes no query and no Authorization but its signature")
    url, signer = open_signer(endpoint.sagemaker, endpoint.name, scrub)
    if not allow_http:
        check_route(endpoint.name, url)
    return replace(endpoint, url=url, signer=signer)


def with_twin_signer(endpoint: Endpoint, port: int) -> Endpoint:
    """A local twin's endpoint, to which InvokeEndpoint on `port` is the way. Its credentials are no secret."""
    return replace(endpoint, url=invoke_url(port), signer=twin_signer(endpoint.name))


def twin_signer(name: str) -> Signer:
    """Signs for a local twin."""
    return Signer(name, REGION, TwinCredentials(), Scrubber())


class TwinCredentials:
    """As botocore's, those that the twin's InvokeEndpoint takes."""

    def get_frozen_credentials(self) -> Keys:
        return Keys(TWIN_CREDENTIALS.access_key_id, TWIN_CREDENTIALS.secret_access_key)
