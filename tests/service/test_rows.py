"""POST /predict of a model of rows: every form of them, what is refused and how, and images where rows belong."""

from __future__ import annotations

import io
import json

import pytest

from service import schema
from service.app import create_app
from service.classifier import Classifier
from service.settings import Settings
from service.web.row_parsing import FIELD
from tests.helpers.bundles import write_bundle

CLASSES = ["small", "<b>medium</b>", "größer"]
FEATURES = ["length (cm)", "width", '<i>µ & "q"</i>', "image"]
ROW = [1, 9.5, 10, 0]  # 5.1 on average
NAMED = dict(zip(FEATURES, ROW, strict=True))
BROWSER = {"Accept": "text/html"}


def new_client(folder, **bundle):
    settings = Settings(engine="onnx", model_dir=write_bundle(folder, CLASSES, **bundle))
    return create_app(Classifier.load(settings), settings).test_client()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return new_client(tmp_path_factory.mktemp("rows"), features=FEATURES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return new_client(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("body", [ROW, NAMED], ids=["list", "names"])
def test_a_row_is_answered_as_an_image_is(client, body):
    reply = client.post("/predict", json=body)
    assert reply.status_code == 200, reply.text
    assert set(reply.json) == {"id", "label", "probability", "top", "model"}
    assert (reply.json["id"], reply.json["label"]) == (1, "<b>medium</b>")
    assert len(reply.json["top"]) == 3
    assert client.post("/predict?probabilities=1", json=body).json["probabilities"][1] > 0.9


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    "body",
    [
        [ROW, [0] * 4, [10, 10, 10, 10.0]],
        {"instances": [ROW, [0] * 4, [10] * 4]},
        {"instances": [NAMED, dict.fromkeys(FEATURES, 0), [10] * 4]},
        [NAMED, dict.fromkeys(FEATURES, 0), dict.fromkeys(FEATURES, 10)],
    ],
    ids=["lists", "instances", "mixed", "names"],
)
def test_rows_are_answered_in_their_order(client, path, body):
    reply = client.post(path, json=body)
    assert [each["id"] for each in reply.json["predictions"]] == [1, 0, 2]
    assert reply.json["model"]["engine"] == "onnx"


def test_one_row_in_a_list_is_answered_with_a_list(client):
    assert len(client.post("/predict", json=[ROW]).json["predictions"]) == 1
    assert len(client.post("/predict/batch", json=ROW).json["predictions"]) == 1


def test_as_many_rows_as_allowed_go_through_the_batcher(client):
    rows = [[10 * (i % 2)] * 4 for i in range(schema.MAX_BATCH_ROWS)]
    predictions = client.post("/predict", json=rows).json["predictions"]
    assert [each["id"] for each in predictions] == [0, 2] * (schema.MAX_BATCH_ROWS // 2)
    reply = client.post("/predict", json=[*rows, ROW])
    assert (reply.status_code, reply.json["detail"]) == (413, "65 rows; send at most 64 in one request")


def test_what_training_had_not_is_answered_and_said(client):
    low, high = client.post("/predict", json=[[-1, 5, 5, 5], [5, 5, 5, 1e30]]).json["predictions"]
    assert low["warnings"] == ["length (cm) is -1; the training data had 0 to 10"]
    assert high["warnings"] == ["image is 1e+30; the training data had 0 to 10"]
    assert client.post("/predict", json=[-1, 5, 5, 5]).json["warnings"] == low["warnings"]


WRONG = [
    pytest.param([1, 2, 3], "image is missing: 3 of 4 values came", id="few"),
    pytest.param([1], "width is missing and 2 more: 1 of 4 values came", id="one"),
    pytest.param([1, 2, 3, 4, 5, 6], "6 values came, 2 of them after image, the last", id="many"),
    pytest.param([ROW, [1, 2]], """row 2: <i>µ & "q"</i> is missing and 1 more: 2 of 4""", id="second"),
    pytest.param([1, float("nan"), 3, 4], "width is nan; send a number from -1e+30 to 1e+30", id="NaN"),
    pytest.param([1, float("-inf"), 3, 4], "width is -inf; send a number", id="infinite"),
    pytest.param([1, 10**400, 3, 4], "width is 1000", id="large"),
    pytest.param([1, 1e39, 3, 4], "width is 1e+39; send a number", id="float64"),
    pytest.param([1, "5.9", 3, 4], "width is '5.9', which is no number; send one, without quotes", id="text"),
    pytest.param([1, None, 3, 4], "width is empty; every row needs all numbers", id="null"),
    pytest.param([1, True, 3, 4], "width is True, which is no number", id="true"),
    pytest.param([1, [2], 3, 4], "width is [2], which is no number", id="list"),
    pytest.param({**NAMED, "width": "x" * 500}, "width is 'xxx", id="long"),
    pytest.param({k: v for k, v in NAMED.items() if k != "width"}, "width is missing; send", id="name"),
    pytest.param({**NAMED, "Width": 1}, "'Width' is no feature of this model", id="unknown"),
    pytest.param({"instances": [NAMED, {}]}, "row 2: length (cm) is missing and 3 more", id="empty"),
]


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_a_wrong_row_is_refused_with_the_feature_named(client, body, says):
    reply = client.post("/predict", data=json.dumps(body), content_type=schema.JSON_TYPE)
    assert (reply.status_code, reply.mimetype) == (422, schema.PROBLEM_TYPE)
    assert says in reply.json["detail"], reply.json["detail"]


def test_an_answer_that_is_no_number_is_refused_with_the_cause(tmp_path):
    """A network may overflow where its training data had nothing like it."""
    steep = new_client(tmp_path, features=["length"], weight=1e9)
    assert steep.post("/predict", json=[10]).json["id"] == 2
    reply = steep.post("/predict", json=[[5], [1e30]])
    assert (reply.status_code, reply.json["detail"]) == (
        422,
        "row 2: the model computes no probabilities for such values: length is 1e+30; the training data had 0 to 10",
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}x",
        b"5",
        b'"x"',
        b"null",
        b'{"instances": []}',
        b'{"instances": [1, 2, 3, 4]}',
        b"[" * 9999,
    ],
)
def test_what_is_no_row_is_refused_with_what_to_send(client, body):
    reply = client.post("/predict", data=body, content_type=schema.JSON_TYPE)
    assert reply.status_code == 400
    assert "send JSON: a list of 4 numbers (length (cm), width, " in reply.json["detail"]


