"""The timing of load generators: what is made of arrivals, and a real round of our open loop."""

from __future__ import annotations

import os
import random
import sys

import pytest

from scripts.benchmarks.send_timing.__main__ import Round, main, rows
from scripts.benchmarks.send_timing.deviation import Timing, timing_of, without_edges

SECOND_NS = 1_000_000_000
RATE_RPS = 100.0


def arrivals(count: int = 1000, late_ms: dict[int, float] | None = None, start_ns: int = 5 * SECOND_NS) -> list[int]:
    """Of a regular schedule, some of them late."""
    late = late_ms or {}
    return [start_ns + number * SECOND_NS // 100 + round(late.get(number, 0) * 1e6) for number in range(count)]


def test_a_regular_schedule_has_no_deviation():
    assert timing_of(arrivals(), RATE_RPS) == Timing(800, 0, *[pytest.approx(0, abs=1e-6)] * 4)


def test_deviations_are_from_the_schedule_that_fits_best():
    random.seed(1)
    late_ms = {number: random.choice([2.0, 2.0, 2.0, 2.5]) for number in range(1000)}
    found = timing_of(arrivals(late_ms=late_ms), RATE_RPS)
    assert (found.p50_ms, found.p90_ms, found.max_ms) == pytest.approx((0, 0.5, 0.5), abs=1e-6)


def test_late_requests_are_not_left_out():
    """A sender that stands still for five periods, and catches up."""
    found = timing_of(arrivals(late_ms={500: 50, 501: 40, 502: 30, 503: 20, 504: 10}), RATE_RPS)
    assert (found.left_out, found.max_ms) == (0, pytest.approx(50))


def test_requests_that_never_came_are_left_out():
    came = [at for number, at in enumerate(arrivals()) if number not in (300, 301, 600)]
    found = timing_of(came, RATE_RPS)
    assert (found.arrived, found.left_out, found.max_ms) == (797, 3, pytest.approx(0, abs=1e-6))


def test_first_and_last_second_are_left_out():
    found = timing_of(arrivals(late_ms={0: 9, 1: 9, 99: 9, 999: 9}), RATE_RPS)
    assert (found.arrived, found.max_ms) == (799, pytest.approx(0, abs=1e-6))
    assert without_edges(list(range(1000)), RATE_RPS) == list(range(100, 900))


def test_too_few_arrivals_are_an_error():
    with pytest.raises(ValueError, match=r"150 arrivals, and none between the first and the last 1 s"):
        timing_of(arrivals(150), RATE_RPS)


def test_rounds_are_one_row_for_each_rate_and_sender():
    timings = [Timing(10, left_out, p50, 0.2, 0.3, 9 * p50) for left_out, p50 in ((0, 0.1), (1, 0.2), (0, 0.9))]
    rounds = [Round("ours", 100.0, timing, True, (0.01, 0.02)) for timing in timings]
    assert rows([*rounds, Round("k6", 100.0, timings[0], True)]) == [
        "| 100 | ours | 30 | 1 | 0.200 | 0.200 | 0.300 | 8.100 | 0.010 | 0.020 |",
        "| 100 | k6 | 10 | 0 | 0.100 | 0.200 | 0.300 | 0.900 |  |  |",
    ]


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given on Linux alone")
def test_our_open_loop_is_measured_and_others_are_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--rate", "40", "--duration", "0.5", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "k6 is not installed: go install go.k6.io/k6@latest" in printed
    assert any(line.startswith("wrk2 is not installed: ") for line in printed)
    assert f"ours: Python {sys.version.split()[0]}" in printed
    rate, sender, arrived, left_out, *figures = (cell.strip() for cell in printed[-1].strip("|").split("|"))
    assert (rate, sender, left_out) == ("40", "ours", "0") and 15 <= int(arrived) <= 25
    assert len([float(figure) for figure in figures]) == 6


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given on Linux alone")
def test_a_sender_that_fails_is_one_line(monkeypatch, capsys, tmp_path):
    k6 = tmp_path / "k6"
    k6.write_text('#!/bin/sh\n[ "$1" = version ] && echo k6 v0 && exit\necho no such option >&2\nexit 3\n', "utf-8")
    k6.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--rate", "40", "--duration", "0.5", "--rounds", "1"]) == 1
    said = capsys.readouterr()
    assert "k6: k6 v0" in said.out
    assert said.err.splitlines()[-1] == "send_timing: k6 ended with exit code 3: no such option"
