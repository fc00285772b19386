"""The measured coverage of the intervals, small here; `make coverage` is the whole of it."""

import pytest

from eval.stats import intervals
from scripts import coverage

pytestmark = pytest.mark.integration


def test_the_intervals_of_simulated_runs_hold_the_truth_as_often_as_they_say():
    told = []
    assert coverage.main(told.append, sizes=(1000,), runs=400) == 0, "\n".join(told)
    assert told[0] == "95% intervals over 400 simulated runs: how many hold the truth"
    assert told[-1] == "all 17 as they should be"
    assert len(told) == 3 + 17


def test_intervals_that_are_too_sure_of_themselves_are_an_exit_code_of_1(monkeypatch):
    def too_narrow(values, p, **options):
        found = intervals.percentile(values, p, **options)
        middle = (found.low + found.high) / 2
        return intervals.Estimate(found.value, (found.low + middle) / 2, (found.high + middle) / 2, found.n)

    monkeypatch.setattr(coverage, "percentile", too_narrow)
    told = []
    assert coverage.main(told.append, sizes=(1000,), runs=100) == 1
    assert any("p95" in line and line.endswith("outside 93% to 97%") for line in told)


def test_taking_neighbours_as_independent_is_too_sure_where_blocks_differ(monkeypatch):
    monkeypatch.setattr(coverage, "percentile", lambda values, p, **_: intervals.percentile(values, p))
    rows = {row.figure: row.held.value for row in coverage.coverage(coverage.MODELS[2], 1000, 100)}
    assert rows["p50 in time"] < 0.8


def test_intervals_that_say_too_little_are_an_exit_code_of_1(monkeypatch):
    monkeypatch.setattr(coverage, "proportion", lambda right, n: intervals.Estimate(0.5, 0.0, 1.0, n))
    assert coverage.main(lambda line: None, sizes=(1000,), runs=20) == 1
