"""GET /metrics, read as Prometheus reads it."""

import io
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from service import schema
from service.app import create_app
from service.classifier import Classifier
from service.monitoring.model_monitor import ModelMonitor
from service.schema import ModelInfo, Prediction
from service.settings import Settings
from service.web.metrics import Metrics
from tests.helpers.bundles import bundle_in_memory
from tests.service.test_app import BUNDLE, Engine

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


VERSION = "0123456789ab"


def answer(label: int, classes) -> Prediction:
    """A sure one."""
    return Prediction(tuple(float(each == label) for each in range(len(classes))), tuple(classes))


@pytest.fixture
def client():
    return new_client()


def new_client():
    return create_app(Classifier(BUNDLE, Engine(), Settings()), Settings()).test_client()


def samples(client, **headers) -> dict:
    """(name, label values, sorted by label) -> value; without the instance, which every series has"""
    reply = client.get("/metrics", headers=headers)
    assert reply.status_code == 200
    read = openmetrics if reply.mimetype == "application/openmetrics-text" else plain
    return {
        (
            sample.name.removeprefix("classifier_"),
            *(sample.labels[name] for name in sorted(sample.labels) if name != "instance"),
        ): sample.value
        for family in read(reply.text)
        for sample in family.samples
    }


def post(client, path, data, **headers):
    return client.post(path, data=data, content_type="image/png", headers=headers)


def test_requests_are_counted_by_route_and_unknown_share_a_label(client, png):
    for _ in range(3):
        post(client, "/predict", png)
    post(client, "/predict", b"no picture")
    post(client, "/", png)
    for path in ("/nowhere", "/secret/../x", "/predict/"):
        client.get(path)
    found = samples(client)
    counted = {key[1:]: value for key, value in found.items() if key[0] == "requests_total"}
    assert counted == {("/predict", "200"): 3, ("/predict", "415"): 1, ("/", "200"): 1, ("other", "404"): 3}
    assert found["request_seconds_count", "/predict"] == 4
    assert found["request_seconds_bucket", "+Inf", "/predict"] == 4
    assert found["request_seconds_sum", "/predict"] > 0


def test_errors_are_counted_by_kind_whichever_way_they_came(client, png):
    for accept in ("*/*", "application/json, */*;q=0.1"):
        post(client, "/predict", b"hello", Accept=accept)
        post(client, "/predict", png[:99], Accept=accept)
    client.get("/nowhere")
    kinds = {key[1]: value for key, value in samples(client).items() if key[0] == "errors_total"}
    assert kinds == {"Unsupported type": 2, "Cannot be decoded": 2, "Not Found": 1}


def test_predictions_are_counted_by_class_and_passes_by_size(client, png):
    post(client, "/predict", png)
    form = {schema.IMAGE_PART: [(io.BytesIO(png), f"{i}.png") for i in range(5)]}
    assert client.post("/predict/batch", data=form).status_code == 200
    found = samples(client)
    assert found["predictions_total", "a", VERSION] == 6
    assert ("predictions_total", "b", VERSION) not in found
    sizes = {key[1]: value for key, value in found.items() if key[0] == "batch_images_bucket"}
    assert (sizes["1.0"], sizes["4.0"], sizes["8.0"], sizes["+Inf"]) == (1, 1, 2, 2)
    assert found["batch_images_sum",] == 6
    assert found["pass_seconds_count",] == 2
    assert found["queue_seconds_count",] == 2


def test_a_thousand_classes_cost_a_scrape_nothing_until_seen():
    """Names of any kind, each escaped as a label."""
    names = ['<b>"a\\', "zwei Wörter", *map(str, range(998))]
    metrics = Metrics("0123", lambda: 0, lambda: 0)
    bundle = replace(bundle_in_memory(), classes=tuple(names))
    monitor = ModelMonitor(bundle, VERSION, None)
    metrics.serves(ModelInfo("test", VERSION, "test"), monitor)
    empty = len(metrics.text("")[0])
    for label in (0, 1, 0):
        monitor.observe([np.zeros((3, 32, 32), np.float32)], [answer(label, names)])
    text = metrics.text("")[0].decode()
    assert len(text) - empty < 500
    family = next(each for each in plain(text) if each.name == "classifier_predictions")
    assert {s.labels["label"]: s.value for s in family.samples if s.name.endswith("_total")} == {
        names[0]: 2,
        names[1]: 1,
    }


def test_what_waits_and_what_is_in_flight_are_shown_as_they_are(client):
    found = samples(client)
    assert found["queue_images",] == 0
    assert found["requests_in_flight",] == 1  # this one
    assert samples(client)["requests_in_flight",] == 1


def test_the_model_is_named(client):
    assert samples(client)["model_info", "test", "test", VERSION] == 1


def test_every_series_has_the_instance_that_answered(client, png):
    instance = post(client, "/predict", png).headers[schema.INSTANCE_ID]
    for accept, read in (("", plain), (OPENMETRICS, openmetrics)):
        text = client.get("/metrics", headers={"Accept": accept}).text
        found = [sample for family in read(text) for sample in family.samples]
        assert {sample.labels["instance"] for sample in found} == {instance}
        assert {"process_resident_memory_bytes", "classifier_confidence_bucket"} <= {sample.name for sample in found}


def test_openmetrics_is_given_to_whom_asks_for_it(client, png):
    post(client, "/predict", png)
    reply = client.get("/metrics", headers={"Accept": OPENMETRICS})
    assert reply.mimetype == "application/openmetrics-text"
    assert reply.text.endswith("# EOF\n")
    assert samples(client, Accept=OPENMETRICS)["requests_total", "/predict", "200"] == 1
    assert client.get("/metrics").mimetype == "text/plain"


def test_reading_the_metrics_is_no_prediction(client, png):
    first = post(client, "/predict", png).headers[schema.REQUEST_ORDINAL]
    assert client.get("/metrics").headers[schema.REQUEST_ORDINAL] == first == "1"
    assert post(client, "/predict", png).headers[schema.REQUEST_ORDINAL] == "2"


def test_two_apps_in_one_process_count_for_themselves(client, png):
    post(client, "/predict", png)
    assert not [key for key in samples(new_client()) if key[0] == "requests_total"]
