"""/ping and /invocations: SageMaker's names for readiness and prediction, CSV, and attributes in place of headers."""

from __future__ import annotations

import pytest

from service import schema
from service.app import create_app
from service.classifier import Classifier
from service.errors import Problem
from service.settings import Settings
from service.web.row_parsing import csv_rows
from tests.helpers.bundles import write_bundle
from tests.helpers.running_service import png_of

CLASSES = ["small", "medium", "large"]
FEATURES = ["length", "width", "height"]


def new_app(folder, **bundle):
    settings = Settings(engine="onnx", model_dir=write_bundle(folder, CLASSES, **bundle))
    return create_app(Classifier.load(settings), settings)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return new_app(tmp_path_factory.mktemp("rows"), features=FEATURES).test_client()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return new_app(tmp_path_factory.mktemp("images")).test_client()


def test_ping_is_the_readiness_of_the_model(images, monkeypatch):
    assert images.get("/ping").status_code == 200
    monkeypatch.setattr(Classifier, "ready", lambda _: False)
    assert images.get("/ping").status_code == 503


def test_an_invocation_answers_as_a_prediction(images):
    answers = [images.post(path, data=png_of(8, 8), content_type="image/png") for path in ("/predict", "/invocations")]
    assert answers[0].json == answers[1].json and answers[1].status_code == 200


def test_an_invocation_tells_its_identity_in_attributes(images):
    reply = images.post("/invocations", data=png_of(8, 8), content_type="image/png")
    told = schema.read_custom_attributes(reply.headers[schema.CUSTOM_ATTRIBUTES])
    assert told == {key: reply.headers[name] for key, name in schema.ATTRIBUTE_HEADERS.items()}
    assert schema.CUSTOM_ATTRIBUTES not in images.post("/predict", data=png_of(8, 8), content_type="image/png").headers


def test_a_refused_invocation_has_attributes_too(images):
    reply = images.post("/invocations", data=b"no image", content_type="image/png")
    assert reply.status_code == 415
    assert "instance_id" in schema.read_custom_attributes(reply.headers[schema.CUSTOM_ATTRIBUTES])


@pytest.mark.parametrize("path", ["/invocations", "/predict"])
def test_all_probabilities_are_an_attribute_of_invocations(images, path):
    headers = {schema.CUSTOM_ATTRIBUTES: "probabilities=1"}
    reply = images.post(path, data=png_of(8, 8), content_type="image/png", headers=headers)
    assert ("probabilities" in reply.json) == (path == "/invocations")


def test_a_line_of_csv_is_a_row_and_several_are_rows(rows):
    one = rows.post("/invocations", data="1,9.5,10\n", content_type="text/csv")
    assert one.json == rows.post("/predict", json=[1, 9.5, 10]).json
    several = rows.post("/invocations", data="\ufeff1,9.5,10\r\n0,0,0\r\n", content_type="text/csv; charset=utf-8")
    assert several.json == rows.post("/predict", json=[[1, 9.5, 10], [0, 0, 0]]).json


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("length,width,height\n1,2,3", 400, "holds no number; leave the header out"),
        ("5.1;3.5;1.4\n", 400, "'5.1;3.5;1.4', has semicolons; put commas between the numbers"),
        ("5,1;3,5;1,4\n", 400, "has semicolons; put commas between the numbers, and write 5.1 with a point"),
        ("5.1\t3.5\t1.4", 400, "has tabs; put commas"),
        ("1,2\n", 422, "height is missing"),
        ("1,2,wide", 422, "'wide', which is no number"),
        ("1,2,3\n1,2", 422, "row 2: height is missing"),
        ("1,2,3,4", 422, "1 of them after height, the last"),
        ("", 400, "holds no row"),
        (b"\xff\xfe1,2,3", 400, "is not CSV in UTF-8"),
        ("1,2,3\n" * 65, 413, "over 64 rows; send at most 64"),
        ("1,2,3\n" * 200_000, 413, "at most 1 MiB of rows"),
    ],
)
def test_csv_that_is_no_row_is_refused_in_words(rows, body, status, told):
    reply = rows.post("/invocations", data=body, content_type="text/csv")
    assert (reply.status_code, told in reply.json["detail"]) == (status, True), reply.json


def test_a_field_without_end_is_refused():
    with pytest.raises(Problem, match="is not CSV"):
        csv_rows(b'1,"' + b"2" * 200_000, ())
