"""The worked examples of the cost model: s = 15 ms, 10 ms of CPU, 700 B out, cold boot 8 s, 16 GB gp3, public IPv4."""

from dataclasses import replace

import pytest

from eval.codes import AssumptionCode
from eval.cost.billing import (
    SECONDS_PER_MONTH,
    ResourceDemand,
    always_on_instances,
    autoscaled_instances,
    billed_seconds,
    cold_starts_per_month,
    eco_awake_hours,
    monthly_bill,
    price_ids_by_role,
    prices_for,
    round_up_billed_s,
)
from eval.cost.break_even import compare_bills, crossing_ranges
from eval.cost.cost_model import build_cost_model, cost_report, rps_per_instance
from eval.cost.price_list import load_price_list
from eval.errors import PriceError
from infra.targets import AWS_EC2, GCP_CLOUDRUN, GCP_FUNCTION, HEROKU
from tests.helpers.synthetic_run import STARTUP_MS, make_run, make_sample

PRICES = load_price_list()
CENT = 0.006  # the examples are printed to the cent
TRAFFICS = (10_000, 1_000_000, 10_000_000, 100_000_000)

WORK = ResourceDemand(
    service_s=0.015, billed_s=0.1, cpu_s=0.010, instance_rps=1.3 / 0.010, startup_s=8, egress_bytes=700
)
ON_DYNO = replace(WORK, instance_rps=30)
CLOUDRUN = replace(GCP_CLOUDRUN, concurrency=80, startup_cpu_boost=False)
FUNCTION_1GIB = replace(GCP_FUNCTION, vcpus=0.583)
FUNCTION_512MIB = replace(GCP_FUNCTION, vcpus=0.333, memory_mib=512)


def vm(size, vcpus=2.0, baseline=2.0):
    return replace(AWS_EC2, size=size, vcpus=vcpus, baseline_vcpus=baseline)


T3_MICRO = vm("t3.micro", baseline=0.2)


def bill(target, requests, work=WORK):
    rates = {role: price.amount for role, price in prices_for(target, PRICES).items()}
    return monthly_bill(requests, work, target, rates)


def net(target, work=WORK):
    return lambda requests: bill(target, requests, work).net_usd


def gross(target, work=WORK):
    return lambda requests: bill(target, requests, work).gross_usd


@pytest.mark.parametrize(
    ("target", "work", "expected"),
    [
        pytest.param(T3_MICRO, WORK, (12.52, 12.52, 12.52, 19.11), id="t3.micro"),
        pytest.param(AWS_EC2, WORK, (20.11, 20.11, 20.11, 20.11), id="t3.small"),
        pytest.param(vm("t4g.small", baseline=0.4), WORK, (17.19, 17.19, 17.19, 17.19), id="t4g.small"),
        pytest.param(vm("t3.medium", baseline=0.4), WORK, (35.30, 35.30, 35.30, 35.30), id="t3.medium"),
        pytest.param(vm("c7i.large"), WORK, (70.08, 70.08, 70.08, 70.08), id="c7i.large"),
        pytest.param(HEROKU, ON_DYNO, (7, 7, 7, 50), id="heroku-basic"),
        pytest.param(replace(HEROKU, size="standard-1x"), ON_DYNO, (25, 25, 25, 50), id="heroku-standard-1x"),
        pytest.param(CLOUDRUN, WORK, (0.00, 0.00, 20.68, 109.78), id="cloud-run"),
        pytest.param(FUNCTION_1GIB, WORK, (0, 0, 12.36, 115.43), id="function-1gib"),
        pytest.param(FUNCTION_512MIB, WORK, (0, 0, 6.33, 83.01), id="function-512mib"),
    ],
)
def test_net_bills_are_those_of_the_worked_example(target, work, expected):
    assert [bill(target, n, work).net_usd for n in TRAFFICS] == pytest.approx(expected, abs=CENT)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(CLOUDRUN, (0.10, 3.08, 26.82, 115.92), id="cloud-run"),
        pytest.param(FUNCTION_1GIB, (0.06, 2.10, 18.50, 121.57), id="function-1gib"),
        pytest.param(FUNCTION_512MIB, (0.04, 1.39, 12.47, 89.15), id="function-512mib"),
    ],
)
def test_gross_bills_are_those_of_the_worked_example(target, expected):
    assert [bill(target, n).gross_usd for n in TRAFFICS] == pytest.approx(expected, abs=CENT)


