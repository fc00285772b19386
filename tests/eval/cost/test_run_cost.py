"""What a run costs: worked by hand, with the shipped list prices."""

import pytest

from eval.cost.price_list import load_price_list
from eval.cost.run_cost import CostMeter, RunCost, demand_of_schedule, estimate_run_cost, rate_card_for
from eval.plan.config import Config
from eval.plan.schedule import build_schedule
from eval.samples.model import TargetRun
from infra.targets import TARGETS
from tests.helpers.synthetic_run import make_sample

PRICES = load_price_list()
TARIFFS = {name: rate_card_for(TargetRun(name, name, "", False), PRICES) for name in TARGETS}
ACTIVE = 24e-6 + 2.5e-6  # dollars of an instance's second: 1 vCPU and 1 GiB
IMAGE_HOUR = 337.5e6 / 2**30 * 0.10 / 730  # 50 MB of base, 22.5 MB shipped, 265 MB of packed libraries


def test_a_run_against_cloud_run_is_predicted_by_its_requests():
    # 1,000 requests of 80 ms are 100 s, and a start is 8 s; each sends 400 + 500 bytes and a TLS handshake of 4,500.
    by_hand = 108 * ACTIVE + 1000 * 0.4e-6 + 5.4e6 / 2**30 * 0.12 + IMAGE_HOUR / 60
    found = estimate_run_cost(
        {"gcp_cloudrun": 1000}, {"gcp_cloudrun": TARIFFS["gcp_cloudrun"]}, duration_s=60, service_s=0.08
    )
    assert found.usd_by_target == {"gcp_cloudrun": pytest.approx(by_hand)}
    assert found.total_usd == pytest.approx(0.003866, abs=1e-6)


def test_starts_are_billed_each():
    only = {"gcp_function": TARIFFS["gcp_function"]}
    found = [estimate_run_cost({}, only, 0, starts_by_target={"gcp_function": n}).total_usd for n in (1, 21)]
    assert found[1] - found[0] == pytest.approx(20 * 8 * ACTIVE)


def test_vm_is_charged_by_the_hour_with_disk_address_and_credits():
    # 16 GB of disk at 0.08 a month; 1.6 vCPUs above the baseline at 0.05.
    by_hand = 0.0208 + 0.005 + 16 * 0.08 / 730 + 1.6 * 0.05
    assert estimate_run_cost({}, {"aws_ec2": TARIFFS["aws_ec2"]}, 3600).total_usd == pytest.approx(by_hand)


def test_a_dyno_is_charged_by_the_hour_alone():
    assert estimate_run_cost({"heroku": 10**6}, {"heroku": TARIFFS["heroku"]}, 7200).total_usd == pytest.approx(
        2 * 7 / 720
    )


def test_twin_costs_nothing_and_custom_endpoint_cost_is_unknown():
    tariffs = {
        "heroku": rate_card_for(TargetRun("heroku", "heroku", "", True), PRICES),
        "mine": rate_card_for(TargetRun("mine", None, "", False), PRICES),
    }
    found = estimate_run_cost({"heroku": 100, "mine": 100}, tariffs, 3600)
    assert found.usd_by_target == {"heroku": 0, "mine": None}
    assert found.summary_line() == (
        "At 80 ms a request the run will cost $0; heroku: a local twin, which costs nothing; "
        "mine: a custom endpoint, whose price is unknown"
    )
    assert found.to_report()["targets"]["mine"] == {
        "value": None,
        "reason": "a custom endpoint, whose price is unknown",
    }


def sample(name="gcp_cloudrun", **changes):
    return make_sample(target=name, **{"service_time_ms": 120.0, "response_bytes": 412, "instance_id": "a"} | changes)


