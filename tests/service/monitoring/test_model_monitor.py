"""The series of drift in GET /metrics, of a real service: what is counted, once for each input, and for how long."""

import base64
import io
import json
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from service.app import create_app
from service.manifest.records import Feature, TabularInput
from service.model import load_bundle
from service.monitoring.inputs import LIGHT
from service.monitoring.model_monitor import MAX_REFERENCE_LABELS, MAX_WAITING, ModelMonitor
from service.monitoring.reference import Distribution, Reference, read_reference
from service.schema import Prediction
from service.settings import Settings
from tests.conftest import ROOT
from tests.helpers.bundles import bundle_in_memory, one_coloured, write_bundle
from tests.helpers.model_stores import add_version, point
from tests.helpers.references import add_reference, reference_json

WHITE, BLACK = one_coloured(255), one_coloured(0)
FEATURES = ["length", "width"]


def client_of(folder: Path, **settings):
    env = {"ENGINE": "onnx", "MODEL_DIR": str(folder)} | settings
    return create_app(settings=Settings.from_env(env)).test_client()


def series(source) -> dict:
    """(name without classifier_, other labels than instance and version, by name) -> value; all of one version."""
    text = source if isinstance(source, str) else source.get("/metrics").text
    found, versions = {}, set()
    for sample in (sample for family in families(text) for sample in family.samples):
        labels = {name: value for name, value in sample.labels.items() if name not in ("instance", "version")}
        if "version" in sample.labels and "engine" not in sample.labels:
            versions.add(sample.labels["version"])
            found[(sample.name.removeprefix("classifier_"), *(labels[name] for name in sorted(labels)))] = sample.value
    assert len(versions) == 1
    return found


def image_requests(client) -> None:
    """Seven images by every route: two black, five white."""
    batch = {"image": [(io.BytesIO(data), "a.png") for data in (WHITE, BLACK)]}
    packed = b"".join(struct.pack("<I", len(data)) + data for data in (WHITE, BLACK))
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    replies = [
        client.post("/predict", data=WHITE, content_type="image/png"),
        client.post("/predict/batch", data=batch),
        client.post("/invocations", json={"image": base64.b64encode(WHITE).decode()}),
        client.post("/v2/models/tiny/infer", data=head + packed,
                    headers={"Inference-Header-Content-Length": str(len(head))}),
        client.post("/", data=WHITE, content_type="image/png"),
    ]  # fmt: skip
    assert [reply.status_code for reply in replies] == [200] * 5, [reply.text for reply in replies]
    assert client.post("/predict", data=b"no image", content_type="image/png").status_code >= 400


def test_every_route_counts_each_image_once(tmp_path):
    client = client_of(write_bundle(tmp_path / "tiny", ["dark", "bright"]), MANAGE_TOKEN="x" * 20)
    image_requests(client)
    found = series(client)
    assert (found["predictions_total", "bright"], found["predictions_total", "dark"]) == (5, 2)
    for name in ("confidence", "margin", "brightness", "contrast"):
        assert found[f"{name}_count",] == found[f"{name}_bucket", "+Inf"] == 7
    assert found["brightness_sum",] == pytest.approx(5, abs=1e-4)
    assert found["brightness_bucket", "0.05"] == 2 and found["brightness_bucket", "0.95"] == 2
    assert found["contrast_bucket", "0.025"] == 7
    assert found["confidence_sum",] == pytest.approx(7, abs=1e-3) == found["margin_sum",]


def test_rows_are_counted_by_feature_at_the_references_bounds(tmp_path):
    bundle = write_bundle(tmp_path / "rows", ["small", "large"], features=FEATURES)
    add_reference(bundle, reference_json(2, FEATURES[:1]))
    client = client_of(bundle)
    assert client.post("/predict", json=[[0.25, 9], [0.5, 9], [8, 9]]).status_code == 200
    found = series(client)
    assert [found["feature_bucket", "length", le] for le in ("0.25", "0.5", "0.75", "+Inf")] == [1, 2, 2, 3]
    assert found["reference_feature", "length", "0.5"] == 0.5
    assert not [key for key in found if "width" in key or key[0].startswith(("brightness", "reference_contrast"))]