def test_eco_dyno_costs_its_flat_price_and_sleeps_when_idle():
    assert bill(replace(HEROKU, size="eco"), 10_000, ON_DYNO).net_usd == 5
    assert eco_awake_hours(100) == pytest.approx(48.3, abs=0.1)
    assert eco_awake_hours(10_000_000) == pytest.approx(730)


def test_surplus_credits_of_a_t3_micro_at_100_million_requests():
    assert bill(T3_MICRO, 100e6).net_usd - bill(T3_MICRO, 1e6).net_usd == pytest.approx(6.59, abs=CENT)


def test_t3_small_uses_0_38_vcpu_at_100_million_requests():
    assert 100e6 / SECONDS_PER_MONTH * WORK.cpu_s == pytest.approx(0.38, abs=0.005)


def test_one_isolated_cloud_run_request():
    per_million = 1e6 * (0.1 * (24e-6 + 2.5e-6) + 0.4e-6)
    one = bill(CLOUDRUN, 1, replace(WORK, startup_s=0, egress_bytes=0)).gross_usd
    assert per_million == pytest.approx(3.05)
    assert one * 1e6 == pytest.approx(3.05, rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "billed"), [(0.001, 0.1), (0.015, 0.1), (0.1, 0.1), (0.1001, 0.2), (0.3, 0.3), (0, 0)]
)
def test_billed_time_is_rounded_up_to_100_ms(seconds, billed):
    assert round_up_billed_s(seconds) == pytest.approx(billed)


def test_cold_starts_of_10k_requests_a_month():
    assert cold_starts_per_month(10_000) == pytest.approx(326, abs=0.6)
    assert cold_starts_per_month(10_000) / 10_000 == pytest.approx(0.033, abs=0.0005)
    mean_gap_s = SECONDS_PER_MONTH / 10_000
    assert mean_gap_s == pytest.approx(263, abs=0.5)


def test_cold_starts_are_72_percent_of_the_billed_seconds_at_10k():
    seconds, _, _ = billed_seconds(10_000, WORK, CLOUDRUN)
    assert cold_starts_per_month(10_000) * WORK.startup_s / seconds == pytest.approx(0.72, abs=0.005)


@pytest.mark.parametrize(
    ("fixed", "after_free_tier", "at_list_price"),
    [
        pytest.param(7, 4.5e6, 2.3e6, id="heroku-basic"),
        pytest.param(12.522, 6.6e6, 4.3e6, id="t3.micro"),
        pytest.param(20.114, 9.8e6, 7.2e6, id="t3.small"),
        pytest.param(25, 11.9e6, 9.2e6, id="heroku-standard-1x"),
        pytest.param(70.083, 42.6e6, 36.8e6, id="c7i.large"),
    ],
)
def test_break_even_of_cloud_run_with_a_fixed_price(fixed, after_free_tier, at_list_price):
    # The examples hold a fixed price against Cloud Run, and are printed to 0.1 million.
    for cost, expected in ((net(CLOUDRUN), after_free_tier), (gross(CLOUDRUN), at_list_price)):
        (crossing,) = compare_bills(cost, lambda _: fixed).crossings
        assert crossing.requests == pytest.approx(expected, abs=0.06e6)
        assert crossing.first_below


def test_break_even_of_cloud_run_with_a_t3_smalls_whole_bill():
    (crossing,) = compare_bills(net(CLOUDRUN), net(AWS_EC2), high=300e6).crossings
    assert crossing.requests == pytest.approx(9.8e6, abs=0.06e6)


def test_break_even_of_request_and_instance_billing_on_cloud_run():
    def instance_billed(requests):
        return SECONDS_PER_MONTH * (18e-6 + 2e-6) + requests * WORK.egress_bytes / 2**30 * 0.12

    (crossing,) = compare_bills(gross(CLOUDRUN), instance_billed).crossings
    assert crossing.requests == pytest.approx(25e6, rel=0.03)


