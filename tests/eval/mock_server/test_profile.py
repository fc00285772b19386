"""What a truth says of itself is so, and one that makes no sense is refused."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest

from eval.errors import ProfileError
from eval.mock_server.profile import SIMULATED_REQUESTS, EndpointProfile, parse_profile
from eval.mock_server.queueing import PeriodicStalls, waiting_times

EXPONENTIAL = {"distribution": "gamma", "sigma": 1.0, "median_ms": 20 * math.log(2)}  # with a mean of 20 ms
SHAPES = (
    EndpointProfile(),
    EndpointProfile(slow_share=0.1),
    EndpointProfile(slow_share=0.2, slow_factor=0.1),
    EndpointProfile(sigma=0),
    EndpointProfile(sigma=0, slow_share=0.2),
    EndpointProfile(**EXPONENTIAL),
    EndpointProfile(distribution="gamma", sigma=0.5, slow_share=0.03),
)


@pytest.mark.parametrize("truth", SHAPES)
@pytest.mark.parametrize("p", [0.5, 0.95, 0.99])
def test_quantiles_and_mean_are_those_of_what_is_drawn(truth, p):
    drawn = truth.draw_service_times_ms(np.random.default_rng(1), 400_000)
    assert truth.service_time_quantile_ms(p) == pytest.approx(np.quantile(drawn, p), rel=0.02)
    assert truth.mean_service_ms == pytest.approx(drawn.mean(), rel=0.01)
    assert truth.service_time_cdf(truth.service_time_quantile_ms(p) * (1 + 1e-6)) >= p - 1e-6


def test_an_exponential_has_its_known_quantiles():
    assert EndpointProfile(**EXPONENTIAL).service_time_quantile_ms(0.95) == pytest.approx(20 * math.log(20))


def test_failures_count_as_infinitely_slow_where_all_are_counted():
    truth = EndpointProfile(faults={"http_5xx": 0.02})
    assert truth.quantile_with_failures_ms(0.95) == truth.service_time_quantile_ms(0.95 / 0.98)
    assert truth.quantile_with_failures_ms(0.99) == math.inf


def test_waits_follow_the_queue():
    assert waiting_times([3, 3, 3, 1], [0, 1, 10, 1]).tolist() == [0, 2, 0, 2]
    assert waiting_times([3, 3, 3, 1], [0, 1, 1, 1], servers=2).tolist() == [0, 0, 1, 1]


def test_single_server_sojourn_times_match_queueing_theory():
    """M/M/1: the time from arrival to answer is exponential, its rate the service's minus the arrivals'."""
    truth = EndpointProfile(**EXPONENTIAL, servers=1)
    assert truth.capacity_rps() == pytest.approx(50)
    assert np.quantile(truth.sojourn_times_ms(30), 0.95) == pytest.approx(1000 * math.log(20) / (50 - 30), rel=0.03)
    assert truth.max_rate_rps(150) == pytest.approx(50 - 1000 * math.log(20) / 150, rel=0.02)
    assert truth.max_rate_rps(150, p=0.5) == pytest.approx(50 - 1000 * math.log(2) / 150, rel=0.02)


def test_waiting_fraction_of_many_servers_matches_erlang_c():
    load = 30 * 0.020  # erlangs, on two servers: the second formula of Erlang
    waiting = load**2 / (2 - load) / (1 + load + load**2 / (2 - load))
    dice = np.random.default_rng(4)
    waited = waiting_times(
        dice.exponential(0.020, SIMULATED_REQUESTS), dice.exponential(1 / 30, SIMULATED_REQUESTS), servers=2
    )
    assert (waited > 0).mean() == pytest.approx(waiting, rel=0.03)


def test_pauses_stop_the_clock_of_work():
    pauses = PeriodicStalls(10, 2)
    assert pauses.work_done(np.array([5, 10, 11, 12, 15, 20, 22, 23])).tolist() == [5, 10, 10, 10, 13, 18, 18, 19]
    assert pauses.finish_time(np.array([5, 10, 13, 18, 18.5])).tolist() == [5, 10, 15, 20, 22.5]
    work = np.random.default_rng(1).uniform(0, 200, 1000)
    assert pauses.work_done(pauses.finish_time(work)) == pytest.approx(work)
    assert not PeriodicStalls(10, 0) and not PeriodicStalls(0, 2)


def test_stalls_lower_the_max_rate_which_may_be_zero_or_infinite():
    truth = EndpointProfile(median_ms=20, sigma=0.3, servers=1)
    stalling = EndpointProfile(median_ms=20, sigma=0.3, servers=1, stall_every_s=2, stall_ms=400)
    assert EndpointProfile(sigma=0, servers=1, stall_every_s=2, stall_ms=400).capacity_rps() == 40
    assert 0 < stalling.max_rate_rps(200, p=0.5) < truth.max_rate_rps(200, p=0.5)
    assert truth.max_rate_rps(5) == 0
    assert EndpointProfile().max_rate_rps(100) == math.inf and EndpointProfile().max_rate_rps(25) == 0


def test_two_servers_bear_more_than_twice_the_rate_of_one():
    one, two = (EndpointProfile(servers=servers).max_rate_rps(100) for servers in (1, 2))
    assert 2 * one < two < 100


def test_predicted_class_depends_on_seed_and_image_only():
    shas = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    one, same, other = (EndpointProfile(seed=seed, accuracy=0.5) for seed in (1, 1, 2))
    assert [one.predicted_class(sha) for sha in shas] == [same.predicted_class(sha) for sha in reversed(shas)][::-1]
    assert [one.predicted_class(sha) for sha in shas] != [other.predicted_class(sha) for sha in shas]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"median_ms": -1}', "my.json: median_ms is -1; it has to be a number above 0"),
        ('{"median_ms": NaN}', "median_ms is nan; it has to be a number above 0"),
        ('{"distribution": "normal"}', "distribution is 'normal'; it has to be one of lognormal, gamma"),
        ('{"accuracy": 1.5}', "accuracy is 1.5; it has to be a share, 0 to 1"),
        ('{"seed": -1}', "seed is -1; it has to be a whole number, 0 or more"),
        ('{"servers": 0}', "servers is 0; it has to be a whole number above 0"),
        ('{"cached_ms": true}', "cached_ms is True; it has to be a number, 0 or more, or left out"),
        ('{"stall_every_s": 1, "stall_ms": 1000}', "stall_ms is 1000 and stall_every_s 1: it would never work"),
        ('{"faults": [1]}', r"faults is \[1\]; it has to be an object"),
        ('{"faults": {"never": "often"}}', "faults: never is 'often'; it has to be a share"),
        ('{"faults": {"http_5xx": 0.7, "never": 0.7}}', "add up to 1.4; they have to be 1 together at most"),
        ('{"faults": {"explode": 0.1}}', "no fault is called explode; there are http_4xx"),
        ('{"classes": ["cat"]}', r"classes is \('cat',\); it has to be a list of two different names or more"),
        ('{"confusion": {"cat": "wolf"}}', "no class is called wolf; there are airplane"),
        ('{"confusion": {"cat": "cat"}}', "cat cannot be mistaken for itself"),
        ('{"confusion": {"cat": {"dog": 0.5}}}', "confusion: cat: the shares add up to 0.5; they have to make 1"),
        ('{"confusion": {"cat": {}}}', "confusion: cat is {}; it has to be a class, or an object"),
        ('{"labels": {"ab": 10}}', "labels: ab is 10; it has to be the number of a class, 0 to 9"),
        ('{"model_version": "a b"}', "model_version is 'a b'; it has to be"),
        ('{"medium_ms": 3}', "my.json knows no medium_ms; there are seed"),
        ("[]", "my.json is not an object"),
        ("{", "my.json is not JSON"),
    ],
)
def test_a_truth_that_makes_no_sense_is_refused_with_what_would(text, says):
    with pytest.raises(ProfileError, match=says):
        parse_profile(text, "my.json")


def test_a_truth_survives_its_file():
    truth = EndpointProfile(
        seed=4, faults={"never": 0.1}, labels={"ab": 1}, idle_s=5, servers=2, classes=("cat", "dog"),
        confusion={"cat": {"dog": 1.0}},
    )  # fmt: skip
    assert parse_profile(json.dumps(truth.to_json())) == truth
    assert parse_profile(json.dumps(EndpointProfile().to_json())) == EndpointProfile()
