import numpy as np
import pytest

from eval.analysis.machine_change import MEAN, BothRuns, find_changes, percentile_figure
from eval.stats.comparison import Decision

ROUNDS, RESTARTS = 30, 6
P50 = percentile_figure(0.5)
INSTANCES = {i: f"i{i * RESTARTS // ROUNDS}" for i in range(ROUNDS)}


def both_runs(factors, *, seed=1, instances=INSTANCES, **options):
    """Targets on one machine that is 30% slower in run B and wanders; factors: target -> its own change."""
    rng = np.random.default_rng(seed)
    machine = {run: level * np.exp(np.cumsum(rng.normal(0, 0.1, ROUNDS))) for run, level in (("a", 1), ("b", 1.3))}

    def values(run, factor):
        return {i: (10 * factor * machine[run][i] * rng.lognormal(0, 0.05, 24)).tolist() for i in range(ROUNDS)}

    return {
        name: BothRuns(values("a", 1), values("b", factor), instances, instances, **options)
        for name, factor in factors.items()
    }


@pytest.mark.parametrize("figure", [P50, MEAN], ids=["p50", "mean"])
def test_what_all_targets_share_is_the_machines_change(figure):
    changes = find_changes(both_runs(dict.fromkeys("abcd", 1.0)), figure)
    (reference,) = {change.reference for change in changes.values()}
    for name, change in changes.items():
        assert change.machine * (change.own.ratio if change.own else 1) == pytest.approx(change.b / change.a)
        if name != reference:
            assert change.own.decision == Decision.EQUIVALENT
    assert changes[reference].own is None


@pytest.mark.parametrize("targets", ["abc", "abcd"])
def test_a_target_that_changed_alone_stands_out(targets):
    changes = find_changes(both_runs(dict.fromkeys(targets, 1.0) | {"b": 1.1}), P50)
    own = changes["b"].own
    assert own.low < 1.1 < own.high and own.decision == Decision.DIFFERENT and own.p < 0.01
    assert [name for name, change in changes.items() if change.own and change.own.p < 0.01] == ["b"]


def test_of_two_halves_the_one_that_moved_less_is_the_machine():
    changes = find_changes(both_runs({"a": 1.0, "b": 1.2, "c": 1.0, "d": 1.2}), P50)
    assert [name for name, change in changes.items() if change.own and change.own.p < 0.05] == ["b", "d"]


def test_of_one_target_the_machine_cannot_be_told_apart():
    (change,) = find_changes(both_runs({"a": 1.0}), P50).values()
    assert change.machine is None and change.reference is None
    assert change.own.ratio == pytest.approx(change.b / change.a)


def test_a_target_with_another_engine_tells_of_no_machine():
    runs = both_runs({"a": 1.0}) | both_runs({"b": 0.5, "c": 0.5}, may_be_reference=False)
    changes = find_changes(runs, P50)
    assert {change.reference for change in changes.values()} == {"a"}
    assert changes["b"].own.low < 0.5 < changes["b"].own.high
    alone = find_changes({name: runs[name] for name in "bc"}, P50)
    assert {change.machine for change in alone.values()} == {None}


def test_on_a_steady_machine_a_shared_change_is_the_targets():
    changes = find_changes(both_runs(dict.fromkeys("abcd", 1.0)), P50, steady_machine=True)
    assert {change.machine for change in changes.values()} == {1.0}
    assert all(change.own.ratio == pytest.approx(change.b / change.a) for change in changes.values())


def test_unknown_instances_may_explain_a_small_change():
    factors = dict.fromkeys("abcd", 1.0) | {"b": 1.08}
    known, unknown = (
        find_changes(both_runs(factors, instances=instances), P50)["b"].own for instances in (INSTANCES, {})
    )
    assert known.p < 0.05 < unknown.p
    assert unknown.high / unknown.low > known.high / known.low


def test_the_machine_explains_no_endless_latency():
    runs = both_runs(dict.fromkeys("abcd", 1.0))
    failing = {i: [float("inf")] * 24 for i in range(ROUNDS)}
    changes = find_changes(runs | {"b": BothRuns(runs["b"].a, failing, INSTANCES, INSTANCES)}, P50)
    assert changes["b"].own.ratio == float("inf") and changes["b"].own.p < 0.01
