"""What the report says of streams, searches, cold starts, drift and caches; and how its page behaves in a browser."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import math
import re
import shlex

import pytest

from eval.__main__ import main
from eval.analysis.findings import FindingCode
from eval.formatting import ms
from eval.report.render import REPORT_HTML, REPORT_JSON, REPORT_MD, write_reports
from eval.report.report_json import to_jsonable
from eval.report.terminal import terminal_table
from eval.stats.intervals import Estimate
from tests.helpers.html_pages import Page, text_of
from tests.helpers.synthetic_run import image_bytes
from tests.helpers.synthetic_scenarios import BREAKS_AT, COLD_N, write_full_run

pytestmark = pytest.mark.integration

SECTIONS = ("results", "latency", "rate", "cold", "cost", "accuracy", "parity", "stability", "network", "errors",
            "startup", "basis", "prices", "machine")  # fmt: skip


@pytest.fixture(scope="module")
def full_dir(tmp_path_factory):
    """A run of every scenario, in a folder whose name has to be quoted: one target caches, one drifts, one differs."""
    folder = tmp_path_factory.mktemp("full") / "my run"
    options = {"cached": ("heroku",), "drifting": ("aws_ec2",), "disagreements": {"gcp_cloudrun": 9}}
    write_reports(write_full_run(folder, n_images=200, **options), image_bytes)
    return folder


@pytest.fixture(scope="module")
def summary(full_dir):
    return json.loads(text_of(full_dir, REPORT_JSON))


def section(folder, name):
    """A section of the page as markup."""
    rest = re.split(rf'<(?:section|details class="fold") id="{name}"', text_of(folder))[1]
    return re.split(r'<section id=|<details class="fold"', rest)[0]


def words(markup):
    return Page(f"<p>{markup}").text


def row(markup, table, title):
    """The cells of a target's row in the table of that name."""
    body = markup.split(f'aria-label="{table}"')[1].split("</table>")[0]
    found = next(part for part in body.split("<tr")[1:] if title in part)
    return [words(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", found, re.DOTALL)]


@pytest.mark.parametrize(
    ("scenario", "heading"),
    [("single", "One request at a time"), ("poisson", "A steady stream, 25.0/s at random times"),
     ("ramp", "A stream that grows to 25.0/s"), ("burst", "32 requests at once"),
     ("repeat", "The same request again and again"), ("cold", "The first request after a forced start"),
     ("idle", "The first request after 900 s without one")],
)  # fmt: skip
def test_every_scenario_has_a_plain_heading_and_its_curves(full_dir, scenario, heading):
    latency = section(full_dir, "latency")
    start = latency.split(f'id="scenario-{scenario}"')[1].split("</summary>")[0]
    assert f"<h3>{heading}</h3>" in start
    assert len(re.findall(rf'clip-path="url\(#latency-{scenario}-', latency)) >= 4


def test_scenarios_stand_side_by_side_with_what_report_json_says(full_dir, summary):
    cells = row(section(full_dir, "latency"), "Latency by scenario", "Heroku")
    scenarios = summary["targets"]["heroku"]["scenarios"]
    assert len(cells) == 1 + len(scenarios)
    p50, p95 = (scenarios["poisson"]["latency_ms"][p]["value"] for p in ("p50", "p95"))
    assert cells[2] == f"{ms(p50)} p95 {ms(p95)}"
    assert cells[3].endswith("5.0% failed")  # ramp: 10 of 200
    assert cells[5] == "58.2/s"  # max_rate


def test_failures_are_counted_in_the_scenario_that_had_them(full_dir):
    assert section(full_dir, "latency").count("failures counted") == 4  # ramp, each target


def test_the_highest_rate_is_drawn_with_every_step_and_listed(full_dir, summary):
    rate = section(full_dir, "rate")
    for name, breaks_at in BREAKS_AT.items():
        steps = summary["targets"][name]["scenarios"]["max_rate"]["steps"]
        found = summary["targets"][name]["scenarios"]["max_rate"]["max_rate_rps"]["value"]
        assert found == pytest.approx(breaks_at * 0.97)
        assert rate.count(f'<th scope="row"><span class="chip" data-chip="{list(BREAKS_AT).index(name)}"') == 1 + len(
            steps
        )
    assert "p95 within 60.0 ms" in rate
    assert {"held", "broken"} <= set(words(rate).split())


def test_a_step_whose_p95_has_no_end_is_drawn_and_said(full_dir, summary):
    steps = summary["targets"]["aws_ec2"]["scenarios"]["max_rate"]["steps"]
    assert steps[-1]["p95_ms"] == to_jsonable(Estimate(None))
    assert "no end" in words(section(full_dir, "rate"))


def test_cold_starts_say_how_many_are_proven_and_split_the_time(full_dir, summary):
    cold = section(full_dir, "cold")
    proven, created = row(cold, "Forced starts by target", "Heroku")[1:3]
    assert proven == f"{COLD_N - 1} of {COLD_N} 1 by an instance that was warm"
    assert created.startswith(
        ms(summary["targets"]["heroku"]["cold_starts"]["forced"]["time_to_first_prediction_ms"]["p50"]["value"])
    )
    assert [s for s in ("Forced starts", "Natural starts") if f"<h3>{s}</h3>" in cold] == [
        "Forced starts",
        "Natural starts",
    ]
    bar = re.search(r'class="bar" data-target="1".*?</div>', cold, re.DOTALL)
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", bar[0])]
    assert len(widths) == 5 and 90 < sum(widths) <= 100.1


def test_a_run_without_starts_has_no_section_about_them(tmp_path):
    write_reports(write_full_run(tmp_path, n_images=40, scenarios=("single", "poisson")))
    assert '<section id="cold"' not in text_of(tmp_path)
    assert 'id="rate"' not in text_of(tmp_path)
    assert "Not tested." in section(tmp_path, "stability")


def test_drift_is_drawn_and_said_in_words(full_dir):
    stability = section(full_dir, "stability")
    lines = [words(line) for line in re.findall(r"<li data-target.*?</li>", stability, re.DOTALL)]
    assert re.search(r"AWS EC2: slower, \+\d+\.\d%", lines[0])
    assert "no drift to be seen" in lines[1]
    assert 'id="course-single-' in stability


def test_the_cache_audit_accuses_only_the_target_that_caches(full_dir):
    stability = section(full_dir, "stability")
    assert "remembers answers" in row(stability, "Search for a response cache", "Heroku")[-1]
    assert row(stability, "Search for a response cache", "Google Cloud Run")[-1] == "no cache to be seen"


def test_network_table_has_baseline_rtt_and_connection_timings(full_dir):
    cells = row(section(full_dir, "network"), "Network baseline and connections", "Heroku")
    assert cells[1].startswith("0.") and "ms" in cells[1]
    assert cells[3] == "20 of 600 poisson"
    assert [cell.split(" ")[0] for cell in cells[4:]] == ["0.40", "0.20", "1.90"]


def test_mcnemar_stands_where_answers_differ_and_only_there(full_dir):
    parity = section(full_dir, "parity")
    others = "AWS EC2, Heroku and Google Cloud Functions"
    assert row(parity, "Parity", f"{others} and Google Cloud Run")[2::2] == ["9 of 200", "0.0039"]
    assert row(parity, "Parity", f"{others}: with each other")[2:] == ["0 of 200", "0", "–"]


def test_answer_results_and_plots_use_one_scenario_and_name_it(full_dir, summary):
    assert summary["verdict"]["scenario"] == "poisson"
    page = text_of(full_dir)
    assert "p95<small>steady stream</small>" in page.split('class="cards answer-table"')[1].split("</thead>")[0]
    results = section(full_dir, "results")
    p50, p95 = (summary["targets"]["heroku"]["scenarios"]["poisson"]["latency_ms"][p] for p in ("p50", "p95"))
    cells = row(results, "Results by target", "Heroku")
    assert cells[2].startswith(ms(p50["value"])) and cells[3].startswith(ms(p95["value"]))
    assert results.split("</thead>")[0].count("<small>steady stream</small>") == 2
    assert ">p95, ms, steady stream<" in results.split("Cost against latency")[1]
    assert re.findall(r'id="scenario-(\w+)" checked', page) == ["poisson"]
    assert "Scenario “poisson”." in section(full_dir, "latency").split("Where the mean request")[1]
    markdown = text_of(full_dir, REPORT_MD).split("## Results")[1]
    assert "| p50, steady stream | p95, steady stream | Highest rate |" in markdown


@pytest.fixture(scope="module")
def search_dir(tmp_path_factory):
    """A run that looked for the highest rate, and did nothing else."""
    folder = write_full_run(tmp_path_factory.mktemp("search"), n_images=40, scenarios=("max_rate",), warmup=0)
    write_reports(folder)
    return folder


def test_a_rate_search_alone_has_capacity_and_dollars(search_dir):
    report = json.loads(text_of(search_dir, REPORT_JSON))
    assert report["verdict"]["scenario"] == "max_rate"
    assert report["verdict"]["answer"].endswith("take Google Cloud Functions: $0 a month.")
    heroku = report["targets"]["heroku"]
    assert heroku["cost"]["measured"]["max_rate_rps"] == pytest.approx(58.2)
    assert heroku["cost"]["measured"]["service_ms"] == pytest.approx(17, rel=0.2)  # at the lowest rate, without a queue
    p95_ms = heroku["scenarios"]["max_rate"]["latency_with_failures_ms"]["p95"]["value"]
    assert report["verdict"]["options"]["heroku"]["p95_ms"] == pytest.approx(p95_ms, rel=0.01)
    assert FindingCode.MANY_FAILURES not in {finding["code"] for finding in report["run"]["findings"]}
    line = next(line for line in terminal_table(report) if line.startswith("Heroku"))
    assert line.split()[:4] == ["Heroku", "$7.00", *ms(p95_ms).split()]


def test_the_page_of_a_rate_search_alone_has_no_empty_part(search_dir):
    page = text_of(search_dir)
    assert row(section(search_dir, "results"), "Results by target", "Heroku")[4].startswith("58.2/s")
    assert '<details class="fold" id="rate" open>' in page
    assert 'id="latency"' not in page and "No request was answered" not in page
    assert "p95<small>highest rate</small>" in page
    assert "failures are of the load" in section(search_dir, "errors")
    rows = [line for line in text_of(search_dir, REPORT_MD).splitlines() if line.startswith("| ")]
    assert not [line for line in rows if "n/a" in line]


def test_late_client_makes_the_run_invalid_in_red_with_a_remedy(tmp_path):
    write_reports(write_full_run(tmp_path, n_images=80, scenarios=("single", "poisson"), late_ms=9.0))
    start = text_of(tmp_path).split('<h1 class="bad">')[1].split('class="badge"')[0]
    assert start.startswith("Not a valid comparison: no answer.</h1>")
    assert "sent late" in start and "--workers" in start
    page, markdown = text_of(tmp_path), text_of(tmp_path, REPORT_MD)
    assert markdown.startswith("# Cloudtrial report\n\n**Not a valid comparison: no answer.**\n\nThe client had too")
    assert 'class="cards answer-table"' not in page and '<span class="tag">' not in page
    assert "## Dollars a month" not in markdown


def test_markdown_has_the_scenarios_and_the_cold_starts(full_dir):
    text = text_of(full_dir, REPORT_MD)
    table = text.split("## Scenarios")[1].split("##")[0].strip().splitlines()
    rows = [line for line in table if line.startswith("|")]
    assert len(rows) == 2 + 4 and len({line.count("|") for line in rows}) == 1
    starts = [line for line in text.split("## Service starts")[1].split("##")[0].splitlines() if "natural" in line]
    assert len(starts) == 4


def test_requests_after_a_pause_have_a_column_and_a_line(full_dir):
    html, markdown = text_of(full_dir), text_of(full_dir, REPORT_MD)
    single = html.split('id="scenario-single"')[1].split('class="panel"')[1]
    assert "First after a pause, p50" in single and "Late sends" not in single
    stream = html.split('id="scenario-poisson"')[1].split('class="panel"')[1]
    assert "First after a pause, p50" not in stream and "Late sends, p99" in stream
    line = next(line for line in markdown.splitlines() if line.startswith("First request after a pause, p50 (single)"))
    assert line.count(", n 10") == 4


def test_the_same_run_gives_the_same_bytes(full_dir):
    before = [(full_dir / name).read_bytes() for name in (REPORT_HTML, REPORT_MD, REPORT_JSON)]
    write_reports(full_dir, image_bytes)
    assert before == [(full_dir / name).read_bytes() for name in (REPORT_HTML, REPORT_MD, REPORT_JSON)]


def test_only_the_pages_own_script_may_run(full_dir):
    html = text_of(full_dir)
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy.split("script-src")[1].split(";")[0]


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_names_a_command_for_its_figures(full_dir, name):
    assert re.search(r"from: <code>(\./cloudtrial |cat DIR/run\.json<)", section(full_dir, name))


@pytest.mark.slow
def test_the_commands_work_and_give_the_figures_of_the_tables(full_dir, summary, capsys):
    html = text_of(full_dir)
    commands = set(re.findall(r"<code>\./cloudtrial (samples [^<]*)</code>", html))
    assert len(commands) > 12
    for command in commands:
        assert main([str(full_dir) if word == "DIR" else word for word in shlex.split(command)]) == 0
        printed = capsys.readouterr()
        assert len(printed.out.splitlines()) > 1 or "--error any" in command
        if command == "samples DIR --scenario poisson":
            found = summary["targets"]["heroku"]["scenarios"]["poisson"]["latency_ms"]
            values = ", ".join(f"{p} {ms(found[p]['value'])}" for p in ("p50", "p90", "p95", "p99"))
            assert f"latency_ms: {values}" in printed.err


UNFOLD = """() => {
  for (const part of document.querySelectorAll("details")) { part.removeAttribute("name"); part.open = true; }
}"""


@pytest.fixture
def visit(browser):
    """Opens a page from its file, unfolded; at the end it must have said nothing on the console, and asked nothing."""
    contexts, asked, said = [], [], []

    def open_page(path, **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        page.evaluate(UNFOLD)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_target_can_be_hidden_and_shown_again_by_keyboard(visit, full_dir):
    page = visit(full_dir / REPORT_HTML)
    chip = page.get_by_role("region", name="Targets that are shown").get_by_role("button", name="Heroku")
    rows, curves = page.locator("tr[data-target='1']:visible"), page.locator("svg.plot [data-target='1']:visible")
    shown = rows.count(), curves.count()
    others = page.locator("tr[data-target='0']:visible").count()
    chip.focus()
    page.keyboard.press("Enter")
    assert chip.get_attribute("aria-pressed") == "false"
    assert (rows.count(), curves.count()) == (0, 0)
    assert page.locator("tr[data-target='0']:visible").count() == others > 10
    assert "Heroku" not in page.locator(".readout p").first.inner_text()
    page.keyboard.press("Space")
    assert (rows.count(), curves.count()) == shown and min(shown) > 10


def test_hiding_the_last_target_shows_all_again(visit, full_dir):
    page = visit(full_dir / REPORT_HTML)
    for button in page.locator(".filter button").all():
        button.click()
    assert page.locator(".filter button[aria-pressed='true']").count() == 4


def test_target_is_highlighted_by_row_legend_and_focus(visit, full_dir):
    page = visit(full_dir / REPORT_HTML)
    curve = page.locator("#latency svg.plot:visible [data-curve]").nth(0)
    opacity = "element => getComputedStyle(element).opacity"
    assert curve.evaluate(opacity) == "1"
    page.locator("#results tbody tr").nth(1).hover()
    assert curve.evaluate(opacity) != "1"
    assert page.locator("#latency svg.plot:visible [data-curve][data-target='1']").first.evaluate(opacity) == "1"
    assert page.locator("#cold tr.lit").count() == page.locator("#cold tr[data-target='1']").count() > 0
    page.locator("#rate svg.plot text[data-target='0'], #rate svg.plot [data-target='0'] text").first.hover()
    assert curve.evaluate(opacity) == "1"
    page.mouse.move(1, 1)
    page.locator(".filter button").nth(2).focus()
    assert page.locator("#results tr.lit").get_attribute("data-target") == "2"


def test_a_tap_keeps_a_target_picked_until_the_next(visit, full_dir):
    page = visit(full_dir / REPORT_HTML, viewport={"width": 390, "height": 844}, has_touch=True)
    page.locator("#results tbody tr").nth(3).locator("th").tap()
    assert page.locator("#network tr.lit").get_attribute("data-target") == "3"
    page.locator("#results tbody tr").nth(3).locator("th").tap()
    assert page.locator("tr.lit").count() == 0


def test_the_slider_reads_the_curves(visit, full_dir, summary):
    page = visit(full_dir / REPORT_HTML)
    figure = page.locator("#latency figure:visible").first
    slider, told = figure.get_by_role("slider", name="Read the curves at"), figure.locator(".readout p")
    median = summary["targets"]["gcp_function"]["scenarios"]["poisson"]["latency_ms"]["p50"]["value"]
    slider.focus()
    page.keyboard.press("Home")
    assert re.search(r"Functions 0%", told.inner_text())
    nearest = None
    while nearest is None:
        page.keyboard.press("PageUp")
        at = float(re.match(r"([\d.]+) ms:", told.inner_text())[1])
        nearest = at if at >= median else None
    share = float(re.search(r"Functions ([\d.]+)%", told.inner_text())[1])
    page.keyboard.press("End")
    assert 50 <= share < 100
    assert re.search(r"Functions 100%", told.inner_text())
    assert told.inner_text().split("\n")[0].rstrip(":") in slider.get_attribute("aria-valuetext")


def test_the_slider_scrolls_its_cursor_into_sight(visit, full_dir):
    page = visit(full_dir / REPORT_HTML, viewport={"width": 390, "height": 844})
    figure = page.locator("#latency figure:visible").first
    slider, box = figure.get_by_role("slider", name="Read the curves at"), figure.locator(".scroll")
    slider.focus()
    page.keyboard.press("End")
    assert box.evaluate("(box) => box.scrollLeft + box.clientWidth >= box.scrollWidth - 20")
    page.keyboard.press("Home")
    assert box.evaluate("(box) => box.scrollLeft") == 0


def test_the_pointer_reads_the_cost_curves_and_picks_the_nearest(visit, full_dir, summary):
    page = visit(full_dir / REPORT_HTML)
    svg = page.locator("#cost svg.plot")
    svg.scroll_into_view_if_needed()
    box, scales = svg.bounding_box(), json.loads(svg.get_attribute("data-read"))
    zoom = box["width"] / float(svg.get_attribute("viewBox").split()[2])
    point = summary["targets"]["heroku"]["cost"]["curve"][40]

    def place(scale, value):
        share = (value - scale["low"]) / (scale["high"] - scale["low"])
        return (scale["start"] + share * (scale["end"] - scale["start"])) * zoom

    x, y = place(scales["x"], math.log10(point["requests_per_month"])), place(scales["y"], math.log10(point["net_usd"]))
    page.mouse.move(box["x"] + x, box["y"] + y)
    told = page.locator("#cost .readout p").inner_text()
    assert f"Heroku ${point['net_usd']:.2f}" in told
    assert page.locator("#results tr.lit").get_attribute("data-target") == "1"


def test_the_page_names_its_own_folder_in_the_commands(visit, full_dir):
    page = visit(full_dir / REPORT_HTML)
    command = page.locator("#errors .trace code").inner_text()
    words_ = shlex.split(command)
    assert words_[:3] == ["./cloudtrial", "samples", str(full_dir)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(words_[1:]) == 0


def test_page_without_javascript_has_all_content_and_no_controls(visit, full_dir):
    page = visit(full_dir / REPORT_HTML, java_script_enabled=False)
    assert page.locator(".filter").is_hidden()
    assert page.locator(".readout").count() == 0
    assert page.locator("#results tbody tr:visible").count() == 4
    plots = page.locator("#latency svg.plot")
    for scenario in page.locator(".scenarios > label").all():
        scenario.click()
        assert plots.count() == 7 and page.locator("#latency svg.plot:visible").count() == 1


def test_printed_it_shows_all_targets_and_no_control(visit, full_dir):
    page = visit(full_dir / REPORT_HTML)
    page.locator(".filter button").first.click()
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1047})  # A4 with margins of 1 cm
    assert page.locator("#results tbody tr:visible").count() == 4
    row = page.locator("#results tbody tr").first.evaluate("(row) => getComputedStyle(row).display")
    assert row == "table-row"  # and not a card, of which two would fill a page
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.locator(".filter:visible, .readout:visible").count() == 0


@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_the_full_page_never_scrolls_sideways(visit, full_dir, width):
    page = visit(full_dir / REPORT_HTML, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
