"""Several runs become one page: in their order, with their intervals, the unlike ones marked."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from playwright import sync_api as playwright

from eval.__main__ import main
from eval.analysis.findings import FindingCode
from eval.errors import EvalError
from eval.report.render import write_reports
from eval.report.trend_page import TREND_HTML, TREND_JSON, write_trend
from tests.conftest import CHROMIUM
from tests.helpers.html_pages import Page, text_of
from tests.helpers.synthetic_run import image_bytes
from tests.helpers.synthetic_scenarios import write_full_run

pytestmark = pytest.mark.integration

LIKE = {"n_images": 120, "scenarios": ("single", "poisson")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs, named in the wrong order of time, the second with other pictures; the last has a report."""
    root = tmp_path_factory.mktemp("runs")
    days = {"c": (1, LIKE), "a": (2, LIKE | {"n_images": 80}), "b": (3, LIKE | {"scenarios": ("single",)})}
    for name, (day, options) in days.items():
        folder = write_full_run(root / name, started_at=f"2026-11-0{day}T08:30:00+00:00", **options)
        record = json.loads((folder / "run.json").read_text()) | {"id": f"run-{name}"}
        (folder / "run.json").write_text(json.dumps(record))
    write_reports(root / "b", image_bytes)
    return root


@pytest.fixture(scope="module")
def trend(runs):
    write_trend([runs / "a", runs / "b", runs / "c"])
    return json.loads((runs / TREND_JSON).read_text())


def test_runs_stand_in_the_order_of_their_time(trend):
    assert [run["id"] for run in trend["runs"]] == ["run-c", "run-a", "run-b"]


def test_figures_are_those_of_each_runs_own_report(runs, trend):
    report = json.loads((runs / "b" / "report.json").read_text())["targets"]["heroku"]
    found = trend["runs"][2]["targets"]["heroku"]
    assert found["p95_ms"] == report["scenarios"]["single"]["latency_ms"]["p95"]
    assert found["accuracy"] == report["accuracy"]
    assert found["usd_per_month"]["value"] == report["cost"]["monthly_usd"]["1000000"]["net_usd"]


def test_each_run_is_shown_with_the_commit_that_it_recorded(runs, trend):
    recorded = json.loads((runs / "b" / "run.json").read_text())["versions"]["git_sha"]
    assert {run["git_sha"] for run in trend["runs"]} == {recorded}
    assert Page(text_of(runs, TREND_HTML)).text.count(recorded[:8]) >= 3


def test_latency_is_of_a_scenario_that_all_tried(trend):
    assert trend["scenario"] == "single"


def test_other_images_are_incompatible_and_added_scenarios_not(trend):
    assert [bool(run["incompatibilities"]) for run in trend["runs"]] == [False, True, False]
    assert trend["runs"][1]["incompatibilities"][0]["code"] == FindingCode.IMAGES_DIFFER


def test_the_page_marks_the_unlike_run_and_links_what_is_there(runs, trend):
    page = Page(text_of(runs, TREND_HTML))
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a" and "trend" not in attrs["href"]]
    assert [link for link in links if not link.startswith("#")] == ["b/report.html"]
    assert (runs / "b/report.html").exists()
    assert "1 run not like the newest" in page.text
    assert page.text.count("The images differ") == 1


def test_a_line_leads_through_the_runs_that_are_alike_only(runs, trend):
    plot = text_of(runs, TREND_HTML).split("<h3>Median latency</h3>")[1].split("</svg>")[0]
    lines = re.findall(r'data-target="0">\s*<path d="([^"]*)" clip-path', plot)
    assert max(line.count("L") + line.count("M") for line in lines) == 2


def test_the_same_runs_give_the_same_bytes_in_any_order(runs, trend):
    before = (runs / TREND_HTML).read_bytes(), (runs / TREND_JSON).read_bytes()
    write_trend([runs / "c", runs / "a", runs / "b"])
    assert before == ((runs / TREND_HTML).read_bytes(), (runs / TREND_JSON).read_bytes())


