"""The self-test of a bundle: run at every start by the engine itself."""

from __future__ import annotations

import base64
import json
import math

import pytest

from service.classifier import Classifier
from service.errors import BundleError
from service.settings import Settings
from tests.helpers.bundles import fail_when_run, write_bundle

NAN = math.nan


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path, ["dark", "bright"])


def start(folder, **changes):
    """A start after changes of the self-test, whose checksum is corrected."""
    path = folder / "self_test.json"
    write_bundle(folder, ["dark", "bright"], self_test=json.loads(path.read_text(encoding="utf-8")) | changes)
    return Classifier.load(Settings(engine="onnx", model_dir=folder))


def test_a_bundle_with_the_answers_of_its_own_file_starts(folder):
    classifier = start(folder)
    assert (classifier.precision, classifier.device, classifier.details["form"]) == ("float32", "cpu", "float32")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([[1, 0], [0.9, 0.1]], "input 2 is 'bright' with 1.000, expected 'dark' with 0.900"),
        (
            [[0.6, 0.4], [0.0, 1.0]],
            "input 1 is 'dark' with 1.000, expected 'dark' with 0.600, and a probability is 0.4",
        ),
        ([[0.9, 0.1]], "probabilities.onnx has to hold 2 numbers for each input"),
        ([[0.9], [0.1]], "probabilities.onnx has to hold 2 numbers for each input"),
        ([[NAN, NAN], [0, 1]], "probabilities.onnx has to hold 2 numbers for each input"),
        (None, "probabilities.onnx has to hold 2 numbers for each input"),
    ],
    ids=["class", "probability", "missing", "classes", "NaN", "no engine"],
)
def test_other_answers_end_the_start_with_the_difference(folder, answers, says):
    with pytest.raises(BundleError) as error:
        start(folder, probabilities={"onnx": answers})
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs": []}, "inputs have to be a list of 1 to 16"),
        ({"inputs": ["AAAA"] * 17}, "inputs have to be a list of 1 to 16"),
        ({"inputs": ["AAAA", 3]}, "each input has to be an image in base64"),
        ({"inputs": [base64.b64encode(b"text").decode()] * 2}, "input 1 is no image: "),
        ({"tolerance": 1}, "tolerance has to be a number between 0 and 1"),
        ({"tolerance": "0.05"}, "tolerance has to be a number between 0 and 1"),
    ],
    ids=["none", "many", "number", "text", "tolerance", "no number"],
)
def test_a_self_test_that_cannot_be_run_ends_the_start(folder, changes, says):
    with pytest.raises(BundleError) as error:
        start(folder, **changes)
    assert says in str(error.value) and "self_test.json" in str(error.value)


def test_a_network_of_nan_does_not_start(tmp_path):
    with pytest.raises(BundleError, match="fails its self-test with onnx: input 1 is 'dark' with nan"):
        Classifier.load(Settings(engine="onnx", model_dir=write_bundle(tmp_path, ["dark", "bright"], weight=NAN)))


def test_a_network_that_cannot_be_run_does_not_start(folder):
    fail_when_run(folder)
    with pytest.raises(BundleError, match=r"cannot predict with onnx: .*out of data bounds") as error:
        Classifier.load(Settings(engine="onnx", model_dir=folder))
    assert str(error.value).endswith("; export it again")


def test_rows_have_a_self_test_too(tmp_path):
    write_bundle(tmp_path, ["small", "large"], features=["length", "width"])
    settings = Settings(engine="onnx", model_dir=tmp_path)
    assert Classifier.load(settings).precision == "float32"
    with pytest.raises(BundleError, match="each input has to be a list of 2 numbers"):
        write_bundle(
            tmp_path,
            ["small", "large"],
            features=["length", "width"],
            self_test={"inputs": [[1]], "probabilities": {"onnx": [[0, 1]]}, "tolerance": 0.05},
        )
        Classifier.load(settings)
