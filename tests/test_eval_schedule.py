from __future__ import annotations

from collections import Counter

import pytest

from eval.schedule import schedule, stratified

TARGETS = ["aws_ec2", "heroku", "gcp_cloudrun", "gcp_function"]


def plan(seed=1, images=103, warmup=7, block=10):
    return schedule(TARGETS, images, seed, warmup, block)


@pytest.mark.parametrize("images", [1, 9, 10, 11, 103])
def test_every_target_gets_every_image_exactly_once(images):
    for target in TARGETS:
        posted = [i for b in plan(images=images) if b.target == target and b.phase == "measure" for i in b.images]
        assert sorted(posted) == list(range(images))


def test_all_targets_get_the_images_in_the_same_order():
    orders = {tuple(i for b in plan() if b.target == t and b.phase == "measure" for i in b.images) for t in TARGETS}
    assert len(orders) == 1
    assert list(orders.pop()) != list(range(103))


def test_a_round_takes_the_same_chunk_to_every_target():
    blocks = [b for b in plan() if b.phase == "measure"]
    for start in range(0, len(blocks), len(TARGETS)):
        round_ = blocks[start : start + len(TARGETS)]
        assert sorted(b.target for b in round_) == sorted(TARGETS)
        assert len({b.images for b in round_}) == 1


def test_no_target_is_always_first():
    blocks = [b for b in plan(images=1000) if b.phase == "measure"]
    firsts = Counter(blocks[start].target for start in range(0, len(blocks), len(TARGETS)))
    assert set(firsts) == set(TARGETS)


def test_warm_up_comes_before_everything_measured_and_has_its_own_blocks():
    blocks = plan(warmup=25)
    phases = [b.phase for b in blocks]
    assert phases == sorted(phases, reverse=True)
    for target in TARGETS:
        assert sum(len(b.images) for b in blocks if b.target == target and b.phase == "warmup") == 25


def test_warm_up_repeats_pictures_when_there_are_too_few():
    assert [len(b.images) for b in schedule(["a"], 2, 0, 5, 10)] == [5, 2]


def test_block_numbers_are_the_places_in_the_schedule():
    assert [b.number for b in plan()] == list(range(len(plan())))


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another():
    assert plan(seed=4) == plan(seed=4)
    assert plan(seed=4) != plan(seed=5)


LABELS = [i % 10 for i in range(1000)]


def test_a_sample_holds_every_class_alike():
    assert set(Counter(LABELS[i] for i in stratified(LABELS, 50, 3)).values()) == {5}


def test_a_sample_that_does_not_divide_differs_by_one_between_classes():
    counts = Counter(LABELS[i] for i in stratified(LABELS, 57, 3))
    assert set(counts.values()) == {5, 6}
    assert counts.total() == 57


def test_a_sample_keeps_the_proportions_of_unequal_classes():
    labels = [0] * 900 + [1] * 100
    assert Counter(labels[i] for i in stratified(labels, 100, 0)) == {0: 90, 1: 10}


def test_a_sample_is_chosen_by_the_seed_and_keeps_the_order():
    one, again, other = stratified(LABELS, 20, 1), stratified(LABELS, 20, 1), stratified(LABELS, 20, 2)
    assert one == again == sorted(one)
    assert one != other


@pytest.mark.parametrize("limit", [None, 1000, 5000])
def test_no_limit_or_a_large_one_takes_all(limit):
    assert stratified(LABELS, limit, 1) == list(range(1000))
