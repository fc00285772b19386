"""The simulated week, hours of it: equal traffic raises no alert, each drift its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.simulations.drift.answers import BOUNDS, Answers
from scripts.simulations.drift.backfill import Backfill, begins
from scripts.simulations.drift.kinds import DRIFTS, EQUAL
from scripts.simulations.drift.rules import RECORDING, drift_alerts, drift_rules, levels
from scripts.simulations.drift.week import DAY_SCRAPES, HOUR_SCRAPES, Job, Simulation, rate_rps
from scripts.simulations.quiet_week import main, simulate

IMAGES = 4000


@pytest.fixture(scope="module")
def answers() -> dict[str, Answers]:
    """Of a model that is right nine times of ten, and of what each drift does to it."""
    rng = np.random.default_rng(1)
    truth, confidence = rng.integers(0, 10, IMAGES), rng.beta(12, 1, IMAGES)
    label = np.where(rng.random(IMAGES) < 0.9, truth, (truth + 1) % 10)
    numbers = {"confidence": confidence, "margin": confidence**2, "brightness": rng.beta(5, 5, IMAGES),
               "contrast": rng.beta(4, 12, IMAGES)}  # fmt: skip
    equal = Answers(tuple("abcdefghij"), truth, label, numbers)
    unsure = replace(equal, numbers=numbers | {"confidence": confidence**2.5, "margin": confidence**4})
    blurred = replace(unsure, numbers=unsure.numbers | {"contrast": numbers["contrast"] * 0.6})
    dark = replace(equal, numbers=numbers | {"brightness": numbers["brightness"] / 2})
    return {"equal": equal, "jpeg": unsure, "noise": unsure, "blur": blurred, "dark": dark, "labels": equal}


@pytest.mark.slow
def test_hours_of_equal_traffic_are_quiet_and_drifts_are_told(answers, needs_tool, tmp_path):
    backfill = Backfill(tmp_path, needs_tool("prometheus"), needs_tool("promtool"))
    start, drift_at, end = (hours * HOUR_SCRAPES for hours in (9, 13, 16))
    planned = [Job(EQUAL, start, end, end), *(Job(kind, start, end, drift_at) for kind in DRIFTS)]
    outcomes, near = simulate(planned, answers, backfill, seed=1)
    assert not any(outcome.is_false for outcome in outcomes)
    assert near.keys() == {"label_psi", *(f"{name}_ks" for name in BOUNDS)} and 0 < max(near.values()) < 1
    told = {each.simulation.job.kind.name: {alert.name for alert in each.found} for each in outcomes}
    assert told == {
        "equal": set(),
        "jpeg": {"ConfidenceDrift", "EstimatedAccuracyLow"},
        "noise": {"ConfidenceDrift", "EstimatedAccuracyLow"},
        "blur": {"ConfidenceDrift", "ContrastDrift", "EstimatedAccuracyLow"},
        "dark": {"BrightnessDrift"},
        "labels": {"LabelDrift"},
    }
    dark = next(each for each in outcomes if each.simulation.job.kind.name == "dark")
    assert dark.row().startswith("| half as bright | ") and "BrightnessDrift 1" in dark.row()


def test_the_simulated_counters_are_what_was_drawn(answers):
    simulation = Simulation(Job(EQUAL, 0, DAY_SCRAPES, DAY_SCRAPES), answers, seed=1)
    last: dict[str, int] = {}
    for text, times, values in simulation.series():
        if len(times) and text.startswith("classifier_") and "_reference_" not in text:
            assert (np.diff(values) >= 0).all()
            last[text] = values[-1]
    images = simulation.images.sum()
    assert images == pytest.approx(rate_rps(np.arange(DAY_SCRAPES)).sum() * 60, rel=0.05)
    for part in ('confidence_bucket{.+le="+Inf"', 'contrast_bucket{.+le="+Inf"', "predictions_total"):
        begin, _, end = part.partition("{.+")
        assert (
            sum(count for text, count in last.items() if text.startswith(f"classifier_{begin}") and end in text)
            == images
        )


def test_rules_are_evaluated_after_all_that_they_name():
    rounds = levels(drift_rules(RECORDING))
    seen: set[str] = set()
    for rules in rounds:
        assert not any(rule["expr"].count(name) for rule in rules for name in {each["record"] for each in rules})
        seen |= {rule["record"] for rule in rules}
    assert len(seen) == len(drift_rules(RECORDING)) and len(rounds) > 2


def test_an_alert_fires_once_its_expression_has_held():
    assert begins([0, 60, 120, 180, 240, 300, 360], for_s=300, step_s=60) == [300]
    assert begins([0, 60, 120, 240, 300, 360, 420], for_s=300, step_s=60) == []
    assert begins([60, 120, 600, 660, 720], for_s=60, step_s=60) == [120, 660]
    assert {alert.name: alert.for_s for alert in drift_alerts()}["LabelDrift"] == 300


def test_more_days_than_an_answer_can_hold_are_refused(tmp_path, needs_tool):
    needs_tool("prometheus")
    with pytest.raises(SystemExit, match="--days is 8; from 1 to 7"):
        main(["--images", str(tmp_path), "--days", "8"])


def test_a_folder_without_images_ends_with_one_line(tmp_path, needs_tool):
    needs_tool("prometheus")
    with pytest.raises(SystemExit, match=r"quiet_week: .* holds no CLASS/\*\.png of airplane"):
        main(["--images", str(tmp_path)])
