"""Requests and answers of foreign endpoints: what is sent, what is read, and what each error says."""

from __future__ import annotations

import base64
import json
from email import message_from_bytes

import pytest

from eval.adapters.adapter import RequestForm
from eval.adapters.answers import Answer, AnswerForm, class_id_of, read_scores
from eval.adapters.loading import parse_adapter, ready_forms
from eval.adapters.recognition import recognise
from eval.dataset.class_names import read_class_names
from eval.errors import EndpointError, ImagesError, InvalidResponse
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
     ("LABEL_1", 1), ("class 2", 2), ("LABEL_3", None), ("daisy", None),
     (3, None), (-1, None), (1.5, None), (True, None), (None, None), ({}, None)],
)  # fmt: skip
def test_a_class_is_known_by_its_name_or_number(value, class_id):
    assert class_id_of(value, FLOWERS) == class_id


def test_a_name_that_several_classes_are_like_is_taken_as_it_is():
    assert class_id_of("corn-poppy", ("corn poppy", "corn_poppy")) is None
    assert class_id_of("corn_poppy", ("corn poppy", "corn_poppy")) == 1


def test_an_accent_is_one_character_or_two():
    assert class_id_of("cafe\u0301", ("caf\u00e9", "tea")) == 0


def test_class_names_of_a_file_are_in_its_order(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufefftulip\nrose\r\ncorn poppy\n", encoding="utf-8")
    assert read_class_names(path) == ("tulip", "rose", "corn poppy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rose\n\ntulip", "line 2 is empty"),
        (b"rose\nrose", "line 2 has 'rose' again"),
        (b"rose", "1 classes; expected 2 to"),
        (b"\xff\xfe", "not text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_of_no_class_names_says_why(tmp_path, content, message):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImagesError, match=message):
        read_class_names(path)


def test_a_folder_is_no_file_of_class_names(tmp_path):
    with pytest.raises(ImagesError, match="is a folder: give a file with a class on each line, or leave it out"):
        read_class_names(tmp_path)


@pytest.mark.parametrize(
    ("value", "best", "probabilities"),
    [
        ([0.1, 0.2, 0.7], 2, (0.1, 0.2, 0.7)),
        ([[0.1, 0.2, 0.7]], 2, (0.1, 0.2, 0.7)),
        ([1.5, -2.0, 7.0], 2, None),  # no probabilities: logits
        ({"rose": 0.7, "tulip": 0.2, "corn poppy": 0.1}, 1, (0.1, 0.7, 0.2)),
        ([{"label": "rose", "score": 0.7}, {"label": "tulip", "score": 0.2}], 1, None),  # the best two
        ([{"name": "Rose", "id": 17, "p": 0.7}, {"name": "tulip", "id": 3, "p": 0.3}], 1, None),
        ([{"code": "n01", "label": "rose", "score": 0.7}, {"code": "n02", "label": "tulip", "score": 0.3}], 1, None),
        ({"labels": ["tulip", "rose", "corn poppy"], "scores": [0.7, 0.2, 0.1]}, 2, (0.1, 0.2, 0.7)),
        ({"ids": ["7", "8"], "displayNames": ["rose", "tulip"], "confidences": [0.7, 0.2]}, 1, None),  # Vertex AI
    ],
)
def test_scores_are_read_in_order_or_by_name(value, best, probabilities):
    scores = read_scores(value, FLOWERS)
    assert (scores.best, scores.probabilities) == (best, probabilities)


@pytest.mark.parametrize(
    "value",
    [
        {"a": ["rose"], "b": ["tulip"], "c": [1.0]},
        [],
        {},
        [0.5, 0.5],
        {"daisy": 1.0},
        {"rose": "0.7"},
        [float("nan")] * 3,
        [{"a": "rose"}],
        "rose",
        7,
    ],
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
    found = recognise([payload], FLOWERS)
    assert found == AnswerForm(label, scores)
    assert found.read(json.dumps(payload).encode(), FLOWERS).class_id == 1


@pytest.mark.parametrize(
    ("payloads", "label"),
    [
        ([{"id": 0, "class_id": 1}, {"id": 1, "class_id": 2}], "class_id"),  # and a counter of requests
        ([{"class_model": 0, "y": 1}, {"class_model": 0, "y": 2}], "y"),  # and a number that stays
        ([{"best_class": "rose", "answer": "rose"}, {"best_class": "rose", "answer": "tulip"}], "answer"),
        ([{"a": ["rose"]}, {"a": ["tulip", "rose"]}], "a[0]"),
    ],
)
def test_what_differs_between_first_answers_is_the_label(payloads, label):
    assert recognise(payloads, FLOWERS) == AnswerForm(label, None)


def test_scores_that_one_answer_lacks_are_none():
    payloads = [{"s": {"rose": 0.7}, "class": "rose"}, {"class": "tulip"}]
    assert recognise(payloads, FLOWERS) == AnswerForm("class", None)


def test_of_two_classes_one_probability_tells_both():
    body = b'{"label": "b", "p": 0.75, "sigmoid": [[0.25]]}'
    assert AnswerForm("label", probability="p").read(body, "ab") == Answer(1, (0.25, 0.75))
    assert AnswerForm(scores="sigmoid").read(body, "ab") == Answer(0, (0.75, 0.25))
    assert AnswerForm("label", probability="p").read(body, "abc") == Answer(1, None)
    with pytest.raises(InvalidResponse, match="no probability at sigmoid"):
        AnswerForm("label", probability="sigmoid").read(body, "ab")


def test_height_and_width_are_those_of_the_image():
    body, _ = RequestForm("json", json={"shape": [1, "$height", "$width", 3]}).encode(picture(index=2))
    assert json.loads(body) == {"shape": [1, 34, 32, 3]}


@pytest.mark.parametrize("payload", [{}, {"error": "no image"}, {"status": 1}, [], None, 1, {"scores": [1, 2]}])
def test_nothing_is_read_into_an_answer_without_a_class(payload):
    assert recognise([payload], FLOWERS) is None


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
        ("answer: {scores: a, probability: b}", "there is no answer.label"),
        ("request: {headers: {X-Api-Key: written-out}}", "may be a secret"),
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