def test_a_row_that_is_refused_is_not_counted(tmp_path):
    """Its network overflows; by then it has predicted something."""
    bundle = write_bundle(tmp_path / "rows", ["small", "middle", "large"], features=FEATURES[:1], weight=1e9)
    client = client_of(add_reference(bundle, reference_json(3, FEATURES[:1])))
    assert client.post("/predict", json=[10]).status_code == 200
    assert client.post("/predict", json=[1e30]).status_code == 422
    found = series(client)
    assert found["predictions_total", "large"] == found["confidence_count",] == found["feature_count", "length"] == 1
    assert not [key for key in found if key == ("predictions_total", "small")] and found["feature_sum", "length"] == 10


def test_without_a_reference_there_are_no_gauges_and_no_features(tmp_path):
    for features, sent in (((), {"data": WHITE, "content_type": "image/png"}), (FEATURES, {"json": [1, 1]})):
        client = client_of(write_bundle(tmp_path / f"{len(features)}", ["a", "b"], features=features))
        assert client.post("/predict", **sent).status_code == 200
        names = {key[0] for key in series(client)}
        assert "confidence_count" in names
        assert not [name for name in names if name.startswith(("reference", "feature"))]


def test_a_references_gauges_name_the_histograms_buckets(tmp_path):
    client = client_of(add_reference(write_bundle(tmp_path / "tiny", ["a", "b"]), reference_json(2)))
    found = series(client)
    for name in ("confidence", "margin", "brightness", "contrast"):
        buckets = {key[1] for key in found if key[0] == f"{name}_bucket"} - {"+Inf"}
        gauges = {key[1]: value for key, value in found.items() if key[0] == f"reference_{name}"}
        assert gauges.keys() == buckets
        assert gauges == {"0.25": 0.25, "0.5": 0.5, "0.75": 0.75}
    assert {key[1]: value for key, value in found.items() if key[0] == "reference_labels"} == {"a": 0.5, "b": 0.5}
    assert (found["reference_accuracy",], found["reference_confidence_mean",]) == (0.9, 0.8)
    assert found["reference_images",] == 1000


def test_a_switch_ends_the_series_of_the_version_before(tmp_path):
    root = tmp_path / "store"
    first, second = (
        add_version(root, "tiny", add_reference(write_bundle(tmp_path / text, classes), reference_json(len(classes))))
        for text, classes in (("first", ["dark", "bright"]), ("second", ["dark", "middle", "bright"]))
    )
    point(root, "tiny", "prod", first)
    env = {"MODEL_STORE": str(root), "MODEL": "tiny@prod", "MODEL_POLL_S": "0"}
    app = create_app(settings=Settings.from_env(env))
    client, switcher = app.test_client(), app.extensions["model_switcher"]
    before = client.post("/predict", data=BLACK, content_type="image/png").headers["X-Model-Version"]
    overtaken = switcher._current.take()  # a request that a switch overtakes
    point(root, "tiny", "prod", second)
    switcher._current.give_back(overtaken)
    switcher.look()
    overtaken.monitor.observe([np.zeros((3, 8, 8), np.float32)], [Prediction((1.0, 0.0), ("dark", "bright"))])
    version = client.get("/version").json["model"]["version"]
    text = client.get("/metrics").text
    assert version in text and before not in text
    found = series(client)
    assert not [key for key in found if key[0] == "predictions_total"]
    assert found["confidence_count",] == 0 and found["reference_labels", "middle"] == pytest.approx(1 / 3)
    assert client.post("/predict", data=WHITE, content_type="image/png").headers["X-Model-Version"] == version
    assert series(client)["predictions_total", "bright"] == 1


def test_the_page_names_every_series(tmp_path):
    page = (ROOT / "docs" / "watch.md").read_text(encoding="utf-8")
    for features in ((), FEATURES):
        bundle = write_bundle(tmp_path / f"{len(features)}", ["a", "b"], features=features)
        client = client_of(add_reference(bundle, reference_json(2, features or LIGHT)), MANAGE_TOKEN="x" * 20)
        client.get("/nowhere")
        text = client.get("/metrics").text
        names = set(re.findall(r"^# TYPE classifier_(\w+)", text, re.MULTILINE))
        names = {name for name in names if not name.endswith("_created")}  # which are prometheus_client's own
        assert {"confidence", "reference_images", "requests_total"} < names
        words = re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", page)))
        named = {word.removeprefix("classifier_") for word in words}
        assert not {name for name in names if not named & {name, name.removeprefix("reference_")}}


def test_two_apps_in_one_process_count_their_own_images(tmp_path):
    one, other = (client_of(write_bundle(tmp_path / name, ["dark", "bright"])) for name in ("one", "other"))
    assert one.post("/predict", data=WHITE, content_type="image/png").status_code == 200
    assert (series(one)["confidence_count",], series(other)["confidence_count",]) == (1, 0)


