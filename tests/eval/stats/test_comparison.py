import math

import numpy as np
import pytest

from eval.stats.comparison import (
    Decision,
    Ratio,
    decide,
    fraction_difference_p,
    mean_ratio,
    quantile_ratio,
    ratio_of_ratios,
    relative_change,
)

BLOCK = 25


def machine(rng, n_rounds, spread=0.2):
    """What the machine does to each round: a factor that persists."""
    steps = rng.normal(0, spread / 4, n_rounds)
    return np.exp(np.cumsum(steps) - np.linspace(0, steps.sum(), n_rounds))


def target(rng, factors, median_ms=20.0, spread=0.1):
    """Latencies of a target by round, on that machine."""
    return {i: (median_ms * factor * rng.lognormal(0, spread, BLOCK)).tolist() for i, factor in enumerate(factors)}


@pytest.mark.parametrize("p", [0.5, 0.95])
@pytest.mark.parametrize(("n_rounds", "runs"), [(12, 60), (100, 40)])
def test_equal_targets_are_called_different_in_a_twentieth(n_rounds, runs, p):
    rng, called, beyond_chance = np.random.default_rng(1), 0, 0
    for _ in range(runs):
        factors = machine(rng, n_rounds)
        found = quantile_ratio(target(rng, factors), target(rng, factors), p, paired=True)
        called += found.decision == Decision.DIFFERENT
        beyond_chance += found.p < 0.05
    assert max(called, beyond_chance) <= (8 if runs == 60 else 6)  # 3 and 2 expected; more in one case of 100


@pytest.mark.parametrize(("n_rounds", "paired"), [(12, True), (60, True), (60, False)])
def test_equal_targets_with_unlike_instances_seldom_differ(n_rounds, paired):
    rng, told, untold, runs = np.random.default_rng(3), 0, 0, 60
    instances = {i: i * 6 // n_rounds for i in range(n_rounds)}
    for _ in range(runs):
        factors = machine(rng, n_rounds, 0.02)
        a, b = (target(rng, factors * np.repeat(rng.lognormal(0, 0.05, 6), n_rounds // 6), spread=0.05) for _ in "ab")
        told += quantile_ratio(a, b, 0.5, paired=paired, instances=(instances, instances)).p < 0.05
        untold += quantile_ratio(a, b, 0.5, paired=paired).p < 0.05
    assert told <= 8 and told <= untold


def test_a_pair_knows_a_difference_that_the_machine_hides():
    rng = np.random.default_rng(2)
    factors = machine(rng, 200, spread=0.8)
    a, b = target(rng, factors), target(rng, factors, median_ms=21.5)
    paired, apart = (quantile_ratio(a, b, 0.5, paired=paired) for paired in (True, False))
    assert paired.low < 1.075 < paired.high and paired.decision == Decision.DIFFERENT
    assert apart.low < 1.075 < apart.high and apart.decision == Decision.UNDECIDED


def test_two_runs_of_one_target_are_alike_a_slower_one_is_not():
    rng = np.random.default_rng(3)
    runs = [target(rng, rng.lognormal(0, 0.03, 200)) for _ in range(2)]
    assert quantile_ratio(*runs, 0.5, paired=False).decision == Decision.EQUIVALENT
    slower = {block: [1.2 * value for value in values] for block, values in runs[1].items()}
    found = quantile_ratio(runs[0], slower, 0.95, paired=False)
    assert found.decision == Decision.DIFFERENT and found.p < 0.01


def test_the_ratio_of_b_to_a_is_the_inverse_of_a_to_b():
    rng = np.random.default_rng(4)
    factors = machine(rng, 60)
    a, b = target(rng, factors), target(rng, factors, median_ms=30)
    there, back = quantile_ratio(a, b, 0.5, paired=True), quantile_ratio(b, a, 0.5, paired=True)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low), rel=0.01)


def test_blocks_that_differ_widen_the_interval():
    rng = np.random.default_rng(5)
    widths = []
    for spread in (0.0, 0.3):
        a, b = ({i: (factor * rng.lognormal(3, 0.1, BLOCK)).tolist()
                 for i, factor in enumerate(rng.lognormal(0, spread, 100))} for _ in range(2))  # fmt: skip
        found = quantile_ratio(a, b, 0.5, paired=True)
        widths.append(found.high / found.low - 1)
    assert widths[1] > 3 * widths[0]


def test_a_tail_of_a_few_requests_has_an_interval_without_an_end():
    rng = np.random.default_rng(6)
    a, b = (target(rng, np.ones(12)) for _ in range(2))
    found = quantile_ratio(a, b, 0.99, paired=True)
    assert math.isinf(found.high) and found.decision == Decision.UNDECIDED


@pytest.mark.parametrize("n_rounds", [1, 0])
def test_one_round_says_nothing_of_a_ratio(n_rounds):
    rounds = {i: [1.0, 2.0] for i in range(n_rounds)}
    assert quantile_ratio(rounds, rounds, 0.5, paired=True) is None


def test_only_rounds_that_both_have_are_paired():
    a = {i: [10.0 + i] for i in range(20)}
    b = {i: [11.0 + i] for i in range(10, 30)}
    assert quantile_ratio(a, b, 0.5, paired=True).blocks == 10


@pytest.mark.parametrize("failing", ["a", "b", "both"])
def test_failures_are_infinite_latencies_of_a_ratio(failing):
    fine = {i: [10.0, 11.0, 12.0] for i in range(20)}
    failed = {i: [10.0, math.inf, math.inf] for i in range(20)}
    a, b = (failed if failing in (side, "both") else fine for side in "ab")
    found = quantile_ratio(a, b, 0.5, paired=True)
    assert found.ratio == {"a": 0.0, "b": math.inf, "both": 1.0}[failing]
    assert found.low <= found.ratio <= found.high


def test_equal_times_are_equivalent():
    same = {i: [7.0] * BLOCK for i in range(20)}
    found = quantile_ratio(same, same, 0.95, paired=True)
    assert (found.ratio, found.p, found.decision) == (1.0, 1.0, Decision.EQUIVALENT)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(-0.01, 0.02, "equivalent"), (0.01, 0.02, "equivalent"), (0.01, 0.2, "different"), (-0.2, -0.06, "different"),
     (-0.1, 0.01, "undecided"), (-1, math.inf, "undecided")],
)  # fmt: skip
def test_an_interval_says_one_of_three_words(low, high, decision):
    assert decide(low, high, -0.05, 0.05) == decision