def test_answers_over_new_tls_connections_cost_egress():
    # 4 KB more of each of 100 million answers. The example's $27 for AWS takes the 400 GB alone against the free
    # 100 GB; beside the 70 GB that the answers have already it is $33.30.
    with_tls = replace(WORK, egress_bytes=4700)
    only_tls = replace(WORK, egress_bytes=4000)
    assert bill(CLOUDRUN, 100e6, with_tls).net_usd - bill(CLOUDRUN, 100e6).net_usd == pytest.approx(45, abs=0.5)
    assert bill(AWS_EC2, 100e6, only_tls).net_usd - bill(AWS_EC2, 1).net_usd == pytest.approx(27, abs=CENT)
    assert bill(AWS_EC2, 100e6, with_tls).net_usd - bill(AWS_EC2, 100e6).net_usd == pytest.approx(33.30, abs=CENT)


def test_gross_has_no_free_allowance_at_all():
    assert bill(AWS_EC2, 100e6).gross_usd - bill(AWS_EC2, 100e6).net_usd == pytest.approx(70 * 0.09, abs=CENT)


def test_zero_requests_cost_only_what_is_always_on():
    with_image = replace(WORK, container_image_gib=0.8)
    assert bill(AWS_EC2, 0).net_usd == pytest.approx(20.11, abs=CENT)
    assert bill(HEROKU, 0).net_usd == 7
    assert bill(CLOUDRUN, 0).net_usd == 0
    assert bill(CLOUDRUN, 0, with_image).gross_usd == pytest.approx(0.08)
    assert bill(CLOUDRUN, 0, with_image).net_usd == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("requests", "net", "gross"),
    # At 10 million the instance is busy for 2,628,000 x (1 - e^(-0.3805)) = 831,800 s; the other 1,796,200 s are idle,
    # at $0.0000025 each for a vCPU and a GiB: $8.98 beside the $20.68 and $26.82 of the requests.
    [(10_000, 13.14, 13.17), (1_000_000, 12.65, 15.73), (10_000_000, 29.66, 35.80), (100_000_000, 110.07, 116.21)],
)
def test_an_instance_that_is_always_warm_is_billed_when_idle(requests, net, gross):
    found = bill(replace(CLOUDRUN, min_instances=1), requests)
    assert (found.net_usd, found.gross_usd) == pytest.approx((net, gross), abs=CENT)


def test_an_instance_that_is_always_warm_bills_no_starts():
    # Two are idle for the whole of a month without requests: 2 x 2,628,000 s x $0.000005.
    slow_start = replace(WORK, startup_s=600.0)
    warm = replace(GCP_CLOUDRUN, min_instances=1)
    assert bill(warm, 10_000, slow_start) == bill(warm, 10_000)
    assert bill(replace(GCP_CLOUDRUN, min_instances=2), 0).net_usd == pytest.approx(26.28)


@pytest.mark.parametrize("target", [CLOUDRUN, GCP_CLOUDRUN, FUNCTION_1GIB], ids=["run-80", "run-4", "function"])
@pytest.mark.parametrize("requests", [1, 1e4, 1e6, 1e8, 1e9])
def test_billed_seconds_lie_between_their_bounds(target, requests):
    seconds, low, high = billed_seconds(requests, WORK, target)
    assert low <= seconds <= high * (1 + 1e-9)


def test_billed_seconds_tend_to_their_limits():
    boots = cold_starts_per_month(1000) * WORK.startup_s
    assert billed_seconds(1000, WORK, CLOUDRUN)[0] - boots == pytest.approx(1000 * 0.1, rel=1e-3)
    busy = replace(WORK, cpu_s=0.0001)
    assert billed_seconds(500e6, busy, CLOUDRUN)[0] == pytest.approx(SECONDS_PER_MONTH, rel=1e-6)


@pytest.mark.parametrize("requests", [1e5, 1e7, 1e8])
def test_one_rule_for_all_targets_billed_by_request(requests):
    # Of the same size, and on one instance at each of these rates: the limit of concurrency is no rule of billing.
    small = replace(WORK, cpu_s=0.001, service_s=0.01)
    assert billed_seconds(requests, small, GCP_CLOUDRUN) == billed_seconds(requests, small, GCP_FUNCTION)


def test_starting_instances_are_billed_for_twice_their_vcpus():
    # At 10,000 a month 325.5 meet a start: e^-(10,000 / 2,628,000 * 900) = 0.032554. Each is 8 s of another vCPU.
    boosted = replace(CLOUDRUN, startup_cpu_boost=True)
    more_usd = bill(boosted, 10_000).gross_usd - bill(CLOUDRUN, 10_000).gross_usd
    assert more_usd == pytest.approx(325.54 * 8 * 24e-6, rel=1e-3)


