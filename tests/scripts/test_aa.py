"""The A/A test on a run with known differences."""

from eval.samples.store import append_sample, write_run
from eval.stats.comparison import Decision
from scripts.benchmarks.aa import count_decisions, table
from tests.helpers.synthetic_run import make_run


def test_every_pair_of_a_run_is_counted_at_each_percentile(tmp_path):
    run, samples = make_run()
    write_run(tmp_path, run)
    with (tmp_path / "samples.jsonl").open("w") as file:
        for sample in samples:
            append_sample(file, sample)
    decisions, n = count_decisions(tmp_path), len(run.targets)
    assert {counts.total() for counts in decisions.values()} == {n * (n - 1) // 2}
    assert decisions["p50"][Decision.DIFFERENT]  # the synthetic targets are not equally fast
    assert len(table(decisions)) == 1 + len(decisions)