@pytest.mark.parametrize("paired", [True, False])
def test_a_ratio_of_means_holds_the_truth_and_no_more(paired):
    rng, held, differ = np.random.default_rng(7), 0, 0
    for _ in range(60):
        factors = machine(rng, 40, 0.05)
        a, b = target(rng, factors, spread=0.3), target(rng, factors, median_ms=23.0, spread=0.3)
        found = mean_ratio(a, b, paired=paired)
        held += found.low <= 1.15 <= found.high
        differ += found.p < 0.05
    assert held >= 51 and differ >= 51  # 57 expected; fewer in one case of 100


def test_a_machine_that_slows_one_run_is_not_in_a_ratio_of_both():
    rng, called = np.random.default_rng(8), 0
    for _ in range(60):
        ratios = []
        for level in (1.0, 1.3):
            factors = level * machine(rng, 40, 0.4)
            ratios.append(quantile_ratio(target(rng, factors), target(rng, factors), 0.95, paired=True))
        found = ratio_of_ratios(*ratios)
        assert (found.low > 1 or found.high < 1) == (found.p < 0.05)
        called += found.p < 0.05
    assert called <= 8  # 3 expected; more in one case of 100


def test_what_neither_interval_has_widens_a_ratio_of_ratios():
    exact = Ratio(1.0, 1.0, 1.0, 1.0, 10**6, 10**6)
    found = ratio_of_ratios(exact, Ratio(1.1, 1.1, 1.1, 0.0, 10**6, 10**6), extra_sd=0.1)
    assert (found.low, found.high) == pytest.approx((1.1 * math.exp(-0.196), 1.1 * math.exp(0.196)), rel=1e-3)
    assert ratio_of_ratios(exact, Ratio(1.1, 0.0, math.inf, 1.0, 12, 4)).p == 1.0


def test_the_p_value_of_an_intervals_end_is_a_twentieth():
    found = mean_ratio(*({i: [value + i % 3] * 5 for i in range(30)} for value in (10.0, 12.0)), paired=False)
    assert [found.p_of(end) for end in (found.low, found.high)] == pytest.approx([0.05, 0.05])
    assert found.p_of(1.0) == pytest.approx(found.p) and found.p_of(found.ratio) == 1.0


def test_failures_in_a_row_show_less_than_scattered_ones():
    fine = {i: [0.0] * 25 for i in range(20)}
    scattered = {i: [1.0, 1.0] + [0.0] * 23 for i in range(20)}
    outage = {i: [float(i in (9, 10))] * 25 for i in range(20)}
    assert fraction_difference_p(fine, scattered) < 0.001
    assert fraction_difference_p(fine, outage) > 0.2
    assert fraction_difference_p({0: [1.0]}, {0: [0.0]}) is None


@pytest.mark.parametrize(
    ("a", "b", "change"), [(10, 12, 0.2), (10, math.inf, math.inf), (math.inf, 10, -1), (math.inf, math.inf, 0)]
)
def test_failures_are_endless_latencies_in_a_change_too(a, b, change):
    assert relative_change(a, b) == pytest.approx(change)