def test_upper_bound_has_the_starts_of_a_short_idle_time():
    # Kept for 60 s alone, e^-(10,000 / 2,628,000 * 60) = 0.79586 of the requests meet a start: 7,959 of 8 s.
    _, _, high = billed_seconds(10_000, WORK, CLOUDRUN)
    assert high == pytest.approx(10_000 * 0.1 + 7_958.6 * 8, rel=1e-4)


def test_what_is_always_on_is_sized_for_the_peak():
    # 100 million a month are 38.05 a second, of which an instance of 30 a second at 70% takes 21: 2 dynos for the
    # mean, and 6 for three times as much (114.2 / 21 = 5.4).
    rates = {role: price.amount for role, price in prices_for(HEROKU, PRICES).items()}
    at_peak = monthly_bill(100e6, ON_DYNO, HEROKU, rates, peak=3)
    assert (bill(HEROKU, 100e6, ON_DYNO).net_usd, at_peak.net_usd, at_peak.exceeds_max_instances) == (50, 150, True)


def test_billed_seconds_at_100_million_a_month_by_hand():
    # 38.052 a second on one instance (38.052 * 0.015 / 80 and * 0.010 / 1 are below 60%); no gap of 900 s.
    # Union of 100 ms windows: 2,628,000 * (1 - e^-3.80518) = 2,569,513 s. Not rounded: 2,628,000 * (1 - e^-0.570776)
    # = 1,142,952 s. Each on its own: 100,000,000 * 0.1 = 10,000,000 s, more than the month has.
    expected, low, high = billed_seconds(100e6, WORK, CLOUDRUN)
    assert (round(expected), round(low), high) == (2_569_513, 1_142_952, pytest.approx(10_000_000))


def test_all_work_of_the_processor_is_billed():
    # 11.4 a second at the peak of 300 ms each, all of it work: 3,000,000 s, of which instances at 60% hold 2,286,000
    # if requests could overlap for nothing
    busy = replace(WORK, service_s=0.3, billed_s=0.3, cpu_s=0.3, startup_s=0)
    expected, low, high = billed_seconds(10e6, busy, CLOUDRUN, peak=3)
    assert (expected, low, high) == (pytest.approx(3_000_000), pytest.approx(3_000_000), pytest.approx(3_000_000))
    half = replace(busy, cpu_s=0.15)  # the rest is waiting, which may overlap
    assert 1_500_000 < billed_seconds(10e6, half, CLOUDRUN, peak=3)[0] < 3_000_000


@pytest.mark.parametrize(
    ("rate", "needed"), [(0, 1), (20, 1), (21, 1), (21.1, 2), (42.1, 3)], ids=lambda value: str(value)
)
def test_dynos_needed_at_70_percent_of_30_a_second(rate, needed):
    assert always_on_instances(rate, ON_DYNO) == needed


def test_the_autoscaler_counts_cpu_and_concurrency():
    by_cpu = autoscaled_instances(100, replace(WORK, cpu_s=0.01, service_s=0.01), CLOUDRUN)
    by_concurrency = autoscaled_instances(100, replace(WORK, cpu_s=0.001, service_s=0.03), GCP_FUNCTION)
    assert (by_cpu, by_concurrency) == (2, 5)


def test_instances_beyond_the_maximum_are_priced_and_flagged():
    one, many = bill(AWS_EC2, 100e6), bill(AWS_EC2, 2e9)
    assert not one.exceeds_max_instances
    assert many.exceeds_max_instances
    assert many.instances == 9
    assert many.net_usd > 9 * one.net_usd


def test_only_lasting_changes_of_cost_order_are_reported():
    def steps(requests):
        return 10 if requests < 1e6 else 30

    def dips(requests):
        return 5 if 2e5 < requests < 3e5 else 20

    order = compare_bills(steps, dips)
    assert [round(c.requests) for c in order.crossings] == [pytest.approx(1e6, rel=1e-6)]
    assert order.crossings[0].first_below


def test_a_short_change_of_order_is_an_exception_to_it():
    order = compare_bills(lambda n: 30 if 2e6 < n < 3e6 else 10, lambda _: 20)
    assert (order.crossings, order.first_is_cheaper) == ([], True)
    assert order.exceptions == [(pytest.approx(2e6, rel=1e-6), pytest.approx(3e6, rel=1e-6))]


