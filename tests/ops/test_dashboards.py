"""Grafana's dashboards: the files are what the script writes, and every expression of theirs returns data."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from eval.cost.price_list import load_price_list
from infra.targets import AWS_EC2, GCP_CLOUDRUN, HEROKU
from scripts.dashboards.__main__ import DASHBOARDS, PRICE_RULES, files, main
from scripts.dashboards.prices import unit_prices

PAGES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, page in PAGES.items()
    for panel in page["panels"]
    if panel["type"] != "row"
]


def test_the_files_are_what_the_script_writes():
    assert {path: path.read_text(encoding="utf-8") for path in files()} == files()
    assert sorted(DASHBOARDS.glob("*.json")) == sorted(path for path in files() if path.suffix == ".json")


def test_a_file_changed_by_hand_is_named(monkeypatch, tmp_path, capsys):
    changed = tmp_path / "cloudtrial-drift.json"
    changed.write_text("{}", encoding="utf-8")
    monkeypatch.setattr("scripts.dashboards.__main__.files", lambda: {changed: "{ }"})
    monkeypatch.setattr("scripts.dashboards.__main__.ROOT", tmp_path)
    assert main(["--check"]) == 1
    assert "cloudtrial-drift.json differs: run python -m scripts.dashboards" in capsys.readouterr().err


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_and_asks_the_source(panel):
    assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "prometheus"
    for target in panel["targets"]:
        assert 'job=~"$job"' in target["expr"] and target["legendFormat"]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_panels_fill_the_grid_without_overlap(page):
    cells: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells and place["x"] + place["w"] <= 24
        cells |= own
    assert len({panel["id"] for panel in page["panels"]}) == len(page["panels"])
    assert len(cells) == 24 * (1 + max(y for _, y in cells))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_one_chooses_deployments_and_versions(page):
    variables = {variable["name"]: variable for variable in page["templating"]["list"]}
    assert set(variables) == {"job", "version"}
    assert all(variable["multi"] and variable["allValue"] == ".+" for variable in variables.values())


def test_the_list_prices_are_those_of_the_bills():
    prices = load_price_list()
    vm, dyno, run = (unit_prices(target, prices) for target in (AWS_EC2, HEROKU, GCP_CLOUDRUN))
    assert vm == {"instance_hour": pytest.approx(0.0208 + 0.005 + 16 * 0.08 / 730)}
    assert dyno == {"instance_hour": pytest.approx(7 / 730)}
    assert run == {"second": pytest.approx(0.000024 + 0.0000025), "request": pytest.approx(0.4e-6)}


def test_promtool_accepts_the_rules_of_cost(needs_tool):
    subprocess.run([needs_tool("promtool"), "check", "rules", PRICE_RULES], check=True, capture_output=True)


def test_every_deployment_has_a_price_by_its_name():
    (pattern,) = set(re.findall(r'"job", "(.+?)"\)', PRICE_RULES.read_text(encoding="utf-8")))
    for job in ("aws_ec2", "heroku-onnx", "gcp_cloudrun-prod", "gcp_function"):
        assert re.fullmatch(pattern, job)
    assert not re.fullmatch(pattern, "prometheus")
