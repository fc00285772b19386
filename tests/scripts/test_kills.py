"""Runs that are killed and resumed: how requests are counted, and real runs at two moments of each kind."""

from __future__ import annotations

from itertools import product

import pytest

from scripts.simulations.kills.__main__ import is_wrong, main, moments, row
from scripts.simulations.kills.moment import AFTER, BEFORE, KINDS, WHILE, Outcome
from scripts.simulations.kills.request_counts import RequestCounts, Snapshot, count_requests

PLANNED = ["p", "q", "r"]


def snapshot(arrived: str, kept: str, paused: str = "") -> Snapshot:
    """Requests of one letter each."""
    return Snapshot(
        {name: arrived.count(name) for name in arrived}, frozenset(kept), {n: paused.count(n) for n in paused}
    )


@pytest.mark.parametrize(
    ("killed", "resumed", "expected"),
    [
        (snapshot("pqr", "pqr"), snapshot("pqr", "pqr"), RequestCounts(3, 3, 3, 0)),
        (snapshot("", ""), snapshot("pqr", "pqr"), RequestCounts(3, 0, 0, 3, 0, 3)),
        (snapshot("pq", "p"), snapshot("pqqr", "pqr"), RequestCounts(3, 2, 1, 2, 1, 2)),
        (snapshot("ppq", "pq", "p"), snapshot("ppqr", "pqr", "p"), RequestCounts(3, 2, 2, 1, 0, 1)),
        (snapshot("pq", "p", "q"), snapshot("pqqrr", "pqr", "qr"), RequestCounts(3, 2, 1, 2, 1, 2)),
    ],
    ids=["after the last answer", "before the first", "one unanswered", "a pause before", "pauses in both"],
)
def test_requests_sent_once_or_marked_missing_are_counted(killed, resumed, expected):
    assert count_requests(PLANNED, killed, resumed) == expected
    assert not is_wrong(Outcome(True, WHILE, expected, 1.0))


@pytest.mark.parametrize(
    ("killed", "resumed", "twice", "never"),
    [
        (snapshot("ppq", "pq"), snapshot("ppqr", "pqr"), 1, 0),
        (snapshot("pq", "pq"), snapshot("ppqr", "pqr"), 1, 0),
        (snapshot("p", "p"), snapshot("pqqr", "pqr"), 1, 0),
        (snapshot("pq", "pq"), snapshot("pq", "pq"), 0, 1),
        (snapshot("pq", "pq"), snapshot("pq", "pqr"), 0, 1),
    ],
    ids=["in the killed run", "though it was kept", "in the resumed run", "not repeated", "kept without an arrival"],
)
def test_requests_sent_again_or_never_are_found(killed, resumed, twice, never):
    found = count_requests(PLANNED, killed, resumed)
    assert (found.twice, found.never) == (twice, never)
    assert is_wrong(Outcome(True, WHILE, found, 1.0))


def test_moments_lie_in_every_part_of_the_time():
    found = moments("run", 10, seed=3)
    assert [int(moment.fraction * 10) for moment in found] == [*range(10)]
    assert {(moment.workers, moment.while_sending) for moment in found} == set(product((1, 2), (False, True)))
    assert found == moments("run", 10, seed=3) != moments("run", 10, seed=4)
    assert {moment.workers for kind in ("worker", "node") for moment in moments(kind, 10, seed=3)} == {2}


def test_a_kind_is_one_row_of_the_moments_that_killed():
    outcomes = [
        Outcome(True, BEFORE, RequestCounts(3, 0, 0, 3, 0, 3), 0.2),
        Outcome(True, WHILE, RequestCounts(3, 2, 1, 2, 1, 2), 2.04),
        Outcome(False, AFTER, RequestCounts(3, 3, 3), 0.0),
    ]
    assert row("SIGTERM", outcomes) == "| SIGTERM | 2 (1, 1, 0) | 6 | 2 | 1 | 5 | 1 | 5 | 0 | 0 | 2.0 s |"


@pytest.mark.slow
@pytest.mark.integration
def test_no_kind_of_kill_sends_a_request_twice(capsys, needs_tool):
    needs_tool("sshd")
    assert main(["--moments", "2", "--seed", "5"]) == 0, capsys.readouterr().err
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert sorted(cells[0] for cells in rows) == sorted(KINDS)
    for cells in rows:
        planned, _, kept, missing, unanswered, repeated, twice, never = map(int, cells[2:10])
        assert planned == kept + missing and repeated == missing >= unanswered
        assert twice == never == 0