def test_the_shortest_change_of_order_is_the_exception():
    # A machine for 20 until 7.2 million, then two for 40; the other's bill passes 20 at 4 million, and 40 at 8 million.
    order = compare_bills(lambda n: 20 if n < 7.2e6 else 40, lambda n: n * 5e-6)
    assert [round(c.requests) for c in order.crossings] == [pytest.approx(4e6, rel=1e-6)]
    assert order.exceptions == [(pytest.approx(7.2e6, rel=1e-6), pytest.approx(8e6, rel=1e-6))]


def test_range_of_a_crossing_is_that_of_its_bounds():
    def crossing_of(usd_per_request):
        return compare_bills(lambda n: n * usd_per_request, lambda _: 10)

    (found,) = crossing_ranges(crossing_of(1e-5), [crossing_of(0.5e-5), crossing_of(2e-5)])
    assert (found.low, found.high) == (pytest.approx(0.5e6), pytest.approx(2e6))
    assert not found.may_be_absent
    (open_ended,) = crossing_ranges(crossing_of(1e-5), [crossing_of(1e-12), crossing_of(2e-5)])
    assert (open_ended.low, open_ended.high) == (pytest.approx(0.5e6), pytest.approx(1e6))
    assert open_ended.may_be_absent


def test_two_that_never_cross_keep_their_order():
    assert compare_bills(lambda _: 7, lambda _: 20).first_is_cheaper is True
    assert compare_bills(lambda _: 20, lambda _: 7).first_is_cheaper is False
    assert compare_bills(lambda _: 20, lambda _: 7).crossings == []


def test_two_that_are_free_have_no_order():
    order = compare_bills(lambda _: 0, lambda _: 0.004)
    assert order.crossings == []
    assert order.first_is_cheaper is None


@pytest.mark.parametrize("target", [AWS_EC2, HEROKU, GCP_CLOUDRUN, GCP_FUNCTION], ids=lambda target: target.name)
def test_every_sku_of_the_shipped_targets_is_in_the_list(target):
    assert set(prices_for(target, PRICES)) == set(price_ids_by_role(target))


def test_a_size_without_a_price_is_an_error_that_names_it():
    with pytest.raises(PriceError, match="aws_ec2_x9_huge_hour"):
        prices_for(vm("x9.huge"), PRICES)


def test_a_region_without_a_price_is_an_error_that_names_both():
    with pytest.raises(PriceError, match=r"us-east-1.*eu-west-1"):
        prices_for(replace(AWS_EC2, region="eu-west-1"), PRICES)


@pytest.mark.parametrize(("rate", "needed"), [(30, 1), (30.1, 2), (60, 2), (61, 3)], ids=lambda value: str(value))
def test_a_rate_that_was_measured_is_used_to_the_full(rate, needed):
    assert always_on_instances(rate, replace(ON_DYNO, rate_measured=True)) == needed


def test_a_measured_rate_decides_how_many_dynos_are_paid():
    # 100 million a month are 38.05 a second.
    assert bill(HEROKU, 100e6, replace(ON_DYNO, instance_rps=40, rate_measured=True)).net_usd == 7
    assert bill(HEROKU, 100e6, replace(ON_DYNO, instance_rps=20, rate_measured=True)).net_usd == 2 * 25


def test_autoscaler_needs_at_least_the_measured_rates_instances():
    slow = replace(WORK, instance_rps=5, rate_measured=True)
    assert [autoscaled_instances(rate, slow, CLOUDRUN) for rate in (1, 5, 20, 21)] == [1, 1, 4, 5]
    assert autoscaled_instances(20, WORK, CLOUDRUN) == 1


def test_a_function_at_one_request_a_second_by_hand():
    # A month of it is 2,628,000 requests of 0.1 s, 1.71326 GiB, and no cold start at all. Windows that overlap are
    # billed once: 2,628,000 * (1 - e^-0.1) = 250,087 s.
    found = bill(GCP_FUNCTION, SECONDS_PER_MONTH)
    seconds, egress = 250_087, 1.71326 * 0.12
    assert found.gross_usd == pytest.approx(seconds * 26.5e-6 + 2.628 * 0.4 + egress, abs=1e-4)
    assert found.net_usd == pytest.approx((seconds - 180_000) * 24e-6 + 0.628 * 0.4 + 0.71326 * 0.12, abs=1e-4)


