"""The dashboard of drift: the statistics that the alerts look at, accuracy estimated and measured, feedback."""

from __future__ import annotations

from scripts.dashboards.panels import Dashboard, Panel, Query, Row
from scripts.dashboards.service import CHOSEN, MODEL, rate

LEGEND = "{{job}} {{version}}"
UNREADY = "Counts once there are enough images: see Ready."


def statistic(name: str, legend: str = LEGEND) -> Query:
    """A recording rule's series, as it is."""
    return Query(f"classifier:{name}{MODEL}", legend)


def share_of_labels() -> str:
    """Of the images since the window began, by predicted label."""
    counted = f"rate(classifier_predictions_total{MODEL}[$__rate_interval])"
    total = f"sum by (job, version) ({counted})"
    return f"sum by (job, version, label) ({counted}) / on (job, version) group_left {total}"


def mean_confidence() -> str:
    """Of what is predicted now."""
    over, under = (rate(f"classifier_confidence_{part}", MODEL) for part in ("sum", "count"))
    return f"sum by (job, version) ({over}) / sum by (job, version) ({under})"


def reference(name: str, by: str = "job, version") -> str:
    """A gauge of the bundle's reference, which every instance reports alike."""
    return f"max by ({by}) (classifier_reference_{name}{MODEL})"


STATE = Row("State", (
    Panel("Alerts", "How many fire or wait, by name. docs/watch.md says what to do about each.",
          (Query(f"count by (alertname, alertstate) (ALERTS{CHOSEN}) or vector(0)", "{{alertname}} {{alertstate}}"),),
          "short", kind="number"),
    Panel("Ready", "1: the window holds enough images to judge. Until then no alert of drift can fire.",
          (statistic("drift_ready"),), "short", max=1),
    Panel("Images in the window", "That the statistics are of, over all instances.",
          (statistic("drift_images"),), "short"),
))  # fmt: skip

OUTPUTS = Row("What the model answers", (
    Panel("Confidence (KS)", f"Largest distance of the confidences to the reference's, 0 to 1. {UNREADY}",
          (statistic("confidence_ks"), statistic("margin_ks", f"{LEGEND} margin")), "short"),
    Panel("Labels (PSI)", "How far the shares of labels are from the reference's. Alone it misses much: damage that "
          f"costs 14 points of accuracy may hardly move it. {UNREADY}", (statistic("label_psi"),), "short"),
    Panel("Mean confidence", "Now, and in the reference.",
          (Query(mean_confidence(), f"{LEGEND} now"),
           Query(reference("confidence_mean"), f"{LEGEND} reference")), "percentunit", max=1),
    Panel("Shares of labels now", "Of the predictions; beside it what the reference had.",
          (Query(share_of_labels(), f"{LEGEND} {{{{label}}}}"),), "percentunit", columns=12),
    Panel("Shares of labels in the reference", "As the model answered on its own test set.",
          (Query(reference("labels", "job, version, label"), f"{LEGEND} {{{{label}}}}"),), "percentunit", columns=12),
))  # fmt: skip

INPUTS = Row("What it is asked", (
    Panel("Brightness (KS)", f"Of images: mean grey value, against the reference. {UNREADY}",
          (statistic("brightness_ks"),), "short"),
    Panel("Contrast (KS)", f"Of images: deviation of the grey values, against the reference. {UNREADY}",
          (statistic("contrast_ks"),), "short"),
    Panel("Features (KS)", f"Of rows: each feature against the reference. {UNREADY}",
          (statistic("feature_ks", f"{LEGEND} {{{{feature}}}}"),), "short"),
))  # fmt: skip

ACCURACY = Row("Accuracy and feedback", (
    Panel("Accuracy", "Estimated from confidence: with drift it was up to 13 points too high, so take it as a sign. "
          "Measured: from feedback, with its interval; the only sign of a change of what is right.",
          (Query(f"classifier:accuracy_estimated{MODEL}", f"{LEGEND} estimated"),
           Query(f"classifier:accuracy_measured{MODEL}", f"{LEGEND} measured"),
           Query(f"classifier:accuracy_measured_low{MODEL}", f"{LEGEND} lower end"),
           Query(f"classifier:accuracy_measured_high{MODEL}", f"{LEGEND} upper end"),
           Query(reference("accuracy"), f"{LEGEND} reference")), "percentunit", max=1, columns=12),
    Panel("Feedback in the window", "Answers that the measured accuracy is of: few make its interval wide.",
          (statistic("feedback_answers"),), "short", columns=6),
    Panel("Feedback", "Answers a second, right and wrong.",
          (Query(f"sum by (job, outcome) ({rate('classifier_feedback_total', MODEL)})", "{{job}} {{outcome}}"),), "ops",
          columns=6),
))  # fmt: skip

DRIFT_DASHBOARD = Dashboard(
    "cloudtrial-drift",
    "Drift",
    "Whether inputs and answers are still as they were when the model was tested, and how accurate it is.",
    (STATE, OUTPUTS, INPUTS, ACCURACY),
)
