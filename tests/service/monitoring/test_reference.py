"""A bundle's reference.json: what is read, and that a bad one ends the start or refuses the switch in one line."""

import json

import pytest

from service.app import create_app
from service.errors import BundleError
from service.model import load_bundle
from service.monitoring.reference import REFERENCE, read_reference
from service.settings import Settings
from tests.helpers.bundles import write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.references import UNIFORM, add_reference, reference_json


def with_input(**changes) -> dict:
    """One distribution of brightness, changed."""
    return reference_json(2) | {"inputs": {"brightness": UNIFORM | changes}}


BAD = {
    "no object": ([], "schema is None"),
    "schema": (reference_json(2, schema=2), "schema is 2; it has to be 1"),
    "count": (reference_json(2, count=0), "count is 0"),
    "true is no count": (reference_json(2, count=True), "count is True"),
    "other inputs": (reference_json(2, ["brightness", "length"]), "inputs is "),
    "bounds": (with_input(bounds=[0.5, 0.5, 0.75]), "inputs.brightness.bounds is"),
    "no bounds": (with_input(bounds=[], shares=[]), "inputs.brightness.bounds is []"),
    "too many bounds": (with_input(bounds=list(range(51)), shares=[1] * 51), "1 to 50 rising numbers"),
    "text": (with_input(bounds=["0.1", 0.2, 0.3]), "inputs.brightness.bounds is"),
    "falling": (with_input(shares=[0.5, 0.25, 0.75]), "inputs.brightness.shares is [0.5, 0.25, 0.75]"),
    "beyond 1": (with_input(shares=[0.5, 0.75, 1.25]), "inputs.brightness.shares is"),
    "short": (with_input(shares=[0.5]), "it has to be 3 shares"),
    "classes": (reference_json(3), "answers.onnx.labels is"),
    "answers": (reference_json(2, answers=[1]), "answers is [1]"),
}


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "tiny", ["dark", "bright"])


@pytest.mark.parametrize(("content", "fault"), BAD.values(), ids=BAD)
def test_a_reference_that_cannot_be_used_is_refused(folder, content, fault):
    bundle = load_bundle(add_reference(folder, content))
    with pytest.raises(BundleError) as error:
        read_reference(bundle, "onnx")
    assert fault in str(error.value) and str(folder / REFERENCE) in str(error.value)
    assert "python -m training.reference writes the file again" in str(error.value)


@pytest.mark.parametrize("key", ["accuracy", "confidence_mean", "labels", "confidence", "margin"])
def test_each_answer_is_checked(folder, key):
    content = reference_json(2)
    content["answers"]["onnx"][key] = 1.5
    with pytest.raises(BundleError, match=rf"answers\.onnx\.{key}.* is (1\.5|None); it has to be"):
        read_reference(load_bundle(add_reference(folder, content)), "onnx")


def test_a_file_that_is_not_json_is_refused(folder):
    bundle = load_bundle(add_reference(folder, reference_json(2)))
    (folder / REFERENCE).write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match="is no reference: Expecting property name"):
        read_reference(bundle, "onnx")


def test_a_changed_reference_has_another_checksum(folder):
    add_reference(folder, reference_json(2))
    (folder / REFERENCE).write_text(json.dumps(reference_json(2, count=2)), encoding="utf-8")
    with pytest.raises(BundleError, match=r"reference\.json has sha256"):
        create_app(settings=Settings.from_env({"ENGINE": "onnx", "MODEL_DIR": str(folder)}))


def test_an_engine_that_was_not_asked_has_no_answers(folder):
    bundle = load_bundle(add_reference(folder, reference_json(2)))
    assert (read := read_reference(bundle, "torch")) and read.answers is None and read.count == 1000
    assert (read := read_reference(bundle, "onnx")) and read.answers and read.answers.accuracy == 0.9


def test_labels_need_not_be_known(folder):
    content = reference_json(2)
    content["answers"]["onnx"]["accuracy"] = None
    read = read_reference(load_bundle(add_reference(folder, content)), "onnx")
    assert read and read.answers and read.answers.accuracy is None


def test_a_bad_reference_ends_the_start_and_refuses_the_switch(tmp_path, folder):
    bad = add_reference(write_bundle(tmp_path / "bad", ["dark", "bright"], weight=30), reference_json(3))
    with pytest.raises(BundleError, match=r"answers\.onnx\.labels"):
        create_app(settings=Settings.from_env({"ENGINE": "onnx", "MODEL_DIR": str(bad)}))
    root = tmp_path / "store"
    good = add_version(root, "tiny", folder)
    point(root, "tiny", "prod", good)
    env = {"MODEL_STORE": str(root), "MODEL": "tiny@prod", "MODEL_POLL_S": "0"}
    app, said = create_app(settings=Settings.from_env(env)), []
    switcher = app.extensions["model_switcher"]
    switcher._say = said.append
    point(root, "tiny", "prod", add_version(root, "tiny", bad))
    switcher.look()
    assert len(said) == 1 and "answers.onnx.labels is" in said[0] and "\n" not in said[0]
    assert app.test_client().get("/version").json["store"]["version"] == good
