"""What a stack exports, and what it is priced as: the real programs' outputs, through a pulumi that prints them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eval.codes import Reason
from eval.cost.cost_model import CostModel, build_cost_model
from eval.cost.estimate import Deployment, estimate
from eval.cost.price_list import load_price_list
from eval.cost.run_cost import rate_card_for
from eval.dataset.image_set import ImageSet
from eval.errors import EndpointError
from eval.load.load_generator import RunOptions
from eval.plan.config import Config
from eval.report.wording import message
from eval.run.runner import new_run
from eval.samples.model import TargetRun
from eval.samples.sizes import priced_target
from eval.targets.endpoints import TargetSet, price_as
from eval.targets.stacks import stack_endpoint
from infra.targets import TARGETS
from tests.helpers.infra.program_runs import STACKS, rehearse, well
from tests.helpers.synthetic_run import make_sample

pytestmark = pytest.mark.integration

PRICES = load_price_list()
OTHER_SIZES = [
    ("aws_ec2", {"size": "c7i.large"}, (2, 4096)),
    ("aws_sagemaker", {"size": "ml.m5.xlarge"}, (4, 16384)),
    ("aws_sagemaker", {"size": "serverless-2048"}, (1.16, 2048)),
    ("gcp_cloudrun", {"vcpus": "2", "memoryMib": "2048"}, (2, 2048)),
    ("gcp_cloudrun", {"memoryMib": "1536"}, (1, 1536)),
    ("gcp_function", {"vcpus": "0.5", "memoryMib": "512", "concurrency": "1"}, (0.5, 512)),
    ("heroku", {"size": "standard-2x"}, (1, 1024)),
]
other_sizes = pytest.mark.parametrize(("stack", "settings", "spec"), OTHER_SIZES, ids=str)


@pytest.fixture
def measured(tmp_path):
    """What run.json says of a stack with these outputs."""

    def measure(stack: str, outputs: dict[str, Any], priced_as: tuple[str, ...] = ()) -> TargetRun:
        pulumi = tmp_path / "pulumi"
        pulumi.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(outputs)}\nEND\n")
        pulumi.chmod(0o755)
        targets = price_as(TargetSet((stack_endpoint(str(pulumi), stack),), {}), priced_as)
        config = Config(local=False, engines=(), targets=())
        return new_run("x", targets, ImageSet("x", ("a",), ()), config, RunOptions(())).targets[0]

    return measure


def exported(stack: str, settings: dict[str, str] | None = None) -> dict[str, Any]:
    return {"endpoint": "mine"} | well(rehearse(stack, settings)).outputs


def cost_of(run: TargetRun) -> CostModel | Reason:
    return build_cost_model(run, [make_sample(target=run.name)] * 10, PRICES)


@other_sizes
def test_a_stack_is_priced_in_the_size_that_it_exports(stack, settings, spec, measured):
    outputs = exported(stack, settings)
    run = measured(stack, outputs)
    target = priced_target(run)
    assert target and (target.size, target.vcpus, target.memory_mib) == (outputs["size"], *spec)
    model = cost_of(run)
    assert isinstance(model, CostModel) and model.target == target
    assert rate_card_for(run, PRICES) != rate_card_for(TargetRun(stack, stack, "", False), PRICES)


def test_the_bill_is_that_of_cost_with_the_same_size(measured):
    model = cost_of(measured("aws_ec2", exported("aws_ec2", {"size": "c7i.large"})))
    assert isinstance(model, CostModel)
    by_cost = estimate(Deployment("aws_ec2", size="c7i.large"), [], PRICES).idle
    assert model.bill(0).net_usd == pytest.approx(by_cost.net_usd) == pytest.approx(70.08, abs=0.01)


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_of_the_usual_size_is_recorded_as_before(stack, measured):
    run = measured(stack, exported(stack))
    assert (run.size, run.region, priced_target(run)) == (None, None, TARGETS[stack])


@pytest.mark.parametrize("stack", STACKS)
def test_a_region_without_prices_has_a_reason_and_no_price(stack, measured):
    run = measured(stack, exported(stack) | {"region": "eu-central-1"})
    why, own = cost_of(run), TARGETS[stack].region
    assert isinstance(why, Reason) and f"is for {own}, not eu-central-1" in message(why)
    card = rate_card_for(run, PRICES)
    assert not card.price_known and f"is for {own}, not eu-central-1" in str(card.note)


def test_priced_as_is_by_the_prices_that_there_are(measured):
    run = measured("heroku", exported("heroku") | {"region": "eu"}, priced_as=("heroku=heroku:standard-2x",))
    model = cost_of(run)
    assert isinstance(model, CostModel) and (model.target.size, model.target.region) == ("standard-2x", "us")


@pytest.mark.parametrize(
    ("stack", "size", "told"),
    [
        ("aws_ec2", "x9.huge", "stack aws_ec2, output size: aws_ec2 has no size 'x9.huge'; choose from t3.micro"),
        ("aws_ec2", ["t3.micro"], "aws_ec2 has no size"),
        ("gcp_cloudrun", "3 vCPU, 1 GiB", "expected VCPUS:MIB"),
        ("heroku", "\x1b[2J" * 200, "heroku has no size"),
    ],
    ids=["unknown", "list", "Google's", "escapes"],
)
def test_a_size_that_is_not_sold_is_one_line(stack, size, told, measured):
    with pytest.raises(EndpointError) as error:
        measured(stack, exported(stack) | {"size": size})
    assert told in str(error.value) and str(error.value).isprintable()
