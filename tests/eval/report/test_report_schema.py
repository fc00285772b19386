"""docs/report.schema.json is made of the records of report.json, and every report keeps to it."""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from eval.cost.price_list import load_price_list
from eval.report.report_json import build_report
from infra.targets import TARGETS
from scripts.docs.report_schema import SCHEMA_PATH, report_schema
from tests.conftest import ROOT
from tests.helpers.synthetic_run import make_run
from tests.helpers.synthetic_scenarios import make_full_run

pytestmark = pytest.mark.integration

SCHEMA = json.loads(SCHEMA_PATH.read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
TWO_ENGINES = {"names": ["heroku", "heroku-onnx"], "n_images": 60}


def report_of(run_and_samples):
    return json.loads(json.dumps(build_report(*run_and_samples, load_price_list()), allow_nan=False))


def test_the_published_schema_is_that_of_the_records():
    Draft202012Validator.check_schema(SCHEMA)
    assert report_schema() == SCHEMA, "run `make report-schema`"


@pytest.mark.parametrize(
    "run_and_samples",
    [
        pytest.param(lambda: make_full_run(n_images=60, cached=("heroku",)), id="every scenario"),
        pytest.param(lambda: make_full_run(scenarios=("single", "max_rate"), **TWO_ENGINES), id="two engines"),
        pytest.param(lambda: make_run(n_images=40, foreign=True, twin=False), id="custom endpoints"),
        pytest.param(lambda: make_run(n_images=40, failures={"heroku": 40}, reference=False), id="failures"),
        pytest.param(lambda: make_run(n_images=40, not_started={"heroku": "no"}, complete=False), id="incomplete"),
        pytest.param(lambda: make_full_run(n_images=60, names=tuple(TARGETS)), id="five targets"),
        pytest.param(lambda: make_run(n_images=3), id="three images"),
    ],
)
def test_every_report_keeps_to_the_schema(run_and_samples):
    VALIDATOR.validate(report_of(run_and_samples()))


def test_the_example_keeps_to_the_schema():
    VALIDATOR.validate(json.loads((ROOT / "reports" / "example" / "report.json").read_text()))


def test_the_schema_refuses_a_lost_and_an_unknown_key():
    report = report_of(make_run(n_images=3))
    with pytest.raises(ValidationError, match="'valid' is a required property"):
        VALIDATOR.validate(report | {"verdict": {k: v for k, v in report["verdict"].items() if k != "valid"}})
    with pytest.raises(ValidationError, match="'parity' was unexpected"):
        VALIDATOR.validate(report | {"parity": {}})
