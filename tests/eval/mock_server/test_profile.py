"""Profiles of the mock endpoint: expected values, validation, files."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest

from eval.errors import ProfileError
from eval.mock_server.profile import EndpointProfile, parse_profile
from eval.mock_server.stalls import PeriodicStalls
from tests.helpers.expected_measurements import (
    SIMULATED_REQUESTS,
    capacity_rps,
    max_rate_rps,
    mean_service_ms,
    sojourn_times_ms,
    waiting_times,
)

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
    assert mean_service_ms(truth) == pytest.approx(drawn.mean(), rel=0.01)
    assert truth.service_time_cdf(truth.service_time_quantile_ms(p) * (1 + 1e-6)) >= p - 1e-6


def test_an_exponential_has_its_known_quantiles():
    assert EndpointProfile(**EXPONENTIAL).service_time_quantile_ms(0.95) == pytest.approx(20 * math.log(20))


def test_waits_follow_the_queue():
    assert waiting_times([3, 3, 3, 1], [0, 1, 10, 1]).tolist() == [0, 2, 0, 2]
    assert waiting_times([3, 3, 3, 1], [0, 1, 1, 1], servers=2).tolist() == [0, 0, 1, 1]


def test_single_server_sojourn_times_match_queueing_theory():
    """M/M/1: the time from arrival to answer is exponential, its rate the service's minus the arrivals'."""
    truth = EndpointProfile(**EXPONENTIAL, servers=1)
    assert capacity_rps(truth) == pytest.approx(50)
    assert np.quantile(sojourn_times_ms(truth, 30), 0.95) == pytest.approx(1000 * math.log(20) / (50 - 30), rel=0.03)
    assert max_rate_rps(truth, 150) == pytest.approx(50 - 1000 * math.log(20) / 150, rel=0.02)
    assert max_rate_rps(truth, 150, p=0.5) == pytest.approx(50 - 1000 * math.log(2) / 150, rel=0.02)


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
    assert capacity_rps(EndpointProfile(sigma=0, servers=1, stall_every_s=2, stall_ms=400)) == 40
    assert 0 < max_rate_rps(stalling, 200, p=0.5) < max_rate_rps(truth, 200, p=0.5)
    assert max_rate_rps(truth, 5) == 0
    assert max_rate_rps(EndpointProfile(), 100) == math.inf and max_rate_rps(EndpointProfile(), 25) == 0


def test_two_servers_bear_more_than_twice_the_rate_of_one():
    one, two = (max_rate_rps(EndpointProfile(servers=servers), 100) for servers in (1, 2))
    assert 2 * one < two < 100


def test_predicted_class_depends_on_seed_and_image_only():
    shas = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    one, same, other = (EndpointProfile(seed=seed, accuracy=0.5) for seed in (1, 1, 2))
    assert [one.predicted_class(sha) for sha in shas] == [same.predicted_class(sha) for sha in reversed(shas)][::-1]
    assert [one.predicted_class(sha) for sha in shas] != [other.predicted_class(sha) for sha in shas]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"median_ms": -1}', "my.json: median_ms is -1; expected a number above 0"),
        ('{"median_ms": NaN}', "median_ms is nan; expected a number above 0"),
        ('{"distribution": "normal"}', "distribution is 'normal'; expected one of lognormal, gamma"),
        ('{"accuracy": 1.5}', "accuracy is 1.5; expected a share, 0 to 1"),
        ('{"seed": -1}', "seed is -1; expected a whole number, 0 or more"),
        ('{"servers": 0}', "servers is 0; expected a whole number above 0"),
        ('{"cached_ms": true}', "cached_ms is True; expected a number, 0 or more, or left out"),
        (
            '{"stall_every_s": 1, "stall_ms": 1000}',
            "stall_every_s 1: a stall has to be shorter than its period",
        ),
        ('{"faults": [1]}', r"faults is \[1\]; expected an object"),
        ('{"faults": {"never": "often"}}', "faults: never is 'often'; expected a share"),
        ('{"faults": {"http_5xx": 0.7, "never": 0.7}}', "add up to 1.4; their sum may be 1 at most"),
        ('{"faults": {"explode": 0.1}}', "no fault is called explode; there are http_4xx"),
        ('{"classes": ["cat"]}', r"classes is \('cat',\); expected a list of at least two different names"),
        ('{"confusion": {"cat": "wolf"}}', "no class is called wolf; there are airplane"),
        ('{"confusion": {"cat": "cat"}}', "cat cannot be mistaken for itself"),
        ('{"confusion": {"cat": {"dog": 0.5}}}', "confusion: cat: the shares add up to 0.5; their sum has to be 1"),
        ('{"confusion": {"cat": {}}}', "confusion: cat is {}; expected a class, or an object"),
        ('{"labels": {"ab": 10}}', "labels: ab is 10; expected the number of a class, 0 to 9"),
        ('{"model_version": "a b"}', "model_version is 'a b'; expected"),
        ('{"medium_ms": 3}', "my.json: no field is called medium_ms; there are seed"),
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