def test_bounds_of_the_net_bill_by_hand():
    # At best nothing is rounded up: 2,628,000 s * (1 - e^-0.015) are 39,126 s, all of them free.
    found = bill(GCP_FUNCTION, SECONDS_PER_MONTH)
    assert found.gross_low_usd == pytest.approx(39_126 * 26.5e-6 + 2.628 * 0.4 + 1.71326 * 0.12, abs=1e-4)
    assert found.net_low_usd == pytest.approx(0.628 * 0.4 + 0.71326 * 0.12, abs=1e-4)
    # At worst every request is billed 0.1 s of its own: 262,800 s.
    assert found.gross_high_usd == pytest.approx(262_800 * 26.5e-6 + 2.628 * 0.4 + 1.71326 * 0.12, abs=1e-4)
    assert found.net_high_usd == pytest.approx(82_800 * 24e-6 + 0.628 * 0.4 + 0.71326 * 0.12, abs=1e-4)


@pytest.mark.parametrize("target", [CLOUDRUN, GCP_FUNCTION, AWS_EC2, HEROKU], ids=lambda target: target.name)
@pytest.mark.parametrize("rate", [1e-3, 0.1, 1, 100, 1e4])
def test_every_bill_lies_between_its_bounds(target, rate):
    found = bill(target, rate * SECONDS_PER_MONTH)
    assert found.gross_low_usd <= found.gross_usd <= found.gross_high_usd * (1 + 1e-9)
    assert found.net_low_usd <= found.net_usd <= found.net_high_usd * (1 + 1e-9)


def test_ten_thousand_requests_a_second_on_machines_by_hand():
    # 91 a second each make 110 machines; 100 vCPUs are busy of which 44 are the baseline; 18,396 GB go out.
    found = bill(AWS_EC2, 1e4 * SECONDS_PER_MONTH)
    assert (found.instances, found.exceeds_max_instances) == (110, True)
    assert found.gross_usd == pytest.approx(110 * 20.114 + 56 * 730 * 0.05 + 18_396 * 0.09, abs=0.01)


def whole(max_rate_rps=None, boot_s=None, name="heroku"):
    run, samples = make_run(names=[name], reference=False)
    answered = [s for s in samples if s.phase == "measure"]
    return cost_report(build_cost_model(run.targets[0], answered, PRICES, max_rate_rps, boot_s))


def test_cost_curve_spans_0_001_to_10_000_requests_a_second():
    curve = whole(name="gcp_cloudrun").curve
    assert [curve[0].rps, curve[60].rps, curve[-1].rps] == [0.001, 1.0, 10_000.0]
    assert [curve[0].requests_per_month, curve[-1].requests_per_month] == [2628, 26_280_000_000]
    for point in curve:
        assert point.gross_low_usd <= point.gross_usd <= point.gross_high_usd + 1e-6
        assert point.net_low_usd <= point.net_usd <= point.net_high_usd + 1e-6
    assert curve[0].instances == 1
    assert curve[-1].exceeds_max_instances


def test_bills_under_other_assumptions_are_listed():
    base = whole(name="aws_ec2")
    assert set(base.what_if) == {"constant_rate", "new_connections", *(f"processor_{n}x_slower" for n in (2, 3, 4))}
    n = "100000000"
    # 4,500 bytes more of each of 100 million responses are 450 GB.
    more = base.what_if["new_connections"][n].gross_usd - base.monthly_usd[n].gross_usd
    assert more == pytest.approx(450 * 0.09, abs=CENT)
    bills = [base.monthly_usd[n], *(base.what_if[f"processor_{k}x_slower"][n] for k in (2, 3, 4))]
    assert [b.net_usd for b in bills] == sorted(b.net_usd for b in bills)
    assert bills[0].net_usd < bills[-1].net_usd


def test_without_a_load_test_capacity_is_of_the_clients_time():
    # The service says 8 ms, the client sees 10: an instance serves 100 a second, not 125.
    run, _ = make_run(names=["heroku"], reference=False)
    model = build_cost_model(run.targets[0], [make_sample(target="heroku")], PRICES)
    assert model.demand.instance_rps == pytest.approx(100)
    nearer = build_cost_model(run.targets[0], [make_sample(target="heroku")], PRICES, network_ms=5.0)
    assert nearer.demand.instance_rps == pytest.approx(125)
    assert model.demand_if_slower[2].instance_rps == pytest.approx(50)
    assert build_cost_model(run.targets[0], [make_sample()], PRICES, 40.0).demand.instance_rps == 40


