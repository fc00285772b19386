"""What is asked of one deployment: is it ready, what does it serve, does it pass the bundle's self-test?"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from eval.targets.tokens import Token
from release.endpoint import Endpoint, serves
from release.errors import CandidateBroken, ReleaseError
from service.model import Bundle, load_bundle
from service.store_layout import version_of
from tests.helpers.bundles import write_bundle
from tests.helpers.http_server import http_server, send

TOKEN = "a-token-of-16-chars"


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return load_bundle(write_bundle(tmp_path / "bundle", ("black", "white")))


class Service:
    """Answers as it is told: by route, (status, body)."""

    def __init__(self, bundle: Bundle):
        sha256 = bundle.files["float32.onnx"]
        self.version = {"engine": "onnx", "model": {"name": "tiny", "sha256": sha256}}
        self.ready, self.answers, self.posts = 200, [[1.0, 0.0], [0.0, 1.0]], []
        self.passing: list[tuple[str, int, str]] = []  # first answers: path, status, body

    def respond(self, request, body: bytes) -> None:
        if self.passing and self.passing[0][0] == request.path:
            _, status, text = self.passing.pop(0)
            send(request, status, text)
        elif request.command == "POST":
            self.posts.append((request.path, request.headers["Content-Type"], request.headers["Authorization"]))
            answer = self.answers[len(self.posts) - 1]
            send(request, 200 if answer else 500, json.dumps({"probabilities": answer}))
        elif request.path == "/readyz":
            send(request, self.ready, "{}")
        else:
            send(request, 200, json.dumps(self.version))


@pytest.fixture
def service(bundle) -> Service:
    return Service(bundle)


@pytest.fixture
def endpoint(service) -> Iterator[Endpoint]:
    with http_server(service.respond) as port:
        yield Endpoint(f"http://127.0.0.1:{port}", Token(TOKEN))


def test_a_deployment_with_the_bundle_passes_its_self_test(endpoint, service, bundle):
    engine = endpoint.wait_for(bundle, timeout_s=1)
    assert (engine, endpoint.check_self_test(bundle, engine)) == ("onnx", 2)
    assert service.posts == [("/predict?probabilities=1", "image/png", f"Bearer {TOKEN}")] * 2


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[1.0, 0.0], [0.6, 0.4]], "input 2 is 'black' with 0.600, expected 'white'"),
        ([[0.9, 0.1]], "a probability is 0.100 away"),
        ([None], "did not answer the self-test's input 1: HTTP Error 500"),
        ([[1.0]], "1 probabilities for 2 classes"),
    ],
    ids=["another class", "far away", "an error", "too few"],
)
def test_other_answers_than_the_bundles_are_told(answers, message, endpoint, service, bundle):
    service.answers = answers
    with pytest.raises(CandidateBroken, match=message):
        endpoint.check_self_test(bundle, "onnx")


def test_a_deployment_that_serves_another_version_is_named(endpoint, service, bundle):
    service.version["store"] = {"name": "tiny", "alias": "prod", "version": "0123456789ab", "number": 3}
    wanted = version_of((bundle.folder / "model.json").read_bytes())
    with pytest.raises(ReleaseError, match=f"did not serve {wanted} within 0 s; it serves 0123456789ab"):
        endpoint.wait_for(bundle, timeout_s=0)


def test_a_deployment_that_is_not_ready_serves_nothing(endpoint, service, bundle):
    service.ready = 503
    with pytest.raises(ReleaseError, match="it serves nothing"):
        endpoint.wait_for(bundle, timeout_s=0)
    with pytest.raises(ReleaseError, match="/version does not answer"):
        Endpoint("http://127.0.0.1:9").version()


@pytest.mark.parametrize(
    ("status", "text"),
    [(502, "{}"), (200, "<html>starting</html>"), (200, "[]")],
    ids=["an error", "a page", "no object"],
)
def test_a_request_that_fails_meanwhile_is_asked_again(status, text, endpoint, service, bundle, monkeypatch):
    monkeypatch.setattr("release.endpoint.POLL_S", 0.01)
    service.passing = [("/version", status, text)]
    assert endpoint.wait_for(bundle, timeout_s=60) == "onnx" and not service.passing


@pytest.mark.parametrize("text", ["<html>welcome</html>", ""], ids=["a page", "nothing"])
def test_a_page_of_the_platform_is_no_readiness(text, endpoint, service, bundle):
    service.passing = [("/readyz", 200, text)]
    with pytest.raises(ReleaseError, match=r"did not serve \w+ within 0 s; it serves nothing \(Expecting value"):
        endpoint.wait_for(bundle, timeout_s=0)


def test_a_redirect_does_not_get_the_token(bundle):
    """A deployment answers itself; urllib would follow, and show the token to whoever is named."""
    asked: list[str] = []

    def elsewhere(request, _):
        asked.append(request.headers["Authorization"])
        send(request, 200, "{}")

    def lead_on(request, _):
        send(request, 307, Location=f"http://127.0.0.1:{other}/")

    refused = pytest.raises(ReleaseError, match=r"it serves nothing \(HTTP Error 307")
    with http_server(elsewhere) as other, http_server(lead_on) as port, refused:
        Endpoint(f"http://127.0.0.1:{port}", Token(TOKEN)).wait_for(bundle, timeout_s=0)
    assert asked == []


def test_a_token_is_not_sent_in_clear():
    with pytest.raises(ReleaseError, match=r"would be sent to http://example\.org in clear") as error:
        Endpoint("http://example.org", Token(TOKEN))
    assert TOKEN not in str(error.value)
    assert Endpoint("https://example.org", Token(TOKEN)).url and Endpoint("http://example.org").url


def test_the_stores_version_counts_before_the_weights(service, bundle):
    version = version_of((bundle.folder / "model.json").read_bytes())
    assert serves(service.version, bundle)  # of a service without a store: by its weights
    assert serves(service.version | {"store": {"version": version}}, bundle)
    assert not serves(service.version | {"store": {"version": "0" * 12}}, bundle)
    assert not serves(service.version | {"model": {"sha256": "0" * 64}}, bundle)
    assert not serves({}, bundle)
