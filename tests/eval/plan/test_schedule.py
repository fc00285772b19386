from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from scipy.stats import kstest

from eval.dataset.sampling import stratified_sample
from eval.plan.arrivals import poisson_arrivals, ramp_arrivals
from eval.plan.config import SCENARIOS, Config, config_from_json
from eval.plan.schedule import build_schedule, fewer_restarts, search_step_block

TARGETS = ["aws_ec2", "heroku", "gcp_cloudrun", "gcp_function"]


def plan(images=103, **changes):
    config = Config(**{"seed": 1, "warmup": 7, "block": 10, "baseline_rtt": 0, "restarts": 0} | changes)
    return build_schedule(config, TARGETS, images)


def stream(name, scenario="poisson", **changes):
    return [b for b in plan(scenarios=(scenario,), warmup=0, **changes) if b.target == name]


@pytest.mark.parametrize("images", [1, 9, 10, 11, 103])
def test_every_target_gets_every_image_exactly_once(images):
    for target in TARGETS:
        posted = [
            i for b in plan(images=images) if b.target == target and b.phase == "measure" for i in b.image_indices
        ]
        assert sorted(posted) == list(range(images))


def test_all_targets_get_the_images_in_the_same_order():
    orders = {
        tuple(i for b in plan() if b.target == t and b.phase == "measure" for i in b.image_indices) for t in TARGETS
    }
    assert len(orders) == 1
    assert list(orders.pop()) != list(range(103))


def test_a_round_takes_the_same_chunk_to_every_target():
    blocks = [b for b in plan() if b.phase == "measure"]
    for start in range(0, len(blocks), len(TARGETS)):
        round_ = blocks[start : start + len(TARGETS)]
        assert sorted(b.target for b in round_) == sorted(TARGETS)
        assert len({b.image_indices for b in round_}) == 1


def test_no_target_is_always_first():
    blocks = [b for b in plan(images=1000) if b.phase == "measure"]
    firsts = Counter(blocks[start].target for start in range(0, len(blocks), len(TARGETS)))
    assert set(firsts) == set(TARGETS)


def test_warm_up_precedes_measurement_in_its_own_blocks():
    blocks = plan(warmup=25)
    phases = [b.phase for b in blocks]
    assert phases == sorted(phases, reverse=True)
    for target in TARGETS:
        assert sum(len(b.image_indices) for b in blocks if b.target == target and b.phase == "warmup") == 25


def test_warm_up_repeats_images_when_there_are_too_few():
    assert [len(b.image_indices) for b in plan(2, warmup=5) if b.target == "heroku"] == [5, 2]


def test_block_numbers_are_the_places_in_the_schedule():
    assert [b.number for b in plan()] == list(range(len(plan())))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_seed_determines_the_schedule(scenario):
    assert plan(seed=4, scenarios=(scenario,)) == plan(seed=4, scenarios=(scenario,))
    assert plan(seed=4, scenarios=(scenario,)) != plan(seed=5, scenarios=(scenario,))


def test_scenario_order_on_the_command_line_changes_nothing():
    assert plan(scenarios=("cold", "poisson", "single")) == plan(scenarios=("single", "poisson", "cold"))


def test_stream_has_the_configured_rate_and_duration():
    blocks = stream("heroku", rate_rps=50.0, duration_s=200.0)
    count = sum(len(b.image_indices) for b in blocks)
    assert abs(count - 10_000) < 4 * 100  # four standard deviations
    assert all(
        b.rate_rps == 50.0 and max(b.offsets_s) < 10 and list(b.offsets_s) == sorted(b.offsets_s) for b in blocks
    )


def test_gaps_of_a_stream_are_exponential():
    gaps = np.diff(poisson_arrivals(20.0, 500.0, 3))
    assert kstest(gaps, "expon", args=(0, 1 / 20.0)).pvalue > 0.01


def test_all_targets_get_the_same_stream_in_rotation():
    blocks = [b for b in plan(scenarios=("poisson",), warmup=0, duration_s=30.0)]
    for start in range(0, len(blocks), len(TARGETS)):
        round_ = blocks[start : start + len(TARGETS)]
        assert sorted(b.target for b in round_) == sorted(TARGETS)
        assert len({(b.image_indices, b.offsets_s) for b in round_}) == 1


def test_a_ramp_grows_evenly_to_its_rate():
    times = np.array(ramp_arrivals(100.0, 100.0, 5))
    assert abs(len(times) - 5000) < 4 * 71
    assert kstest((times / 100.0) ** 2, "uniform").pvalue > 0.01  # the expected number grows with the square


def test_a_burst_is_due_at_once():
    blocks = stream("heroku", "burst", burst=9)
    assert [(len(b.image_indices), set(b.offsets_s)) for b in blocks] == [(9, {0.0})] * 5


def test_the_cache_audit_posts_one_image_again_and_again():
    (block,) = stream("heroku", "repeat")
    assert len(block.image_indices) == 10 and len(set(block.image_indices)) == 1


