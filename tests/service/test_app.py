"""What the app does around its model: a network of our own in place of the shipped one."""

import io
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from flask import request

from service import schema
from service.app import create_app
from service.batcher import Batcher
from service.classifier import Classifier
from service.model import Bundle
from service.schema import PROBLEM_TYPE, Busy
from service.settings import Settings

BUNDLE = Bundle(
    Path(), "test", "none", tuple("abcdef"), 32, (0.5,) * 3, (0.5,) * 3, {"weights": "0123456789abcdef" * 4}
)


class Engine:
    """Answers evenly, or with the failure it was given."""

    name, weights, libraries, details = "test", "weights", {"test": "1"}, {"form": "even"}
    any_thread = True
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


# The short way of one small picture, and Flask's way

SHORT, FLASKS = {"Accept": "*/*"}, {"Accept": "application/json, */*;q=0.1"}
VARYING = {schema.REQUEST_ORDINAL, schema.SERVER_TIMING}


@pytest.fixture
def app(engine):
    return create_app(Classifier(BUNDLE, engine, Settings(max_queue=1)), Settings())


@pytest.fixture
def entered(app):
    """The paths of requests that Flask has seen."""
    entered = []
    app.before_request(lambda: entered.append(request.path))
    return entered


@pytest.mark.parametrize("query", ["", "?probabilities=1", "?probabilities=0"])
@pytest.mark.parametrize("cut", [None, 99, 5], ids=["good", "cut short", "unknown"])
@pytest.mark.parametrize("failure", [None, Busy("full", 7), RuntimeError()], ids=["ok", "busy", "failure"])
def test_the_short_way_and_flasks_way_give_the_same_answer(app, entered, engine, png, query, cut, failure, caplog):
    client, engine.failure = app.test_client(), failure
    answers = [
        client.post(f"/predict{query}", data=png[:cut], content_type="image/png", headers=accept)
        for accept in (SHORT, FLASKS)
    ]
    assert entered == ["/predict"]
    short, flasks = [(a.status, {k: v for k, v in a.headers.items() if k not in VARYING}, a.data) for a in answers]
    assert short == flasks
    parts = [re.findall(r"(\w+);dur=[0-9.]+", a.headers[schema.SERVER_TIMING]) for a in answers]
    assert parts[0] == parts[1]
    assert [a.headers[schema.REQUEST_ORDINAL] for a in answers] == ["1", "2"]


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/", {}),
        ("/predict?x=1", {}),
        ("/predict", {"headers": {"Accept": "text/html"}}),
        ("/predict", {"headers": {"Accept": "text/*"}}),
        ("/predict", {"content_type": "text/plain"}),
        ("/predict", {"data": b""}),
        ("/predict", {"data": bytes(70_000)}),
    ],
    ids=["page", "query", "html", "any text", "not an image", "empty", "large"],
)
def test_what_is_unusual_goes_flasks_way(app, entered, png, path, options):
    app.test_client().post(path, **({"data": png, "content_type": "image/png"} | options))
    assert len(entered) == 1


def test_with_a_token_to_check_everything_goes_flasks_way(engine, png):
    client = create_app(Classifier(BUNDLE, engine, Settings()), Settings(api_token="s3cret")).test_client()
    assert client.post("/predict", data=png, content_type="image/png").status_code == 401


@pytest.mark.parametrize("accept", [SHORT, FLASKS], ids=["short", "flask"])
def test_a_full_queue_refuses_before_anything_is_decoded_or_numbered(app, monkeypatch, accept):
    monkeypatch.setattr(Batcher, "has_room", lambda self: False)
    monkeypatch.setattr(Batcher, "busy", lambda self: Busy("full", 7))
    reply = app.test_client().post("/predict", data=b"no picture", content_type="image/png", headers=accept)
    assert (reply.status_code, reply.headers["Retry-After"], reply.json["detail"]) == (503, "7", "full")
    assert reply.headers[schema.REQUEST_ORDINAL] == "0"


def test_a_body_of_a_plain_request_that_breaks_off_is_the_clients_fault(app, entered, png):
    longer = {"CONTENT_LENGTH": str(len(png) + 1)}
    reply = app.test_client().post("/predict", data=png, content_type="image/png", environ_overrides=longer)
    assert reply.status_code == 400
    assert f"broke off after {len(png)} of {len(png) + 1} bytes" in reply.json["detail"]
    assert not entered