@pytest.mark.parametrize("body", [{}, []], ids=str)
def test_an_empty_row_lacks_every_feature(client, body):
    reply = client.post("/predict", json=body)
    assert (reply.status_code, reply.json["detail"][:33]) == (422, "length (cm) is missing and 3 more")


def test_a_body_of_too_many_numbers_is_refused_unread(client):
    reply = client.post("/predict", data=b"[" + b"1," * 2**19 + b"1]", content_type=schema.JSON_TYPE)
    assert (reply.status_code, reply.json["detail"]) == (
        413,
        "the JSON body has 1048579 bytes; send at most 1 MiB of rows",
    )


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        pytest.param(b"1\n" * 2**19, schema.CSV_TYPE, "over 64 rows", id="lines"),
        pytest.param(b"\n" * (2**20 - 8) + b"1,2,3,4", schema.CSV_TYPE, None, id="blank lines"),
        pytest.param(b"1," * 2**18 + b"1", schema.CSV_TYPE, "over 256 values", id="columns"),
        pytest.param(b"[" + b"{}," * 2**18 + b"{}]", schema.JSON_TYPE, "over 256 values", id="objects"),
        pytest.param(b"[" * 2**19, schema.JSON_TYPE, "over 256 values", id="depth"),
        pytest.param(b"[" + b"1," * 2**18 + b"1]", schema.JSON_TYPE, "over 256 values", id="numbers"),
    ],
)
def test_many_values_are_not_parsed(client, monkeypatch, body, kind, detail):
    parsed = []
    monkeypatch.setattr("service.web.row_parsing.number_or_text", lambda text: parsed.append(text) or float(text))
    monkeypatch.setattr("json.loads", lambda text: parsed.extend([0] * 1000))
    reply = client.post("/predict", data=body, content_type=kind)
    assert len(parsed) <= schema.MAX_BATCH_ROWS + 1
    assert reply.status_code == (413 if detail else 200) and (detail or "") in reply.text


