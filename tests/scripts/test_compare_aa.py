import pytest

from scripts.benchmarks import compare_aa

PAIRS = 20


@pytest.fixture(scope="module")
def outcomes():
    """Of 20 pairs of simulated runs of the same services, and of 6 longer ones in which one became 20% slower."""
    return {0.0: compare_aa.simulate_pairs(1, PAIRS, 12, 6, 0.0), 0.2: compare_aa.simulate_pairs(1, 6, 40, 6, 0.2)}


def test_runs_of_the_same_are_called_different_in_a_twentieth(outcomes):
    assert compare_aa.count_called(outcomes[0.0]) <= 1


def test_a_service_that_became_slower_is_found(outcomes):
    found = [compare_aa.CHANGED in outcome.p50_different for outcome in outcomes[0.2]]
    assert sum(found) >= 5


def test_too_many_called_different_is_an_exit_code_of_1(outcomes):
    lines = []
    called = [compare_aa.Outcome(frozenset({"heroku"}), frozenset(), frozenset(), frozenset())] * 2
    code = compare_aa.main(
        lines.append, lengths=[(12, 1)], slower=[], map_with=lambda *_: [[*called, *outcomes[0.0][2:]]]
    )
    assert code == 1 and lines[-1].startswith("12 rounds, 1 instance")
