"""McNemar's test on a few answers that can be counted by hand."""

from itertools import combinations

import numpy as np
import pytest

from eval.analysis.predictions.accuracy import Prediction
from eval.analysis.predictions.mcnemar import DiscordantPairs, discordant_pairs, mcnemar_tests, non_inferiority
from eval.codes import ReasonCode, unavailable
from eval.cost.price_list import load_price_list
from eval.report.report_json import build_report
from tests.helpers.synthetic_run import make_run


def said(*labels, first=0):
    return {first + i: Prediction(label, None) for i, label in enumerate(labels)}


def test_only_images_that_both_answered_and_one_got_right_count():
    truth = dict.fromkeys(range(6), 1)
    found = discordant_pairs(truth, said(1, 1, 0, 1, 0), said(1, 0, 1, 0, 0, 1))
    assert found == DiscordantPairs(n=5, only_a_correct=2, only_b_correct=1)


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (5, 0, 2 / 32), (0, 6, 2 / 64), (3, 3, 1.0), (8, 1, 20 / 512)])
def test_the_p_value_is_exact(b, c, p):
    assert DiscordantPairs(100, b, c).p == pytest.approx(p)


TRUTH = dict.fromkeys(range(20), 1)


def wrong_on(*images):
    return {image: Prediction(0 if image in images else 1, None) for image in TRUTH}


def test_p_values_are_adjusted_for_the_number_of_hypotheses():
    answers = {"a": wrong_on(), "b": wrong_on(*range(6)), "c": wrong_on(*range(10, 15))}
    found = mcnemar_tests(TRUTH, answers, [("a", "b"), ("a", "c"), ("b", "c")])
    assert [report.p for report in found.values()] == pytest.approx([2 / 64, 2 / 32, 1.0])
    assert [report.p_holm for report in found.values()] == pytest.approx([3 * 2 / 64, 2 * 2 / 32, 1.0])


def test_targets_with_the_same_answers_are_one_hypothesis():
    answers = {"a": wrong_on(), "b": wrong_on(*range(6)), "a2": wrong_on(), "b2": wrong_on(*range(6))}
    found = mcnemar_tests(TRUTH, answers, list(combinations(answers, 2)))
    assert {found["a", "b"].p_holm, found["a", "b2"].p_holm, found["b", "a2"].p_holm} == {2 / 64}
    assert found["a", "a2"].p_holm == found["b", "b2"].p_holm == 1.0


def test_pair_without_common_images_is_not_tested_and_says_why():
    answers = {"a": wrong_on(), "b": wrong_on(*range(6)), "c": {}}
    found = mcnemar_tests(TRUTH, answers, [("a", "b"), ("a", "c")])
    assert found["a", "b"].p_holm == found["a", "b"].p == pytest.approx(2 / 64)
    assert found["a", "c"].p == found["a", "c"].p_holm == unavailable(ReasonCode.NO_COMMON_IMAGE)


def test_equally_accurate_targets_are_seldom_significant():
    dice = np.random.default_rng(2)
    p = [DiscordantPairs(1000, int(b), int(30 - b)).p for b in dice.binomial(30, 0.5, size=400)]
    assert sum(value < 0.05 for value in p) <= 0.05 * 400


def test_the_report_says_for_every_pair_who_alone_was_right():
    run, samples = make_run(disagreements={"heroku": 9})
    pairs = build_report(run, samples, load_price_list())["agreement"]
    worse = pairs["aws_ec2|heroku"]["mcnemar"]
    assert (worse["only_a_correct"], worse["only_b_correct"], worse["p"]) == (9, 0, pytest.approx(2 / 2**9))
    assert worse["p_holm"] == pytest.approx(2 / 2**9)  # all others answer as the reference does: one hypothesis
    assert pairs["aws_ec2|gcp_function"]["mcnemar"] == {
        "only_a_correct": 0,
        "only_b_correct": 0,
        "p": 1.0,
        "p_holm": 1.0,
    }


def test_the_interval_of_a_difference_holds_it_in_95_percent():
    rng, held = np.random.default_rng(6), 0
    for only_a, only_b, _ in rng.multinomial(2000, [0.012, 0.008, 0.98], size=400):
        found = DiscordantPairs(2000, int(only_a), int(only_b)).difference()
        held += found.low <= -0.004 <= found.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize(
    ("only_a", "only_b", "word"),
    [(48, 37, "not inferior"), (0, 0, "not inferior"), (300, 100, "inferior"), (200, 100, "not decided")],
)
def test_three_words_say_whether_an_engine_is_less_accurate(only_a, only_b, word):
    assert non_inferiority(DiscordantPairs(10_000, only_a, only_b).difference()) == word


def test_few_images_decide_nothing():
    assert non_inferiority(DiscordantPairs(100, 0, 0).difference()) == "not decided"
