"""Deployments by their address: over HTTP, or as an endpoint of SageMaker, which answers signed invocations alone.

An address is a URL, `sagemaker:ENDPOINT@REGION`, or that of a local twin's InvokeEndpoint.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from eval.load.invocations import ASK_PROBABILITIES, PROBE_DATA
from eval.targets.endpoints import Endpoint as RunEndpoint
from eval.targets.endpoints import TargetSet
from eval.targets.sagemaker.connect import assign_signers, with_twin_signer
from eval.targets.sagemaker.naming import parse_sagemaker
from eval.targets.tokens import Scrubber, Token
from infra.local.invoke_endpoint.process import invoke_url
from release.endpoint import MAX_ANSWER_BYTES, TIMEOUT_S, Endpoint
from service.manifest.records import TabularInput
from service.model import Bundle
from service.schema import JSON_TYPE


def run_endpoint(name: str, target: str | None, address: str, token: Token | None, scrub: Scrubber) -> RunEndpoint:
    """What the harness measures there, signed for where it has to be. Raises EndpointError without AWS credentials."""
    if sagemaker := parse_sagemaker(address):
        unsigned = RunEndpoint(name, target, address, sagemaker=sagemaker)
        return assign_signers(TargetSet((unsigned,), {}), scrub, allow_http=False).endpoints[0]
    port = urlsplit(address).port
    if port and address == invoke_url(port):
        return with_twin_signer(RunEndpoint(name, target, address), port)
    return RunEndpoint(name, target, address, token=token)


def endpoint_at(address: str, bundle: Bundle, token: Token | None = None) -> Endpoint:
    """What a release asks there. bundle: by whose inputs an endpoint of SageMaker is asked what it serves."""
    found = run_endpoint("release", None, address, token, Scrubber())
    return InvokedEndpoint(found, bundle) if found.signer else Endpoint(address, token)


class InvokedEndpoint(Endpoint):
    """Of SageMaker. It has no /readyz and no /version: its answer to a small input stands for both."""

    def __init__(self, endpoint: RunEndpoint, bundle: Bundle):
        super().__init__(endpoint.url)
        self._signer = endpoint.signer
        self._probe = PROBE_DATA, "image/png"
        if isinstance(bundle.input, TabularInput):
            self._probe = json.dumps([feature.min for feature in bundle.input.features]).encode(), JSON_TYPE

    def _call(self, route: str, body: bytes | None = None, media_type: str = JSON_TYPE) -> Any:
        if body is not None:
            return self._invoke(body, media_type)
        answer = self._invoke(*self._probe)
        try:
            return {"model": answer["model"], "engine": answer["model"]["engine"]}
        except (KeyError, TypeError):
            raise ValueError("its answer names no model") from None

    def _invoke(self, body: bytes, media_type: str) -> Any:
        assert self._signer
        headers = self._signer.sign(self.url, {"Content-Type": media_type, **ASK_PROBABILITIES}, body)
        request = urllib.request.Request(self.url, body, headers)
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read(MAX_ANSWER_BYTES))
