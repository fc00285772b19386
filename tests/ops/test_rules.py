"""The rules of Prometheus: promtool runs their tests, and each alert says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_docs import anchors

RULES = ROOT / "ops" / "prometheus" / "rules"
TESTS = sorted((RULES / "tests").glob("*.yml"))
ALERTS = [
    rule
    for group in yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED = (RULES / "recording.yml").read_text(encoding="utf-8")
BORN = "max_over_time(classifier_{0}[1h]) unless last_over_time(classifier_{0}[1h] offset 1h)\n            or "
CAUGHT_BY = {"recording": ("windows", "statistics"), "alerts": ("alerts",)}
FAULTS = {  # file, the text, what stands there instead
    "images before the first scrape are lost": ("recording", BORN.format("confidence_bucket"), ""),
    "a label's images before its first scrape are lost": ("recording", BORN.format("predictions_total"), ""),
    "an old instance counts from zero": (
        "recording",
        "unless last_over_time(classifier_confidence_bucket[1h] offset 1h)",
        "",
    ),
    "ready with fewer images": ("recording", "bool 500", "bool 400"),
    "ready at once": ("recording", "* (classifier:drift_images offset 15m > bool 0)", ""),
    "a window without images has 0/0": ("recording", " > 0)\n            - on", ")\n            - on"),
    "chance counts in a small window": ("recording", "2.5 * sqrt", "1 * sqrt"),
    "chance counts with many labels": ("recording", "6 * sqrt(2", "1 * sqrt(2"),
    "a label that is not predicted any more is forgotten": (
        "recording",
        "(classifier:label_images:increase or 0 * max by (job, version, label) (classifier_reference_labels))",
        "classifier:label_images:increase",
    ),
    "a model without a reference has drifted": (
        "recording",
        "0 * classifier:label_images:increase and on (job, version) classifier_reference_labels",
        "0 * classifier:label_images:increase",
    ),
    "the estimate is not corrected": (
        "recording",
        "- max by (job, version) (classifier_reference_confidence_mean)",
        "",
    ),
    "only wrong answers measure nothing": ("recording", "or 0 * classifier:feedback_answers", ""),
    "Wilson's interval without its centre": ("recording", "+ 1.9208 /", "+ 0 /"),
    "drift is told before it is ready": ("alerts", " and classifier:drift_ready == 1", ""),
    "feedback that proves nothing is told": ("alerts", "- 0.03", ""),
    "what clients did wrong is an error": ("alerts", 'status=~"5.."', 'status=~"[45].."'),
    "one failure is an outage": ("alerts", ">= 20", ">= 0"),
    "a refusal before the first scrape is lost": ("alerts", "unless last_over_time", "and last_over_time"),
}


def test_promtool_finds_no_fault_in_the_rules(needs_tool):
    command = [needs_tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *RULES.glob("*.yml")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_tests(path: Path, needs_tool):
    checked = subprocess.run([needs_tool("promtool"), "test", "rules", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_rules_fails_their_tests(fault, needs_tool, tmp_path):
    name, text, instead = FAULTS[fault]
    rules = tmp_path / "rules"
    shutil.copytree(RULES, rules)
    content = (rules / f"{name}.yml").read_text(encoding="utf-8")
    assert text in content
    (rules / f"{name}.yml").write_text(content.replace(text, instead), encoding="utf-8")
    paths = [rules / "tests" / f"{each}.yml" for each in CAUGHT_BY[name]]
    assert subprocess.run([needs_tool("promtool"), "test", "rules", *paths], capture_output=True).returncode == 1


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do_and_where_it_is_explained(alert):
    assert alert["labels"]["severity"] in ("warning", "critical")
    notes = alert["annotations"]
    assert "{{ $labels.job }}" in notes["summary"] and notes["description"].endswith(".")
    page, _, anchor = notes["runbook"].partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    assert anchor in anchors(text) and f"`{alert['alert']}`" in text


def test_every_alert_has_a_test_in_which_it_fires():
    tests = (RULES / "tests" / "alerts.yml").read_text(encoding="utf-8")
    assert all(f'alertname="{alert["alert"]}"' in tests for alert in ALERTS)


def test_recorded_series_that_rules_name_are_recorded():
    text = RECORDED + "".join(alert["expr"] for alert in ALERTS)
    named = set(re.findall(r"\bclassifier:\w+(?::\w+)?", text))
    assert named == set(re.findall(r"record: (\S+)", RECORDED))


def test_no_window_is_replaced_without_its_offset():
    assert set(re.findall(r"\[(\w+)\]", RECORDED)) == {"1h", "1d"}
    for window in ("1h", "1d"):
        ranges = re.findall(rf"last_over_time\(\w+\[{window}\] offset (\w+)\)", RECORDED)
        assert ranges and set(ranges) == {window}
