from __future__ import annotations

import json

from eval.report.context import MAX_DRAWN_TARGETS
from eval.report.render import REPORT_JSON, write_reports
from scripts.benchmarks.report_size import ReportCost, growth_plot, write_synthetic_run


def test_a_made_up_run_is_read_and_reported(tmp_path):
    write_synthetic_run(tmp_path, samples=400, targets=5)
    report = write_reports(tmp_path)
    assert [target["all_requests"] for target in report["targets"].values()] == [80] * 5
    alike = [pair for pair, found in report["agreement"].items() if not found["disagreements"]]
    assert len(alike) == 6  # of the four that answer alike


def test_of_many_targets_report_json_has_the_drawn_curves(tmp_path):
    write_synthetic_run(tmp_path, samples=280, targets=14)
    targets = write_reports(tmp_path)["targets"].values()
    assert [len(targets), sum(bool(target["cost"]["curve"]) for target in targets)] == [14, MAX_DRAWN_TARGETS]
    text = (tmp_path / REPORT_JSON).read_text(encoding="utf-8")
    assert text.count("\n") == 1 and len(json.loads(text)["targets"]) == 14


def test_the_plot_names_each_size():
    svg = growth_plot([ReportCost(10_000, 4, 6.0, 240.0, 0.5, 0.3), ReportCost(1_000_000, 8, 55.0, 500.0, 1.5, 0.6)])
    assert svg.startswith("<svg") and "55 (8 targets)" in svg
