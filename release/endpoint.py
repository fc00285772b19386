"""One deployment over HTTP: is it ready, which version does it serve, does it pass the bundle's self-test?"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from eval.targets.tokens import Token, is_loopback
from infra.waits.polling import NoRedirect
from release.errors import CandidateBroken, ReleaseError
from service.errors import BundleError
from service.manifest.records import TabularInput
from service.manifest.self_test import read_self_test
from service.model import VERSION_DIGITS, Bundle
from service.schema import JSON_TYPE, PREDICT, READYZ
from service.schema import VERSION as VERSION_ROUTE
from service.store_layout import version_of

POLL_S = 0.5
TIMEOUT_S = 30.0  # of one request
MAX_ANSWER_BYTES = 4 * 1024 * 1024
NO_ANSWER = (OSError, ValueError, http.client.HTTPException)  # none, or none that was meant


class Endpoint:
    """Asks one deployment."""

    def __init__(self, url: str, token: Token | None = None):
        """Raises ReleaseError where others could read the token on its way."""
        if token and not url.startswith("https://") and not is_loopback(url):
            raise ReleaseError(
                f"the token would be sent to {url} in clear: give the stack HTTPS, or leave --token-env out"
            )
        self.url = url
        self._headers = token.headers() if token else {}
        direct = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
        self._opener = urllib.request.build_opener(NoRedirect, *direct)

    def version(self) -> dict[str, Any]:
        """What /version reports. Raises ReleaseError."""
        try:
            answer = self._call(VERSION_ROUTE)
            if not isinstance(answer, dict):
                raise ValueError("its answer is no JSON object")
        except NO_ANSWER as error:
            raise ReleaseError(f"{self.url}{VERSION_ROUTE} does not answer: {error}") from None
        return answer

    def wait_for(self, bundle: Bundle, timeout_s: float) -> str:
        """The engine that serves this bundle, once the deployment is ready and says so. Raises ReleaseError.

        While a platform goes over to another version, any request may fail: only the time decides.
        """
        deadline, served = time.monotonic() + timeout_s, "nothing"
        while True:
            try:
                self._call(READYZ)
                answer = self.version()
            except (*NO_ANSWER, ReleaseError) as error:
                served = f"nothing ({error})"
            else:
                if serves(answer, bundle):
                    return answer["engine"]
                served = _served(answer)
            if time.monotonic() > deadline:
                wanted = version_of_bundle(bundle)
                raise ReleaseError(f"{self.url} did not serve {wanted} within {timeout_s:.0f} s; it serves {served}")
            time.sleep(POLL_S)

    def check_self_test(self, bundle: Bundle, engine: str) -> int:
        """Send the bundle's self-test, and return the number of inputs. Raises CandidateBroken with what differs."""
        if bundle.self_test is None:
            return 0
        features = len(bundle.input.features) if isinstance(bundle.input, TabularInput) else None
        try:
            test = read_self_test(bundle.path(bundle.self_test), engine, len(bundle.classes), features)
        except BundleError as error:
            raise CandidateBroken(str(error)) from None
        for index, sent in enumerate(test.inputs):
            body, kind = (sent, _image_type(sent)) if features is None else (json.dumps(sent).encode(), JSON_TYPE)
            try:
                found = _probabilities(self._call(f"{PREDICT}?probabilities=1", body, kind), bundle)
            except (*NO_ANSWER, KeyError, TypeError, IndexError) as error:
                raise CandidateBroken(f"{self.url} did not answer the self-test's input {index + 1}: {error}") from None
            if difference := test.difference(index, found, bundle.classes):
                raise CandidateBroken(f"{self.url} does not pass the bundle's self-test: {difference}")
        return len(test.inputs)

    def _call(self, route: str, body: bytes | None = None, media_type: str = JSON_TYPE) -> Any:
        headers = self._headers | ({"Content-Type": media_type} if body is not None else {})
        request = urllib.request.Request(f"{self.url}{route}", body, headers)
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read(MAX_ANSWER_BYTES))


def serves(version: Mapping[str, Any], bundle: Bundle) -> bool:
    """Whether /version reports this bundle: its version in the store, or else the checksum of the engine's file."""
    if store := version.get("store"):
        return store.get("version") == version_of_bundle(bundle)
    engine = bundle.engines.get(version.get("engine", ""))
    if engine is None:
        return False
    model = version.get("model") or {}
    if "sha256" not in model:  # of an endpoint of SageMaker, which tells how that begins
        return model.get("version") == bundle.version(engine.file)
    return model["sha256"] == bundle.files.get(engine.file)


def version_of_bundle(bundle: Bundle) -> str:
    """Its version in a store."""
    return version_of((bundle.folder / "model.json").read_bytes())


def _served(version: Mapping[str, Any]) -> str:
    if store := version.get("store"):
        return str(store.get("version"))
    model = version.get("model") or {}
    return f"weights {str(model.get('sha256') or model.get('version'))[:VERSION_DIGITS]}"


def _image_type(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def _probabilities(answer: Any, bundle: Bundle) -> list[float]:
    values = [float(value) for value in answer["probabilities"]]
    if len(values) != len(bundle.classes):
        raise ValueError(f"{len(values)} probabilities for {len(bundle.classes)} classes")
    return values