@pytest.mark.parametrize(("scenario", "option"), [("cold", "restarts"), ("idle", "idle")])
def test_cold_starts_and_gaps_send_one_request_a_target_in_turn(scenario, option):
    blocks = plan(scenarios=(scenario,), warmup=0, **{option: 3})
    assert [len(b.image_indices) for b in blocks] == [1] * 12
    assert {tuple(sorted(b.target for b in blocks[i : i + 4])) for i in (0, 4, 8)} == {tuple(sorted(TARGETS))}


def stages(blocks):
    """What all targets get in turn: scenario and phase of every fourth block, which has to be the same for all."""
    turns = [blocks[start : start + len(TARGETS)] for start in range(0, len(blocks), len(TARGETS))]
    assert all(sorted(b.target for b in turn) == sorted(TARGETS) for turn in turns)
    assert all(len({(b.scenario, b.phase) for b in turn}) == 1 for turn in turns)
    return [(turn[0].scenario, turn[0].phase) for turn in turns]


def test_restarts_cut_the_rounds_into_equal_parts():
    restart, warmup, one_round = ("cold", "measure"), ("cold", "warmup"), ("single", "measure")
    found = stages(plan(images=120, restarts=5)[len(TARGETS) :])  # the first warm-up left out
    assert found == [one_round] * 2 + [restart, warmup, one_round, one_round] * 5


def test_restarts_change_nothing_of_the_measured_rounds():
    def rounds(restarts):
        return [b.image_indices for b in plan(images=120, restarts=restarts) if b.scenario == "single"]

    assert rounds(5) == rounds(0)


def test_short_run_has_one_restart_at_most_between_two_rounds():
    counts = [
        sum(b.scenario == "cold" and b.phase == "measure" for b in plan(images=n, restarts=5)) for n in (9, 25, 60)
    ]
    assert counts == [0, 2 * 4, 5 * 4]


def test_fewer_restarts_than_asked_for_are_told_with_the_way_out():
    found = fewer_restarts(Config(restarts=20), 300)
    assert found and found.startswith(
        "restarts: 11 of each service in place of 20, as its 300 requests are 12 rounds; "
    )
    assert "--block 14 makes room" in found and fewer_restarts(Config(restarts=20, block=14), 300) is None
    assert "another image set makes room" in str(fewer_restarts(Config(), 4))
    for enough in (Config(), Config(restarts=20, scenarios=("single", "cold")), Config(scenarios=("poisson",))):
        assert fewer_restarts(enough, 300) is None


def test_scenario_cold_adds_restarts_that_single_has_no_room_for():
    found = stages(plan(images=25, restarts=5, scenarios=("single", "cold")))
    assert found.count(("cold", "measure")) == 5 and found[-3:] == [("cold", "measure")] * 3


def test_a_no_op_baseline_is_taken_before_and_after():
    blocks = [b for b in plan(baseline_rtt=3) if b.phase == "measure"]
    assert [b.scenario for b in blocks[:4] + blocks[-4:]] == ["baseline_rtt"] * 8
    assert {b.image_indices for b in blocks if b.scenario == "baseline_rtt"} == {(-1, -1, -1)}


def test_search_step_has_enough_requests_for_a_percentile():
    slow, fast = (search_step_block(Config(), 50, 7, "heroku", 0, rate) for rate in (3.0, 500.0))
    assert 100 < len(slow.image_indices) < 200 and max(slow.offsets_s) < 60
    assert max(fast.offsets_s) < 10


def test_a_configuration_survives_json():
    config = Config(scenarios=("single", "cold"), stacks=("heroku",), local=False, limit=5)
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_changed_configuration_is_named_value_by_value():
    assert Config(seed=2, burst=9).differences_from(Config(seed=1)) == ["seed=2 instead of 1", "burst=9 instead of 32"]


LABELS = [i % 10 for i in range(1000)]


def test_a_sample_holds_every_class_alike():
    assert set(Counter(LABELS[i] for i in stratified_sample(LABELS, 50, 3)).values()) == {5}


def test_indivisible_sample_differs_by_one_between_classes():
    counts = Counter(LABELS[i] for i in stratified_sample(LABELS, 57, 3))
    assert set(counts.values()) == {5, 6}
    assert counts.total() == 57


def test_a_sample_keeps_the_proportions_of_unequal_classes():
    labels = [0] * 900 + [1] * 100
    assert Counter(labels[i] for i in stratified_sample(labels, 100, 0)) == {0: 90, 1: 10}


def test_a_sample_is_chosen_by_the_seed_and_keeps_the_order():
    one, again, other = (
        stratified_sample(LABELS, 20, 1),
        stratified_sample(LABELS, 20, 1),
        stratified_sample(LABELS, 20, 2),
    )
    assert one == again == sorted(one)
    assert one != other


@pytest.mark.parametrize("limit", [None, 1000, 5000])
def test_no_limit_or_a_large_one_takes_all(limit):
    assert stratified_sample(LABELS, limit, 1) == list(range(1000))
