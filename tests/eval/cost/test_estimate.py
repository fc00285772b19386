"""What another price would do to the answer, before there is a run."""

import json
from dataclasses import fields, replace

import pytest

from eval.__main__ import main
from eval.cost.billing import AUTOSCALED, Bill
from eval.cost.estimate import (
    Deployment,
    EstimateAssumptions,
    estimate,
    price_sensitivity,
    resolve_target,
)
from eval.cost.price_list import load_price_list
from eval.errors import EstimateError
from infra.targets import ONE_DYNO_SIZES, TARGETS

PRICES = load_price_list()


def test_effect_of_a_price_on_the_bill_by_hand():
    # A t3.small for 730 h: half of $0.0208 an hour is $7.592 a month, on a bill of $20.114.
    hour, *others = price_sensitivity(Deployment("aws_ec2", service_ms=15), 1_000_000, PRICES)
    assert hour.price.id == "aws_ec2_t3_small_hour"
    assert (hour.usd_per_month, hour.at_half_usd, hour.at_double_usd) == pytest.approx((20.11, 12.52, 35.30), abs=0.01)
    assert [effect.price.id for effect in others][:2] == ["aws_public_ipv4_hour", "aws_ebs_gp3_gb_month"]


def test_price_that_changes_the_cheapest_target_is_told():
    # At 6 million a month of 15 ms, Heroku's $7 are less than Cloud Run's bill; its $14 are not.
    (month, *_) = price_sensitivity(Deployment("heroku", service_ms=15), 6_000_000, PRICES)
    assert month.price.id == "heroku_basic_month"
    assert (month.cheapest, month.cheapest_at_half) == ("heroku", "heroku")
    assert "heroku" not in month.cheapest_at_double


def test_long_times_and_high_rates_are_told_without_an_exponent(capsys):
    assert main(["cost", "gcp_cloudrun", "--service-ms", "1234", "--boot-s", "4321", "--peak", "1500"]) == 0
    assert main(["cost", "aws_ec2", "--service-ms", "0.4"]) == 0
    text = capsys.readouterr().out
    for part in ("1,234 ms in the service", "1,234 ms of CPU", "4,321 s until", "1,500 times", "the 2,500/s that one"):
        assert part in text
    assert "e+" not in text


@pytest.mark.parametrize("target", TARGETS)
def test_cost_prints_what_it_assumes_within_80_columns(target, capsys):
    assert main(["cost", target, "--service-ms", "123", "--peak", "2", "--instances", "1"]) == 0
    bills, assumed = capsys.readouterr().out.split("\n\n")
    assert TARGETS[target].size in bills and TARGETS[target].region in bills
    for part in ("list prices of 20", "12 busy hours a day", "123 ms in the service", "% of ", "1 always running"):
        assert part in assumed
    if TARGETS[target].billing != "dyno":
        assert "TLS handshakes" in assumed and "free tier" in assumed
    assert ("GiB stored" in assumed) == (TARGETS[target].billing in AUTOSCALED)
    assert all(len(line) <= 80 for line in (bills + assumed).splitlines())


