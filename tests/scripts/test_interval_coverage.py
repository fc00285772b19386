"""The measured coverage of the intervals, small here; `make interval-coverage` is the whole of it."""

import pytest

from eval.stats import intervals
from scripts.benchmarks import interval_coverage

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_intervals_have_their_nominal_coverage():
    lines = []
    assert interval_coverage.main(lines.append, sizes=(1000,), runs=400) == 0, "\n".join(lines)
    assert lines[0] == "95% intervals over 400 simulated runs: how many hold the truth"
    assert lines[-1] == "all 17 are within"
    assert len(lines) == 3 + 17


def test_intervals_that_are_too_narrow_are_an_exit_code_of_1(monkeypatch):
    def too_narrow(values, p, **options):
        estimate = intervals.percentile(values, p, **options)
        middle = (estimate.low + estimate.high) / 2
        return intervals.Estimate(estimate.value, (estimate.low + middle) / 2, (estimate.high + middle) / 2, estimate.n)

    monkeypatch.setattr(interval_coverage, "percentile", too_narrow)
    lines = []
    assert interval_coverage.main(lines.append, sizes=(1000,), runs=100) == 1
    assert any("p95" in line and line.endswith("outside 93% to 97%") for line in lines)


def test_taking_samples_as_independent_fails_where_blocks_differ(monkeypatch):
    monkeypatch.setattr(interval_coverage, "percentile", lambda values, p, **_: intervals.percentile(values, p))
    rows = {
        row.figure: row.coverage.value
        for row in interval_coverage.measure_coverage(interval_coverage.MODELS[2], 1000, 100)
    }
    assert rows["p50 in time"] < 0.8


def test_intervals_that_are_too_wide_are_an_exit_code_of_1(monkeypatch):
    monkeypatch.setattr(interval_coverage, "proportion", lambda correct, n: intervals.Estimate(0.5, 0.0, 1.0, n))
    assert interval_coverage.main(lambda line: None, sizes=(1000,), runs=20) == 1
