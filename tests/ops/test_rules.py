"""The rules of Prometheus: promtool runs their tests, and each alert says what to do."""

from __future__ import annotations

import re
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


def test_promtool_finds_no_fault_in_the_rules(needs_tool):
    command = [needs_tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *RULES.glob("*.yml")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_tests(path: Path, needs_tool):
    checked = subprocess.run([needs_tool("promtool"), "test", "rules", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


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
