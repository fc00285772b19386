"""Requests and answers of foreign endpoints: what is sent, what is read, and what each error says."""

from __future__ import annotations

import base64
import json
from email import message_from_bytes

import pytest

from eval.adapters.adapter import AnswerForm, RequestForm, class_id_of, read_scores
from eval.adapters.loading import parse_adapter, ready_forms
from eval.adapters.recognition import recognise
from eval.errors import EndpointError, InvalidResponse
from tests.helpers.fake_endpoint import picture

FLOWERS = ("corn poppy", "rose", "tulip")
IMAGE = picture()


def test_an_image_is_sent_as_its_bytes_by_default():
    assert RequestForm().encode(IMAGE) == (IMAGE.data, "image/png")


def test_a_form_has_the_image_in_its_named_part():
    body, content_type = RequestForm("multipart", part="file").encode(IMAGE)
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    (part,) = message.get_payload()
    assert part.get_param("name", header="Content-Disposition") == "file" and part.get_filename() == "image.png"
    assert part.get_content_type() == "image/png"


def test_placeholders_are_filled_wherever_they_stand():
    template = {"inputs": [{"data": ["$base64"], "uri": "$data_uri", "rows": "$pixels", "name": "image"}]}
    body, content_type = RequestForm("json", json=template).encode(IMAGE)
    (sent,) = json.loads(body)["inputs"]
    encoded = base64.b64encode(IMAGE.data).decode()
    assert content_type == "application/json"
    assert sent["data"] == [encoded] and sent["uri"] == f"data:image/png;base64,{encoded}" and sent["name"] == "image"
    assert len(sent["rows"]) == 32 and len(sent["rows"][0]) == 32 and len(sent["rows"][0][0]) == 3


@pytest.mark.parametrize(
    ("value", "class_id"),
    [("tulip", 2), ("Tulip", 2), ("CORN_POPPY", 0), ("corn-poppy", 0), (1, 1), (1.0, 1), ("1", 1), (["rose"], 1),
     ("daisy", None), (3, None), (-1, None), (1.5, None), (True, None), (None, None), ({}, None)],
)  # fmt: skip
def test_a_class_is_known_by_its_name_or_number(value, class_id):
    assert class_id_of(value, FLOWERS) == class_id


@pytest.mark.parametrize(
    ("value", "best", "probabilities"),
    [
        ([0.1, 0.2, 0.7], 2, (0.1, 0.2, 0.7)),
        ([[0.1, 0.2, 0.7]], 2, (0.1, 0.2, 0.7)),
        ([1.5, -2.0, 7.0], 2, None),  # no probabilities: logits
        ({"rose": 0.7, "tulip": 0.2, "corn poppy": 0.1}, 1, (0.1, 0.7, 0.2)),
        ([{"label": "rose", "score": 0.7}, {"label": "tulip", "score": 0.2}], 1, None),  # the best two
        ([{"name": "Rose", "id": 17, "p": 0.7}, {"name": "tulip", "id": 3, "p": 0.3}], 1, None),
    ],
)
def test_scores_are_read_in_order_or_by_name(value, best, probabilities):
    scores = read_scores(value, FLOWERS)
    assert (scores.best, scores.probabilities) == (best, probabilities)


@pytest.mark.parametrize(
    "value", [[], {}, [0.5, 0.5], {"daisy": 1.0}, {"rose": "0.7"}, [float("nan")] * 3, [{"a": "rose"}], "rose", 7]
)
def test_what_holds_no_scores_is_none(value):
    assert read_scores(value, FLOWERS) is None


@pytest.mark.parametrize(
    ("payload", "label", "scores"),
    [
        ({"result": {"class": "rose", "probabilities": [0.1, 0.7, 0.2]}}, "result.class", "result.probabilities"),
        ([{"label": "rose", "score": 0.7}, {"label": "tulip", "score": 0.3}], None, "@"),
        ({"outputs": [{"name": "p", "shape": [1, 3], "data": [0.1, 0.7, 0.2]}]}, None, "outputs[0].data"),
        ({"predictions": [[0.1, 0.7, 0.2]]}, None, "predictions"),
        ({"class_id": 1, "time_ms": 2}, "class_id", None),
        ({"status": 1, "answer": {"the class": "rose"}}, 'answer."the class"', None),
        ("rose", "@", None),
    ],
)
def test_an_answer_is_recognised_wherever_it_stands(payload, label, scores):
    found = recognise(payload, FLOWERS)
    assert found == AnswerForm(label, scores)
    assert found.read(json.dumps(payload).encode(), FLOWERS).class_id == 1


@pytest.mark.parametrize("payload", [{}, {"error": "no image"}, {"status": 1}, [], None, 1, {"scores": [1, 2]}])
def test_nothing_is_read_into_an_answer_without_a_class(payload):
    assert recognise(payload, FLOWERS) is None


@pytest.mark.parametrize(
    ("form", "body", "message"),
    [
        (AnswerForm("a"), b'{"a": "daisy"}', "no class at a: daisy, expected one of corn poppy, rose, tulip"),
        (AnswerForm("a"), b'{"b": 1}', "no class at a: null, expected"),
        (AnswerForm(scores="a"), b'{"a": [1, 2]}', r"no scores of 3 classes at a: \[1, 2\]"),
        (AnswerForm("a"), b"", "an empty body"),
        (AnswerForm("a"), b"<html>" + bytes(200), "neither JSON nor a label: <html>"),
    ],
)
def test_an_answer_that_does_not_fit_says_what_came(form, body, message):
    with pytest.raises(InvalidResponse, match=message):
        form.read(body, FLOWERS)


def adapter_file(tmp_path, text):
    path = tmp_path / "adapter.yaml"
    path.write_text(text)
    return f"mine={path}"


def test_an_adapter_file_says_all_and_hides_its_secrets(tmp_path):
    text = """
        request: {body: json, json: {image: $base64}, path: /v1, headers: {X-Api-Key: $KEY}, query: {version: "2"}}
        answer: {label: class, scores: scores}"""
    option = parse_adapter(adapter_file(tmp_path, text), {"KEY": "a-secret-key"})
    assert option.target == "mine" and option.answer == AnswerForm("class", "scores")
    assert option.request.headers == {"X-Api-Key": "a-secret-key"} and option.request.query == {"version": "2"}
    assert [token.secret for token in option.secrets] == ["a-secret-key"]
    assert "a-secret-key" not in repr(option)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("request: {body: xml}", "body is 'xml'"),
        ("request: {bodi: raw}", "'bodi' is not known: there are body"),
        ("requests: {}", "'requests' is not known: there are answer, request"),
        ("request: {body: json, json: {a: b}}", "no place for the image"),
        ("answer: {}\nrequest: {headers: {X: $NONE}}", r"X is \$NONE, and that variable is not set"),
        ("answer: {label: 'a['}", "is not a JMESPath expression"),
        ("- 1", "an adapter is a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_adapter_file_is_one_line_that_says_what(tmp_path, text, message):
    with pytest.raises(EndpointError, match=message) as error:
        parse_adapter(adapter_file(tmp_path, text), {})
    assert "\n" not in str(error.value)


def test_a_ready_form_is_named_and_a_missing_file_lists_them():
    assert parse_adapter("mine=vertex", {}).request == ready_forms()["vertex"]
    with pytest.raises(EndpointError, match=r"nowhere.yaml: No such file or directory; the ready ones are raw, "):
        parse_adapter("mine=nowhere.yaml", {})
    with pytest.raises(EndpointError, match="expected NAME=FILE"):
        parse_adapter("nowhere.yaml", {})
