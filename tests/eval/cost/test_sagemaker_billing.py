"""SageMaker's bills by hand: instances that follow the traffic of the day, seconds of serverless, data in and out."""

from dataclasses import replace

import pytest

from eval.cost.billing import ResourceDemand, busy_month, monthly_bill, prices_for
from eval.cost.price_list import load_price_list
from eval.errors import InvalidInput
from eval.samples.sizes import sized_target
from infra.targets import AWS_SAGEMAKER, SAGEMAKER_SIZES, TARGETS, sagemaker_target

PRICES = load_price_list()
WORK = ResourceDemand(service_s=0.015, billed_s=0.1, cpu_s=0.010, instance_rps=30, startup_s=8, egress_bytes=0)
CENT = 0.006


def rates(target):
    return {role: price.amount for role, price in prices_for(target, PRICES).items()}


def bill(target, requests, work=WORK, peak=1.0, **changed):
    """Of compute alone, unless `processed` has a price."""
    return monthly_bill(requests, work, target, rates(target) | {"processed": 0.0} | changed, peak)


def test_three_ml_m5_xlarge_cost_the_582_dollars_of_the_example():
    # 582 / 3 / 730 is $0.2658 an hour, and / 720 is $0.2694: a month of 720 hours at the $0.269 that older price tables
    # have. That is $193.68 for one, so $194, and $582 for three; not rounded, $581.04. A month here has 730 hours.
    three = replace(sagemaker_target("ml.m5.xlarge"), min_instances=3)
    found = bill(three, 1_000_000, hour=0.269)
    assert found.instances == 3
    assert found.gross_usd == found.net_usd == pytest.approx(3 * 730 * 0.269) == pytest.approx(589.11)
    assert found.gross_usd * 720 / 730 == pytest.approx(581.04)
    assert 3 * round(720 * 0.269) == 582
    assert bill(three, 1_000_000).gross_usd == pytest.approx(3 * 730 * 0.23) == pytest.approx(503.70)


def test_one_ml_m5_large_costs_the_same_idle_as_under_load():
    idle, busy = bill(AWS_SAGEMAKER, 0), bill(AWS_SAGEMAKER, 50e6)  # 19 a second of 21
    assert idle.net_usd == busy.net_usd == pytest.approx(730 * 0.115) == pytest.approx(83.95)


def test_instances_follow_the_traffic_of_the_day():
    # 20 million a month are 7.61 a second, and 22.8 in 8 busy hours a day: 2 of 21 a second each. The second one runs
    # 730 / 3 hours, and a quarter of an hour more on each of 30.4 days.
    found = bill(AWS_SAGEMAKER, 20e6, peak=3)
    hours = 730 + 730 / 3 + 730 / 24 / 4
    assert (found.instances, found.exceeds_max_instances) == (2, False)
    assert found.net_usd == pytest.approx(hours * 0.115) == pytest.approx(112.81, abs=CENT)


def test_no_hour_has_more_than_all_its_instances():
    all_day = bill(AWS_SAGEMAKER, 100e6)  # 38 a second, all day
    assert (all_day.instances, all_day.net_usd) == (2, pytest.approx(2 * 730 * 0.115))
    many = bill(AWS_SAGEMAKER, 100e6, peak=3)  # 114 a second
    assert (many.instances, many.exceeds_max_instances) == (6, True)


def test_data_is_billed_both_ways_and_what_leaves_aws_again():
    # A million: 3 GB in and 0.7 GB out at $0.016, 0.7 GB to the internet at $0.09, of which 100 GB a month are free.
    sending = replace(WORK, egress_bytes=700)
    found, without = bill(AWS_SAGEMAKER, 1e6, sending, processed=0.016), bill(AWS_SAGEMAKER, 1e6)
    assert found.net_usd - without.net_usd == pytest.approx(3.7 * 0.016)
    assert found.gross_usd - found.net_usd == pytest.approx(0.7 * 0.09)
    with_image = bill(AWS_SAGEMAKER, 0, replace(WORK, container_image_gib=0.8))
    assert with_image.net_usd - bill(AWS_SAGEMAKER, 0).net_usd == pytest.approx(0.08)


def test_serverless_bills_each_requests_own_time():
    # 10 million of 15 ms in 2 GB: 300,000 GB-seconds at $0.00002.
    found = bill(sagemaker_target("serverless-2048"), 10e6)
    assert found.gross_usd == found.net_usd == found.net_low_usd == pytest.approx(6.00)
    assert bill(sagemaker_target("serverless-2048"), 0).net_usd == 0


def test_serverless_starts_are_in_the_upper_bound_alone():
    # At 10,000 a month, e^-(10,000 / 2,628,000 * 60) = 0.79586 of the requests may meet a start of 8 s, in 1 GB.
    found = bill(sagemaker_target("serverless-1024"), 10_000)
    assert found.net_usd == pytest.approx(10_000 * 0.015 * 0.00002)
    assert found.net_high_usd - found.net_usd == pytest.approx(7_958.6 * 8 * 0.00002, rel=1e-4)


def test_serverless_serves_one_request_at_a_time_in_each():
    found = bill(sagemaker_target("serverless-2048", max_instances=5), 500e6, replace(WORK, instance_rps=1 / 0.015))
    assert (found.instances, found.exceeds_max_instances) == (5, False)  # 190 a second, 46.7 in each


def test_busy_month_is_every_second_of_every_instance():
    three = busy_month(WORK, AWS_SAGEMAKER, rates(AWS_SAGEMAKER), 3)
    assert (three.instances, three.usd) == (3, pytest.approx(3 * 730 * 0.115))
    assert three.million_requests_usd == pytest.approx(3 * 0.016)
    assert three.egress_usd == pytest.approx(0.09 + 0.016)
    serverless = sagemaker_target("serverless-6144")
    assert busy_month(WORK, serverless, rates(serverless), 1).usd == pytest.approx(2_628_000 * 6 * 0.00002)


@pytest.mark.parametrize("size", SAGEMAKER_SIZES)
def test_every_size_has_a_price_and_can_be_named(size, monkeypatch):
    monkeypatch.setitem(TARGETS, AWS_SAGEMAKER.name, AWS_SAGEMAKER)
    target = sized_target("aws_sagemaker", size)
    assert target == sagemaker_target(size)
    assert prices_for(target, PRICES)
    serverless = size.startswith("serverless-")
    assert (target.billing, target.scales_to_zero) == (("serverless", True) if serverless else ("endpoint", False))
    with pytest.raises(InvalidInput, match=r"no size 'ml\.p9'; choose from ml\.t2\.medium"):
        sized_target("aws_sagemaker", "ml.p9")


def test_burstable_size_is_not_scaled_unless_asked():
    assert (sagemaker_target("ml.t2.medium").max_instances, sagemaker_target("ml.m5.large").max_instances) == (1, 3)


def test_serverless_memory_is_whole_gigabytes_up_to_six():
    memories = [spec.memory_mib for name, spec in SAGEMAKER_SIZES.items() if name.startswith("serverless-")]
    assert memories == [1024, 2048, 3072, 4096, 5120, 6144]