def test_inputs_wait_to_be_counted_but_few_and_not_for_a_reader():
    monitor = ModelMonitor(bundle_in_memory("ab"), "0123", None)
    image, answer = np.zeros((3, 32, 32), np.float32), Prediction((0.25, 0.75), ("a", "b"))
    for sent in range(1, 2 * MAX_WAITING + 2):
        monitor.observe([image], [answer])
        assert len(monitor._waiting) == sent % MAX_WAITING
    assert counted(monitor) == 2 * MAX_WAITING + 1 and monitor._waiting == []
    monitor.observe([image] * 90, [answer] * 90)
    assert monitor._waiting == []


def test_of_large_images_only_a_sample_waits():
    monitor = ModelMonitor(bundle_in_memory("ab", size_px=224), "0123", None)
    answer, most = Prediction((0.25, 0.75), ("a", "b")), 0
    for _ in range(100):
        monitor.observe([np.zeros((3, 224, 224), np.float32)], [answer])
        most = max(most, sum((each[0] if each[0].base is None else each[0].base).nbytes for each in monitor._waiting))
    assert 2**19 < most < 2**20 and counted(monitor) == 100


def test_threads_lose_no_image():
    monitor = ModelMonitor(bundle_in_memory("ab"), "0123", None)
    image, answer = np.zeros((3, 32, 32), np.float32), Prediction((0.25, 0.75), ("a", "b"))
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda number: (monitor.observe([image] * 3, [answer] * 3), counted(monitor)), range(200)):
            pass
    assert counted(monitor) == 600


def counted(monitor: ModelMonitor) -> float:
    """Images in the histogram of confidence."""
    samples = [sample for family in monitor.collect() for sample in family.samples]
    return next(sample.value for sample in samples if sample.name == "classifier_confidence_count")


def test_many_classes_have_no_gauge_each(tmp_path):
    """Of a thousand, an hour's images say nothing of each, and all would be in every scrape."""
    for classes in (MAX_REFERENCE_LABELS, MAX_REFERENCE_LABELS + 1):
        bundle = write_bundle(tmp_path / str(classes), [f"class {index}" for index in range(classes)])
        bundle = load_bundle(add_reference(bundle, reference_json(classes)))
        monitor = ModelMonitor(bundle, "0123", read_reference(bundle, "onnx"))
        samples = [sample for family in monitor.collect() for sample in family.samples]
        assert len([s for s in samples if "label" in s.labels]) == (classes if classes <= MAX_REFERENCE_LABELS else 0)
        assert len(samples) < MAX_REFERENCE_LABELS + 50


def test_an_answer_that_is_no_number_spoils_no_sum():
    monitor = ModelMonitor(bundle_in_memory("ab"), "0123", None)
    nothing = float("nan")
    for probabilities in ((nothing, nothing), (0.25, 0.75)):
        monitor.observe([np.zeros((3, 32, 32), np.float32)], [Prediction(probabilities, ("a", "b"))])
    sums = {s.name: s.value for family in monitor.collect() for s in family.samples if s.name.endswith("_sum")}
    assert sums["classifier_confidence_sum"] == 0.75 and sums["classifier_margin_sum"] == 0.5


def test_one_class_alone_has_a_margin_of_its_probability():
    monitor = ModelMonitor(bundle_in_memory("a"), "0123", None)
    monitor.observe([np.zeros((3, 32, 32), np.float32)], [Prediction((1.0,), ("a",))])
    sums = {s.name: s.value for family in monitor.collect() for s in family.samples if s.name.endswith("_sum")}
    assert sums["classifier_margin_sum"] == 1


def test_features_below_zero_are_counted_in_their_buckets():
    bundle = replace(bundle_in_memory("ab"), input=TabularInput((Feature("change", -1, 1),)))
    reference = Reference(9, {"change": Distribution((-0.5, 0.5), (0.2, 0.8))}, None)
    monitor = ModelMonitor(bundle, "0123", reference)
    for value in (-0.75, -0.5, 0.75):
        monitor.observe([np.array([value], np.float32)], [Prediction((0.5, 0.5), ("a", "b"))])
    found = {s.labels["le"]: s.value for f in monitor.collect() for s in f.samples if s.name.endswith("feature_bucket")}
    assert found == {"-0.5": 2, "0.5": 2, "+Inf": 3}
