"""The measured coverage of the intervals, small here; `make interval-coverage` is the whole of it."""

import pytest

from scripts.simulations import interval_coverage

pytestmark = pytest.mark.integration


def only(monkeypatch, *methods):
    """Leave the other methods out, which take most of the time."""
    monkeypatch.setattr(interval_coverage, "METHODS", {name: interval_coverage.METHODS[name] for name in methods})


@pytest.mark.slow
def test_intervals_have_their_nominal_coverage(monkeypatch):
    only(monkeypatch, "report")
    rows = [row for model in interval_coverage.MODELS for row in interval_coverage.measure_coverage(model, 3000, 200)]
    for row in rows:  # 200 runs: 95% is known to within 4 points
        if row.method == interval_coverage.REPORT and row.judged:
            assert min(0.91, row.low) <= row.coverage.value <= max(0.99, row.high), row


@pytest.mark.slow
def test_drift_leaves_percentiles_of_10000_requests_covered(monkeypatch):
    only(monkeypatch, "report", "independent")
    rows = interval_coverage.measure_coverage(interval_coverage.MODELS[3], 10_000, 200)
    found = {row.figure: row.coverage.value for row in rows if row.method == interval_coverage.REPORT}
    assert found["p50"] > 0.9 and found["p95"] > 0.9 and found["p99"] > 0.86
    independent = {row.figure: row.coverage.value for row in rows if row.method == "independent"}
    assert independent["p50"] < 0.5 and independent["p99"] < 0.6


def test_instances_that_differ_leave_percentiles_covered(monkeypatch):
    only(monkeypatch, "report", "cosines")
    rows = interval_coverage.measure_coverage(interval_coverage.MODELS[4], 3000, 200)
    found = {(row.method, row.figure): row.coverage.value for row in rows}
    assert found["report", "p50"] >= 0.92 and found["report", "p95"] >= 0.91
    assert found["report", "p50"] > found["cosines", "p50"]  # which see only a part of what differs between six


def test_intervals_that_are_too_narrow_are_an_exit_code_of_1(monkeypatch):
    only(monkeypatch, "report", "independent")
    monkeypatch.setitem(interval_coverage.METHODS, interval_coverage.REPORT, interval_coverage.independent_interval)
    lines = []
    assert interval_coverage.main(lines.append, sizes=(3000,), runs=60) == 1
    assert any(line.startswith("blocks") and line.endswith("outside 93.0% to 97%") for line in lines)


def test_intervals_that_are_too_wide_are_an_exit_code_of_1(monkeypatch):
    def widened(latency_ms, p, instances):
        low, high = interval_coverage.independent_interval(latency_ms, p, instances)
        return low - 3 * (high - low), high + 3 * (high - low)

    only(monkeypatch, "report", "independent")
    monkeypatch.setitem(interval_coverage.METHODS, interval_coverage.REPORT, widened)
    assert interval_coverage.main(lambda line: None, sizes=(3000,), runs=20) == 1
