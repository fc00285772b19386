"""The first screen: its sliders answer as the cost model does, in numbers and in words."""

import itertools
import json
from dataclasses import replace

import pytest

from eval.analysis.recommendation import recommend
from eval.analysis.report_model import Traffic
from eval.analysis.summary import analyse_run
from eval.cost.billing import BILL_FORMULAS
from eval.cost.price_list import load_price_list
from eval.report.answer import ALWAYS_WARM_SETTING, BUSY_HOURS, BUSY_RPS, SLO_MS, answer, answer_rows, condition
from eval.report.render import REPORT_HTML, write_reports
from eval.samples.store import read_run, read_samples, write_run
from tests.helpers.synthetic_run import FOUR
from tests.helpers.synthetic_scenarios import write_full_run

FIVE = (*FOUR, "aws_sagemaker")
NAMES = [*FIVE, *(f"{name}-onnx" for name in FIVE)]
CHANGES = {  # so that each kind of bill is there, and an instance that is always warm is taken
    "heroku-onnx": {"peak_memory_mib": 600.0},  # the cheapest of what never starts
    "heroku": {"size": "eco"},  # which sleeps
    "aws_sagemaker-onnx": {"size": "serverless-2048"},
}
READ_PAGE = """(hashes) => hashes.map((hash) => {
  location.hash = hash;
  dispatchEvent(new HashChangeEvent("hashchange"));
  const text = (element) => element.innerText.replace(/\\s+/g, " ").trim();
  return {
    answer: text(document.querySelector("h1")),
    condition: text(document.querySelector(".condition")),
    rows: [...document.querySelectorAll(".answer tbody tr")].map((row) => [...row.children].map(text)),
  };
})"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    scenarios = ("single", "poisson", "cold", "max_rate")
    folder = write_full_run(tmp_path_factory.mktemp("answer"), n_images=100, names=NAMES, scenarios=scenarios)
    run = read_run(folder)
    targets = [replace(target, **CHANGES.get(target.name, {})) for target in run.targets]
    write_run(folder, replace(run, targets=targets))
    write_reports(folder)
    return folder


@pytest.fixture(scope="module")
def facts(folder):
    return facts_of(folder)


def facts_of(folder):
    run = read_run(folder)
    return analyse_run(run, list(read_samples(folder, run)), load_price_list(sha256=run.prices_sha256)).facts


@pytest.fixture(scope="module")
def page(folder, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((folder / REPORT_HTML).as_uri())
    yield page
    page.close()


def cells(row):
    """A row's text, cell by cell."""
    return [
        row.title + (" take this" if row.recommended else f" left out: {row.excluded}" if row.excluded else ""),
        " ".join(filter(None, (row.usd, row.usd_range, row.always_warm))),
        "",
        row.p95 + (" a cold start" if row.is_cold_start else ""),
        f"{row.cold_fraction} {row.cold_start}".strip(),
        row.fits_memory,
        row.within,
    ]


@pytest.mark.browser
def test_sliders_answer_as_the_cost_model_does(page, facts):
    assert {candidate.target.billing for candidate in facts.candidates.values()} == set(BILL_FORMULAS)
    grid = list(itertools.product(BUSY_RPS[::3], BUSY_HOURS[::3], SLO_MS[::4], ("torch", "onnx")))
    conditions = conditions_shown(page, facts, grid)
    assert sum(ALWAYS_WARM_SETTING in condition for condition in conditions) > 1


def conditions_shown(page, facts, grid):
    """Of each traffic, objective and engine, after the page was compared with the Python there."""
    hashes = [f"#rps={rps}&hours={hours}&slo={slo_ms}&engine={engine}" for rps, hours, slo_ms, engine in grid]
    conditions = []
    for (rps, hours, slo_ms, engine), shown in zip(grid, page.evaluate(READ_PAGE, hashes), strict=True):
        group = {name: candidate for name, candidate in facts.candidates.items() if candidate.engine in (engine, None)}
        traffic = Traffic(rps, hours)
        recommendation = recommend(group, traffic, slo_ms)
        at = replace(facts, traffic=traffic, slo_ms=slo_ms, recommendation=recommendation)
        expected = {
            "answer": answer(at),
            "condition": condition(at),
            "rows": [cells(row) for row in answer_rows(group, recommendation.options, recommendation.ranked)],
        }
        assert shown == expected, (rps, hours, slo_ms, engine)
        conditions.append(shown["condition"])
    return conditions


@pytest.mark.browser
def test_sliders_of_a_run_without_p95_answer_as_python_does(tmp_path, page):
    folder = write_full_run(tmp_path, n_images=50, names=FOUR, scenarios=("single",))
    run = read_run(folder)
    version = {key: value for key, value in run.targets[0].version.items() if key != "startup_ms"}
    write_run(folder, replace(run, targets=[replace(each, version=version, startup_ms=None) for each in run.targets]))
    report = write_reports(folder)
    assert report["targets"]["heroku"]["scenarios"]["single"]["latency_ms"]["p95"]["value"] is None
    markdown = (folder / "report.md").read_text()
    assert "keep p95" not in markdown and "by the bill alone, as p95 is not known" in markdown
    assert markdown.count("| not known | not measured |") == 2 and markdown.count("| not known | never |") == 2
    page.goto((folder / REPORT_HTML).as_uri())
    grid = list(itertools.product(BUSY_RPS[::5], BUSY_HOURS[::4], SLO_MS[:4], ("torch",)))
    texts = " ".join(conditions_shown(page, facts_of(folder), grid))
    assert "P95 not known (needs n >= 72" in texts and "ms or more)" in texts


@pytest.mark.browser
def test_page_without_javascript_shows_the_same_answer(folder, page, browser):
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto((folder / REPORT_HTML).as_uri())
        page.goto((folder / REPORT_HTML).as_uri())
        for selector in ("h1", ".condition", ".answer tbody"):
            assert plain.inner_text(selector) == page.inner_text(selector)
        assert not plain.is_visible("[data-controls]")


@pytest.mark.browser
def test_settings_stand_in_the_address(folder, page):
    page.goto((folder / REPORT_HTML).as_uri())
    page.locator("[data-input=hours]").fill(str(len(BUSY_HOURS) - 1))
    page.locator("[data-input=engine]").select_option("torch")
    assert "all day" in page.inner_text("h1")
    address = page.url
    assert "hours=24" in address and "engine=torch" in address
    shown = page.inner_text(".answer")
    page.goto("about:blank")
    page.goto(address)
    assert page.inner_text(".answer") == shown


@pytest.mark.parametrize("busy_rps", BUSY_RPS)
def test_answer_has_at_most_15_words(facts, busy_rps):
    recommendation = recommend(facts.candidates, Traffic(busy_rps, 8.0), 200.0)
    text = answer(replace(facts, traffic=Traffic(busy_rps, 8.0), recommendation=recommendation))
    assert len(text.split()) <= 15


def test_table_names_the_scenario_of_its_p95(folder):
    assert "p95<small>steady stream</small>" in (folder / REPORT_HTML).read_text()
    assert "| p95 at 1 a second |" in (folder / "report.md").read_text()


def test_report_json_has_what_the_page_computes_from(folder):
    report = json.loads((folder / "report.json").read_text())
    assert set(report["candidates"]) == set(NAMES)
    assert report["candidates"]["heroku"]["demand_by_slowdown"]["1"]["service_s"] > 0