def test_measured_cpu_time_is_what_is_priced():
    # 30 ms of CPU time for each request: one vCPU serves 33 a second, though the client waits 10 ms alone.
    run, _ = make_run(names=["gcp_cloudrun"], reference=False)
    samples = [make_sample(target="gcp_cloudrun", cpu_ms=ms) for ms in (20.0, 40.0, None)]
    model = build_cost_model(run.targets[0], samples, PRICES)
    assert (model.demand.cpu_s, model.demand_if_slower[3].cpu_s) == pytest.approx((0.030, 0.090))
    assert model.demand.instance_rps == pytest.approx(1 / 0.030)
    found = cost_report(model)
    assert found.measured["cpu_ms"] == 30.0
    assert AssumptionCode.CPU_TIME_MEASURED in {a.code for a in found.assumptions}


def test_cpu_time_that_is_not_measured_is_not_called_so():
    found = whole(name="gcp_cloudrun")
    assert "cpu_ms" not in found.measured
    codes = {a.code for a in found.assumptions}
    assert AssumptionCode.CPU_TIME_IS_SERVICE_TIME in codes and AssumptionCode.CPU_TIME_MEASURED not in codes


def test_stored_image_has_the_libraries_as_they_are_installed():
    # 50 MB of base, 22.6 MB shipped, and 754 MB of libraries at 265 / 995 of their size: 273.4 MB, or 0.2546 GiB.
    run, samples = make_run(names=["gcp_cloudrun"], reference=False)
    model = build_cost_model(run.targets[0], samples, PRICES)
    assert model.demand.container_image_gib == pytest.approx(0.2546, abs=1e-4)
    assert cost_report(model).measured["stored_image_mib"] == pytest.approx(260.7, abs=0.1)
    stated = build_cost_model(replace(run.targets[0], artifact={}), samples, PRICES)
    assert stated.demand.container_image_gib == pytest.approx(0.3143, abs=1e-4)  # 50 + 22.5 + 265 MB
    assert "stored_image_mib" not in cost_report(stated).measured


def test_measured_rate_sets_the_instance_count_and_is_reported():
    by_service, by_rate = whole(), whole(max_rate_rps=10.0)
    at_38_a_second = [found.monthly_usd["100000000"].instances for found in (by_service, by_rate)]
    # 114.2 a second at the peak; an instance of 15 ms a request takes 70% of 66.
    assert at_38_a_second == [3, 12]
    assert by_rate.measured["max_rate_rps"] == 10
    assert "max_rate_rps" not in by_service.measured
    by_service_codes, by_rate_codes = ({a.code: a.values for a in found.assumptions} for found in (by_service, by_rate))
    assert AssumptionCode.SCALED_BY_CLIENT_TIME in by_service_codes
    assert by_rate_codes[AssumptionCode.SCALED_BY_MEASURED_RATE] == {"capacity_rps": 10.0}
    assert AssumptionCode.SCALED_BY_CLIENT_TIME not in by_rate_codes


def test_a_proven_cold_start_is_what_starts_are_billed_by():
    assert whole(boot_s=12.5, name="gcp_cloudrun").measured["startup_s"] == 12.5
    assert whole(name="gcp_cloudrun").measured["startup_s"] == STARTUP_MS["gcp_cloudrun"] / 1000


def test_what_a_process_tells_of_its_start_is_no_cold_start():
    run, samples = make_run(n_images=50, names=("gcp_cloudrun",), twin=False)
    assert run.targets[0].version["startup_ms"]["total"] and run.targets[0].startup_ms is None
    model = build_cost_model(run.targets[0], samples, PRICES)
    assert not model.startup_measured and "startup_s" not in cost_report(model).measured


def test_a_rate_that_several_instances_held_is_shared_among_them():
    held = [make_sample(instance_id=name) for name in ("a", "b", "c", "a", None)]
    assert rps_per_instance(90.0, held) == 30
    assert rps_per_instance(90.0, [make_sample()]) == 90
    assert rps_per_instance(None, held) is None
