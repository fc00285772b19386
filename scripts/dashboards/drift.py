"""The dashboard of drift: the statistics that the alerts look at, accuracy estimated and measured, feedback."""

from __future__ import annotations

from scripts.dashboards.panels import Dashboard, Panel, Query, Row
from scripts.dashboards.service import CHOSEN, MODEL, rate

NO_ALERT = 'label_replace(vector(0), "alertname", "none", "", "")'
LEGEND = "{{job}} {{version}}"
UNREADY = "An alert fires above the limit, once there are enough images: see Ready."


def statistic(name: str, legend: str = LEGEND) -> Query:
    """A recording rule's series, as it is."""
    return Query(f"classifier:{name}{MODEL}", legend)


def reference(name: str) -> Query:
    """A gauge of the bundle's reference, which every instance reports alike."""
    return Query(f"max by (job, version) (classifier_reference_{name}{MODEL})", f"{LEGEND} reference")


KS_LIMIT, PSI_LIMIT = statistic("ks_limit", f"{LEGEND} limit"), statistic("psi_limit", f"{LEGEND} limit")


STATE = Row("State", (
    Panel("Alerts", "Which fired or waited, when. docs/watch.md says what to do about each.",
          (Query(f"count by (alertname, alertstate) (ALERTS{CHOSEN}) or {NO_ALERT}", "{{alertname}} {{alertstate}}"),),
          "short", kind="states", threshold=1),
    Panel("Ready", "1: the window holds enough images to judge. Until then no alert of drift can fire.",
          (statistic("drift_ready"),), "short", max=1),
    Panel("Images in the window", "That the statistics are of, over all instances.",
          (statistic("drift_images"),), "short"),
))  # fmt: skip

OUTPUTS = Row("What the model answers", (
    Panel("Confidence (KS)", f"Largest distance of the confidences to the reference's, 0 to 1. {UNREADY}",
          (statistic("confidence_ks"), statistic("margin_ks", f"{LEGEND} margin"), KS_LIMIT), "short"),
    Panel("Labels (PSI)", "How far the shares of labels are from the reference's. Alone it misses much: damage that "
          f"costs 14 points of accuracy may hardly move it. {UNREADY}", (statistic("label_psi"), PSI_LIMIT), "short"),
    Panel("Mean confidence", "In the window, and in the reference.",
          (statistic("confidence_mean"), reference("confidence_mean")), "percentunit", max=1),
    Panel("Shares of labels", "Of the predictions in the window; beside it what the reference had.",
          (statistic("label_share", f"{LEGEND} {{{{label}}}}"),), "percentunit", columns=12),
    Panel("Shares of labels in the reference", "As the model answered on its own test set.",
          (statistic("label_share_reference", f"{LEGEND} {{{{label}}}}"),), "percentunit", columns=12),
))  # fmt: skip

INPUTS = Row("What it is asked", (
    Panel("Brightness (KS)", f"Of images: mean grey value, against the reference. {UNREADY}",
          (statistic("brightness_ks"), KS_LIMIT), "short"),
    Panel("Contrast (KS)", f"Of images: deviation of the grey values, against the reference. {UNREADY}",
          (statistic("contrast_ks"), KS_LIMIT), "short"),
    Panel("Features (KS)", f"Of rows: each feature against the reference. {UNREADY}",
          (statistic("feature_ks", f"{LEGEND} {{{{feature}}}}"), KS_LIMIT), "short"),
))  # fmt: skip

ACCURACY = Row("Accuracy and feedback", (
    Panel("Accuracy", "Estimated from confidence: with drift it was up to 13 points too high, so take it as a sign. "
          "Measured: from feedback, with its interval; the only sign of a change of what is right.",
          (statistic("accuracy_estimated", f"{LEGEND} estimated"), statistic("accuracy_measured", f"{LEGEND} measured"),
           statistic("accuracy_measured_low", f"{LEGEND} lower end"),
           statistic("accuracy_measured_high", f"{LEGEND} upper end"), reference("accuracy")), "percentunit", max=1,
          columns=12),
    Panel("Feedback of a day", "Answers that the measured accuracy is of: few make its interval wide.",
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
