"""What the app does when its model misbehaves: a network of our own in place of the shipped one."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest

from service.app import create_app
from service.classifier import Classifier
from service.model import Bundle
from service.schema import PROBLEM_TYPE
from service.settings import Settings

BUNDLE = Bundle(
    Path(), "test", "none", tuple("abcdef"), 32, (0.5,) * 3, (0.5,) * 3, {"weights": "0123456789abcdef" * 4}
)


class Engine:
    """Answers evenly, or with the failure it was given."""

    name, weights, libraries = "test", "weights", {"test": "1"}
    failure: BaseException | None = None

    def probabilities(self, batch):
        if self.failure:
            raise self.failure
        return np.full((len(batch), 6), 1 / 6, np.float32)


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def client(engine):
    return create_app(Classifier(BUNDLE, engine, Settings()), Settings()).test_client()


@pytest.mark.parametrize("failure", [RuntimeError("secret path"), MemoryError()], ids=repr)
def test_a_failing_engine_gives_a_500_problem_and_the_next_request_is_answered(client, engine, png, caplog, failure):
    engine.failure = failure
    with caplog.at_level(logging.ERROR):
        reply = client.post("/predict", data=png, content_type="image/png")
    assert (reply.status_code, reply.mimetype) == (500, PROBLEM_TYPE)
    assert reply.json["detail"].startswith("the service failed; its log says why")
    assert "secret" not in reply.text
    assert caplog.records[0].exc_info
    engine.failure = None
    assert client.post("/predict", data=png, content_type="image/png").status_code == 200


def test_a_service_whose_batcher_has_ended_is_alive_but_not_ready(client, monkeypatch):
    monkeypatch.setattr(Classifier, "ready", lambda self: False)
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json["title"]) == (503, "Not ready")
    assert client.get("/healthz").status_code == 200


def test_equal_probabilities_are_ranked_by_id_and_cut_at_five(client, png):
    top = client.post("/predict", data=png, content_type="image/png").json["top"]
    assert [entry["id"] for entry in top] == [0, 1, 2, 3, 4]


def test_the_page_shows_the_picture_that_was_posted(client, png):
    form = {"image": (io.BytesIO(png), "a.png")}
    reply = client.post("/", data=form, headers={"Accept": "text/html"})
    assert reply.status_code == 200
    assert "data:image/png;base64,iVBOR" in reply.text


def test_what_a_client_sent_cannot_become_markup(client, png):
    form = {"<script>alert(1)</script>": (io.BytesIO(png), "a.png")}
    reply = client.post("/", data=form, headers={"Accept": "text/html"})
    assert reply.status_code == 400
    assert "<script>alert" not in reply.text


def test_a_problem_quotes_only_so_much_of_what_was_sent(client):
    reply = client.post("/predict", json={"x" * 100_000: 1})
    assert reply.status_code == 400
    assert len(reply.json["detail"]) == 500