def test_json_of_cost_has_the_keys_of_report_json(capsys):
    assert main(["cost", "gcp_cloudrun", "--instances", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    bill_keys = {field.name for field in fields(Bill)}
    assert found["monthly_usd"]["100000"].keys() == found["idle"].keys() == bill_keys
    assert found["idle"]["net_usd"] == pytest.approx(13.14)
    assert found["assumptions"].keys() == {field.name for field in fields(EstimateAssumptions)}
    assert (found["assumptions"]["busy_hours_per_day"], found["assumptions"]["min_instances"]) == (8.0, 1)


def test_another_size_is_named_above_its_bill(capsys):
    # 730 h of one instance kept running, at $0.0000025 for a vCPU's and a GiB's idle second.
    assert main(["cost", "gcp_cloudrun", "--vcpus", "4", "--memory-mib", "4096", "--instances", "1"]) == 0
    heading, idle, *_ = capsys.readouterr().out.splitlines()
    assert heading == "Google Cloud Run, 4 vCPU, 4 GiB, us-central1"
    assert f"${8 * 730 * 3600 * 0.0000025:.2f}" in idle


def test_more_machines_than_are_needed_are_billed():
    found = estimate(Deployment("heroku", size="standard-1x", instances=3), [1000], PRICES)
    assert (found.idle.net_usd, found.monthly_usd["1000"].gross_high_usd) == (75.0, 75.0)
    assert (found.idle.instances, found.monthly_usd["1000"].instances) == (3, 3)


def test_egress_is_billed_once_however_many_machines_run():
    # 100 million of 900 bytes are 90 GB at $0.09; each of 3 machines is $20.114 a month.
    three = estimate(Deployment("aws_ec2", instances=3, service_ms=5), [100_000_000], PRICES)
    bill = three.monthly_usd["100000000"]
    assert bill.gross_usd == pytest.approx(3 * 20.114 + 8.10, abs=0.01)
    assert (bill.instances, bill.exceeds_max_instances) == (3, False)


@pytest.mark.parametrize("size", ONE_DYNO_SIZES)
@pytest.mark.parametrize("dynos", [2, 5])
def test_several_dynos_of_a_size_that_allows_one_are_standard_1x(size, dynos, capsys):
    found = estimate(Deployment("heroku", size=size, instances=dynos), [1000], PRICES)
    assert found.monthly_usd["1000"].gross_usd == found.busy_month.usd == dynos * 25
    assert found.monthly_usd["1000"].instances == dynos
    assert main(["cost", "heroku", "--size", size, "--instances", str(dynos)]) == 0
    assert f"several are Standard-1X: there can be but one {size}" in capsys.readouterr().out


def test_sensitivity_is_printed_as_a_table(capsys):
    arguments = ["gcp_cloudrun", "--service-ms", "15", "--requests-per-month", "10000000", "--sensitivity"]
    assert main(["cost", *arguments]) == 0
    first, header, row, *_ = capsys.readouterr().out.splitlines()
    assert first == "At 10,000,000 requests a month, after the free allowances:"
    assert header.split()[:2] == ["price", "amount"]
    assert row.startswith("gcp_cloudrun_vcpu_second")


def test_the_costliest_month_by_hand():
    # 730 h of a t3.small with its address, 1.6 surplus vCPUs and 16 GB; 2,628,000 s of 3 instances of 1 vCPU and 1 GiB.
    month = estimate(Deployment("aws_ec2"), [], PRICES).busy_month
    assert (month.instances, month.usd) == (1, pytest.approx(730 * (0.0208 + 0.005 + 1.6 * 0.05) + 16 * 0.08, abs=0.01))
    month = estimate(Deployment("gcp_cloudrun"), [], PRICES).busy_month
    assert (month.instances, month.usd) == (3, pytest.approx(3 * 2_628_000 * (0.000024 + 0.0000025), abs=0.1))
    assert (month.million_requests_usd, month.egress_usd) == (0.40, 0.12)
    assert estimate(Deployment("heroku", size="standard-1x", instances=2), [], PRICES).busy_month.usd == 50


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("requests", [1_000, 1_000_000, 30_000_000])
@pytest.mark.parametrize("warm", [0, 2])
def test_no_traffic_costs_more_than_the_costliest_month(target, requests, warm):
    deployment = Deployment(target, size="standard-1x" if target == "heroku" else None, instances=warm, service_ms=100)
    bill = estimate(deployment, [requests], PRICES).monthly_usd[str(requests)]
    machines = max(bill.instances, warm, 1)
    most = estimate(replace(deployment, instances=machines, max_instances=machines), [], PRICES).busy_month
    sent_gib = requests * 4_000 / 1e9  # more than the answers have
    assert bill.gross_usd <= most.usd + requests / 1e6 * most.million_requests_usd + sent_gib * most.egress_usd


def test_less_than_one_processor_takes_a_request_at_a_time():
    half = Deployment("gcp_cloudrun", vcpus=0.5)
    assert (resolve_target(half).concurrency, resolve_target(replace(half, vcpus=1)).concurrency) == (1, 4)
    with pytest.raises(EstimateError, match="--concurrency is 4; with less than 1 vCPU, Cloud Run lets one request"):
        resolve_target(replace(half, concurrency=4))
