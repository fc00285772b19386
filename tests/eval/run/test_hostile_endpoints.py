"""An honest endpoint beside hostile ones: it is measured as if it were alone, and each of them costs itself alone."""

from __future__ import annotations

import json

import pytest

from eval.__main__ import main
from eval.samples.store import read_run, read_samples
from tests.helpers.fake_endpoint import fake_endpoint
from tests.helpers.hostile_endpoints import (
    BAD_FIELDS,
    BAD_PREDICTIONS,
    GOOD_VERSION,
    ODD_VERSIONS,
    hostile_endpoints,
)

pytestmark = pytest.mark.integration

IMAGES = 2
OPTIONS = (
    "--images",
    "golden",
    "--limit",
    IMAGES,
    "--warmup",
    0,
    "--baseline-rtt",
    1,
    "--timeout-s",
    2,
    "--block",
    IMAGES,
)


def measure(folder, targets):
    endpoints = [word for name, url in targets.items() for word in ("--target", f"{name}={url}")]
    assert main([str(word) for word in ("run", *OPTIONS, *endpoints, "--out", folder)]) == 0
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with fake_endpoint() as fake:
        return measure(tmp_path_factory.mktemp("alone"), {"heroku": fake.url})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    with fake_endpoint() as fake, hostile_endpoints() as hostile:
        measure(folder, {**hostile, "heroku": fake.url})
    return folder


@pytest.fixture(scope="module")
def targets(folder):
    return json.loads((folder / "report.json").read_text())["targets"]


def test_an_honest_endpoint_is_measured_as_if_alone(alone, targets):
    figures = ("sent", "succeeded", "errors", "accuracy", "confusion", "model_version", "instances", "failure")
    honest, by_itself = targets["heroku"], alone["targets"]["heroku"]
    assert honest["succeeded"] == IMAGES
    assert {name: honest[name] for name in figures} == {name: by_itself[name] for name in figures}
    assert honest["cost"].keys() == by_itself["cost"].keys()
    assert honest["cost"]["measured"] == by_itself["cost"]["measured"]


def test_a_version_is_used_as_far_as_it_is_understood(folder, targets):
    for mode in ODD_VERSIONS:
        assert (targets[mode]["succeeded"], targets[mode]["failure"]) == (IMAGES, None), mode
    versions = {target.name: target.version for target in read_run(folder).targets}
    assert versions["version-shapes"] == {key: GOOD_VERSION[key] for key in ("engine", "instance_id")}
    assert versions["version-nested"] == {"model": {}, "instance_id": GOOD_VERSION["instance_id"]}
    assert versions["version-list"] == versions["version-page"] == {}


def test_a_bad_prediction_is_a_failed_request(targets):
    for mode in BAD_PREDICTIONS:
        assert (targets[mode]["sent"], targets[mode]["succeeded"]) == (IMAGES, 0), mode


def test_a_bad_header_is_left_out_of_the_sample(folder, targets):
    for mode in BAD_FIELDS:
        assert targets[mode]["succeeded"] == IMAGES, mode
    samples = [s for s in read_samples(folder, read_run(folder)) if s.target in BAD_FIELDS]
    assert {tuple(s.server_timing_ms) for s in samples} == {()}
    assert {s.instance_request_number for s in samples} == {None}


def test_nothing_that_was_written_controls_a_terminal(folder):
    for path in folder.iterdir():
        text = path.read_text()
        assert text.translate({10: None}).isprintable() or path.suffix == ".html", path
        assert len(text) < 5_000_000
