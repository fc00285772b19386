"""Responses that hypothesis makes up: what is not understood is passed over, and there is always a report."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eval.cost.price_list import load_price_list
from eval.errors import EndpointError, InvalidInput, InvalidResponse
from eval.load.responses import (
    classify_status,
    parse_count,
    parse_prediction,
    parse_server_timing,
    parse_version,
    to_short_line,
)
from eval.report.report_json import build_report
from eval.run.reference_cache import parse_record
from eval.samples.model import Run, Version
from eval.targets.endpoints import parse_target
from eval.validation import validate
from service.schema import SERVER_TIMING_PARTS
from tests.helpers.fake_endpoint import CLASSES, GOOD
from tests.helpers.hostile_endpoints import GOOD_VERSION
from tests.helpers.synthetic_run import make_run

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", 0))  # random ones, for a search; else a few, the same each time
some = settings(
    max_examples=EXAMPLES or 60, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
)
few = settings(some, max_examples=EXAMPLES or 15)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
KEYS = st.sampled_from([*Version.__metadata__[0].types, *Version.__metadata__[0].types["model"].__metadata__[0].types])
VERSIONS = st.dictionaries(KEYS | st.text(), VALUES | st.dictionaries(KEYS, VALUES))
PREDICTIONS = st.dictionaries(st.sampled_from(list(GOOD)), VALUES | st.lists(st.floats(0, 1), min_size=10, max_size=10))
HEADER = st.text(st.characters(codec="latin-1"))
PRICES = load_price_list()


@few
@given(version=VERSIONS)
def test_a_run_with_any_version_is_kept_and_reported(version):
    understood = parse_version(json.dumps(version))
    run, samples = make_run(n_images=4, names=["heroku"], warmup=0)
    run = replace(run, targets=[replace(target, twin=False, version=understood) for target in run.targets])
    kept = validate(Run, json.loads(json.dumps(asdict(run))))
    assert kept == run
    json.dumps(build_report(kept, samples, PRICES), allow_nan=False)


@some
@given(key=st.sampled_from(list(GOOD_VERSION)), value=VALUES)
@example(key="model", value="resnet18")
@example(key="versions", value=["v1"])
@example(key="startup_ms", value="1200 ms")
@example(key="startup_ms", value={"total": float("nan")})
@example(key="engine", value={"name": "triton"})
@example(key="cpus", value="2")
@example(key="started_at", value=1732838400)
def test_a_field_of_another_type_costs_itself_alone(key, value):
    understood = parse_version(json.dumps(GOOD_VERSION | {key: value}))
    assert {k: v for k, v in understood.items() if k != key} == {k: v for k, v in GOOD_VERSION.items() if k != key}


@some
@given(body=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_a_version_that_is_no_record_is_empty(body):
    assert isinstance(parse_version(body), dict)


@some
@given(body=st.binary() | PREDICTIONS.map(lambda value: json.dumps(GOOD | value).encode()))
def test_a_body_is_a_prediction_or_invalid(body):
    try:
        label, probabilities = parse_prediction(body, CLASSES)
    except InvalidResponse as error:
        assert to_short_line(str(error)).isprintable()
    else:
        assert probabilities[label] >= max(probabilities) - 1e-6 and len(probabilities) == len(CLASSES)


@some
@given(status=st.integers(100, 999), header=HEADER, body=st.binary() | VALUES.map(lambda v: json.dumps(v).encode()))
def test_any_head_of_a_response_is_read(status, header, body):
    names = ("Location", "Content-Encoding", "Retry-After", "Server-Timing")
    failure = classify_status(status, dict.fromkeys(names, header), body)
    assert (failure is None) == (status == 200)
    assert parse_server_timing(header).keys() <= set(SERVER_TIMING_PARTS)
    assert (parse_count(header) or 0) >= 0


@some
@given(line=VALUES.map(json.dumps) | st.text())
def test_a_line_of_the_reference_cache_is_a_record_or_invalid(line):
    try:
        label, probabilities = parse_record(line, len(CLASSES))[1]
    except InvalidInput:
        return
    assert label < len(CLASSES) == len(probabilities)


@some
@given(url=st.text())
def test_any_address_is_an_endpoint_or_refused(url):
    for text in (f"a={url}", f"a=http://{url}"):
        with contextlib.suppress(EndpointError):
            assert parse_target(text).url.isprintable()
