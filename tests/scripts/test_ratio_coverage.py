import pytest

from scripts.simulations import ratio_coverage


@pytest.mark.parametrize("model", [3, 4], ids=["drift", "instances"])
def test_equal_targets_are_seldom_called_different(model):
    rows = [row for n in (12, 40) for row in ratio_coverage.measure(ratio_coverage.MODELS[model], n, 60)]
    assert [row.figure for row in rows] == ["p50", "p95", "p99"] * 2
    assert all(row.held >= 0.86 for row in rows)  # 95% of 60 runs: fewer in one case of 200


def test_a_ratio_that_is_held_too_seldom_is_an_exit_code_of_1():
    bad = ratio_coverage.RatioRow("drift", "p50", 12, 0.8, 0.1, 0.2, 0.05)
    lines = []
    assert ratio_coverage.main(lines.append, rounds=[12], runs=1, map_with=lambda *_: [[bad]]) == 1
    assert lines[-1].endswith("under 93%")