def test_names_with_commas_and_brackets_are_no_values(tmp_path):
    names = [f"a,[{{{number},,,,[[[[" for number in range(4)]
    client = new_client(tmp_path, features=names)
    rows = [dict.fromkeys(names, 1)] * schema.MAX_BATCH_ROWS
    assert len(client.post("/predict", json=rows).json["predictions"]) == schema.MAX_BATCH_ROWS


def test_an_image_to_a_model_of_rows_is_415(client, png):
    def form(**fields):
        return {"image": (io.BytesIO(png), "a.png"), **fields}

    replies = [
        client.post("/predict", data=png, content_type="image/png"),
        client.post("/predict", data=b"\0\0\0\x18ftypheic", content_type="image/heic"),
        client.post("/predict", data=png),
        client.post("/predict", data=png, content_type=schema.JSON_TYPE),
        client.post("/predict", data=form()),
        client.post("/predict/batch", data=form(number0="1")),
        client.post("/predict", json={"img": [[[1, 2, 3]]]}),
    ]
    assert {(reply.status_code, reply.mimetype) for reply in replies} == {(415, schema.PROBLEM_TYPE)}
    for reply in replies:
        assert "this model takes rows of numbers" in reply.json["detail"]


def test_json_without_its_type_is_told_which(client):
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        reply = client.post("/predict", data=json.dumps(ROW), content_type=kind)
        assert reply.status_code == 415
        assert reply.json["detail"].endswith("send the JSON with Content-Type: application/json")


@pytest.mark.parametrize("body", [ROW, [ROW, ROW], {"instances": [ROW]}, NAMED, [NAMED], {"instances": 1}], ids=str)
def test_rows_to_a_model_of_images_are_415(images, body):
    reply = images.post("/predict", json=body)
    assert (reply.status_code, reply.mimetype) == (415, schema.PROBLEM_TYPE)
    assert reply.json["detail"].startswith("this model takes images, not rows of numbers; send ")


@pytest.mark.parametrize("body", [[[[1, 2, 3]]], [1], []], ids=str)
def test_other_lists_to_a_model_of_images_are_told_what_to_send(images, body):
    reply = images.post("/predict", json=body)
    assert (reply.status_code, "the JSON body is list; send" in reply.json["detail"]) == (400, True)


def typed(*texts: str) -> dict[str, str]:
    return {f"{FIELD}{index}": text for index, text in enumerate(texts)}


def test_the_form_is_answered_as_json_to_programs(client):
    reply = client.post("/", data=typed("1", " 9.5 ", "1e1", "0"), content_type="multipart/form-data")
    assert (reply.status_code, reply.json["id"]) == (200, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "width is empty"),
        ("5,9", "width is '5,9', which is no number"),
        ("nan", "width is 'nan'"),
        ("1_0", "width is '1_0'"),
        ("<b>", "width is '<b>'"),
    ],
)
def test_a_wrong_field_is_named(client, text, says):
    reply = client.post("/", data=typed("1", text, "3", "4"), content_type="multipart/form-data")
    assert reply.status_code == 422
    assert reply.json["detail"].startswith(says)


@pytest.mark.parametrize("text", ['"><script>alert(1)</script>', "5"], ids=["problem", "answer"])
def test_what_is_typed_and_names_do_not_become_markup(client, text):
    form = typed("5", text, "5", "5")
    reply = client.post("/", data=form, content_type="multipart/form-data", headers=BROWSER)
    assert reply.mimetype == "text/html" and "&lt;b&gt;medium" in reply.text
    assert [tag for tag in ("<script>alert", "<b>", "<i>µ") if tag in reply.text] == []