def test_out_option_moves_the_page_and_its_links(runs, tmp_path, capsys):
    out = tmp_path / "x" / "y"
    assert main(["report", "--trend", str(runs / "b"), str(runs / "c"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out / TREND_HTML), str(out / TREND_JSON)]
    link = json.loads((out / TREND_JSON).read_text())["runs"][1]["report"]
    assert (out / link).resolve() == (runs / "b" / "report.html").resolve()


def test_a_run_named_twice_is_no_trend(runs, tmp_path):
    (tmp_path / "latest").symlink_to(runs / "b")
    with pytest.raises(EvalError, match="needs two runs"):
        write_trend([runs / "b", tmp_path / "latest"])


@pytest.mark.parametrize("words", [[], ["DIR", "--trend", "A", "B"]])
def test_report_wants_one_run_or_a_trend(words, capsys):
    assert main(["report", *words]) == 1
    assert "RUN_DIR or --trend" in capsys.readouterr().err


@pytest.fixture(scope="module")
def moved(runs, tmp_path_factory):
    """A twin and then deployed targets, run by run on another processor; of the first run's less was recorded."""
    root = tmp_path_factory.mktemp("moved")
    zen_3 = {"cpu_model": "AMD EPYC", "cpu_generation": "Zen 3", "instruction_sets": ["AVX2"], "instruction_limits": {}}
    zen_5 = zen_3 | {"cpu_generation": "Zen 5", "instruction_sets": ["AVX2", "AVX-512"]}
    places = {"old": ({"cpu_model": "AMD EPYC"}, {}), "client": (zen_5, zen_3), "cloud": (zen_3, zen_5)}
    for day, (name, (client, cloud)) in enumerate([*places.items(), ("newest", (zen_3, zen_3))], 1):
        shutil.copytree(runs / "c", root / name)
        record = json.loads((root / name / "run.json").read_text())
        record |= {"id": name, "started_at": f"2026-11-0{day}T08:30:00+00:00"}
        record["client_environment"] = {**client, "cores": 2}
        for target in record["targets"]:
            target |= {"twin": False, "version": cloud}
        (root / name / "run.json").write_text(json.dumps(record))
    write_trend([path for path in root.iterdir() if path.is_dir()], root)
    return root, {run["id"]: run for run in json.loads((root / TREND_JSON).read_text())["runs"]}


def test_other_processor_is_incompatible_and_unknown_one_warns(moved):
    root, found = moved
    assert {name: (bool(run["incompatibilities"]), bool(run["notices"])) for name, run in found.items()} == {
        "old": (False, True), "client": (True, False), "cloud": (False, True), "newest": (False, False)
    }  # fmt: skip
    assert found["client"]["processor"] == "2 cores of AMD EPYC (Zen 5; AVX2, AVX-512)"
    (finding,) = found["client"]["incompatibilities"]
    assert finding["code"] == FindingCode.CLIENT_PROCESSOR_DIFFERS
    assert "differs: AMD EPYC (Zen 5; AVX2, AVX-512), and AMD EPYC (Zen 3; AVX2)" in finding["message"]
    page = Page(text_of(root, TREND_HTML)).text
    assert "2 runs on processors that differ from the newest’s, or may." in page
    assert "ran on AMD EPYC (Zen 5; AVX2, AVX-512), and on AMD EPYC (Zen 3; AVX2): that alone may" in page
    assert "Whether the client ran on like processors is not known: AMD EPYC (instruction sets not recorded)" in page


@pytest.mark.browser
def test_the_page_works_in_a_browser(runs, trend, needs_tool):
    path, said = needs_tool("chromium"), []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=CHROMIUM)
        for width in (390, 1280):
            page = chromium.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto((runs / TREND_HTML).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.get_by_role("button", name="Heroku").click()
            assert page.locator("[data-target='1']:visible:not(button)").count() == 0
            assert page.locator("[data-target='0']:visible").count() > 8
        chromium.close()
    assert said == []