def test_metered_cost_counts_rounding_starts_and_bytes():
    tally = CostMeter({"gcp_cloudrun": TARIFFS["gcp_cloudrun"]})
    tally.record(sample(new_connection=True))
    tally.record(sample())
    tally.record(sample(instance_id="b", phase="warmup"))
    seconds = 3 * 0.2 + 2 * 8
    sent = 3 * (412 + 500) + 4500
    by_hand = seconds * ACTIVE + 3 * 0.4e-6 + sent / 2**30 * 0.12
    assert tally.total_usd(elapsed_s=0) == pytest.approx(by_hand)
    assert tally.total_usd(elapsed_s=3600) == pytest.approx(by_hand + 2 * IMAGE_HOUR)
    assert tally.run_cost(0).usd_by_target == {"gcp_cloudrun": pytest.approx(by_hand)}


def test_failed_requests_are_charged_and_unsent_ones_are_not():
    tally = CostMeter({"gcp_cloudrun": TARIFFS["gcp_cloudrun"]})
    tally.record(sample(error="dropped"))
    tally.record(sample("reference"))
    assert tally.total_usd(0) == 0
    tally.record(make_sample(target="gcp_cloudrun", error="timeout", service_time_ms=30_000.0))
    assert tally.total_usd(0) == pytest.approx(30 * ACTIVE + 0.4e-6 + 500 / 2**30 * 0.12)


def test_machines_that_answered_are_each_charged():
    tally = CostMeter({"aws_ec2": TARIFFS["aws_ec2"]})
    one = tally.total_usd(3600)
    for machine in "abc":
        tally.record(sample("aws_ec2", instance_id=machine, response_bytes=0))
    assert tally.total_usd(3600) == pytest.approx(3 * one + 3 * 500 * 0.09 / 1e9)


def test_the_cap_is_reached_by_time_and_by_requests():
    tally = CostMeter({"heroku": TARIFFS["heroku"], "gcp_function": TARIFFS["gcp_function"]})
    assert not tally.exceeds(0.0098, elapsed_s=3600)  # 7 / 720 is 0.00972
    assert tally.exceeds(0.0097, elapsed_s=3600)
    for _ in range(100):
        tally.record(sample("gcp_function"))
    assert tally.exceeds(0.0098, elapsed_s=3600)


@pytest.mark.parametrize("name", TARGETS)
def test_estimate_is_at_least_the_metered_cost(name):
    tally = CostMeter({name: TARIFFS[name]})
    for _ in range(200):
        tally.record(sample(name, service_time_ms=80.0, response_bytes=400, new_connection=True))
    assert estimate_run_cost({name: 200}, {name: TARIFFS[name]}, 600, 0.08).total_usd >= tally.total_usd(600) * (
        1 - 1e-12
    )


def test_the_line_names_what_each_costs():
    line = RunCost({"aws_ec2": 0.25, "heroku": 0.5}, {}).summary_line()
    assert line == "At 80 ms a request the run will cost $0.75 (aws_ec2 $0.25, heroku $0.50)"


def test_a_plan_counts_requests_time_and_starts():
    config = Config(scenarios=("single", "cold", "idle"), warmup=10, baseline_rtt=5, restarts=3, idle=2, gap_s=100.0)
    blocks = build_schedule(config, ["heroku", "gcp_function"], 40)
    plan = demand_of_schedule(blocks, config, service_s=0.1)
    each = 10 + 5 + 40 + 3 + 10 + 2 + 5  # one restart is between two rounds, with a warm-up of its own
    assert plan.requests_by_target == {"heroku": each, "gcp_function": each}
    assert plan.starts_by_target["heroku"] == 1 + 3 + 2
    assert plan.duration_s == pytest.approx(2 * each * 0.1 + 2 * (3 + 2) * 8 + 2 * 100)


def test_rate_search_is_estimated_up_to_twice_the_capacity():
    config = Config(scenarios=("max_rate",), warmup=0, baseline_rtt=0, rate_rps=10, step_s=20)
    plan = demand_of_schedule(build_schedule(config, ["gcp_function"], 40), config, service_s=0.1)
    assert plan.requests_by_target["gcp_function"] == 24 * 60 * 20  # steps, twice 3 instances of 10 a second, seconds
    assert plan.duration_s == 24 * 20
