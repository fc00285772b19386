"""A run directory becomes three reports that stand on their own."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from eval.analysis.findings import FindingCode
from eval.codes import ReasonCode
from eval.dataset.golden import GOLDEN_SOURCE
from eval.errors import EvalError
from eval.report.render import REPORT_HTML, REPORT_JSON, REPORT_MD, write_reports
from eval.samples.model import SAMPLES_FILE, SAMPLES_GZ_FILE
from eval.samples.store import append_sample, write_run
from infra.targets import TARGETS
from tests.helpers.accessibility import accessibility_faults
from tests.helpers.html_pages import Page, text_of
from tests.helpers.synthetic_run import image_bytes, make_run

ATTACK = '<script>alert("1")</script>'


def write_run_dir(folder: Path, **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run, samples = make_run(**options)
    write_run(folder, run)
    with (folder / SAMPLES_FILE).open("w") as file:
        for sample in samples:
            append_sample(file, sample)
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A complete run of four twins, reported with its pictures."""
    folder = write_run_dir(tmp_path_factory.mktemp("run"), n_images=400)
    write_reports(folder, image_bytes)
    return folder


@pytest.fixture(scope="module")
def broken_dir(tmp_path_factory) -> Path:
    """An interrupted run: one target died, one never started, one answers differently."""
    folder = write_run_dir(
        tmp_path_factory.mktemp("broken"),
        n_images=200,
        failures={"heroku": 60},
        not_started={"gcp_function": f"did not start: exit status 3\n{ATTACK}"},
        disagreements={"gcp_cloudrun": 7},
        complete=False,
    )
    write_reports(folder)
    return folder


def test_the_returned_summary_is_report_json(tmp_path):
    folder = write_run_dir(tmp_path, n_images=40)
    assert write_reports(folder) == json.loads(text_of(folder, REPORT_JSON))


def test_report_json_is_strict(broken_dir):
    def refuse(constant: str):
        pytest.fail(f"{constant} is not JSON")

    json.loads(text_of(broken_dir, REPORT_JSON), parse_constant=refuse)


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD, REPORT_JSON])
def test_packed_samples_give_the_same_bytes(run_dir, tmp_path, name):
    shutil.copy(run_dir / "run.json", tmp_path)
    with gzip.open(tmp_path / SAMPLES_GZ_FILE, "wb") as packed:
        packed.write((run_dir / SAMPLES_FILE).read_bytes())
    write_reports(tmp_path, image_bytes)
    assert (tmp_path / name).read_bytes() == (run_dir / name).read_bytes()


def test_a_folder_without_a_run_is_a_clear_error(tmp_path):
    with pytest.raises(EvalError, match=r"is not a run"):
        write_reports(tmp_path)


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD])
def test_the_verdict_comes_first(run_dir, name):
    summary = json.loads(text_of(run_dir, REPORT_JSON))
    start = Page(text_of(run_dir, name)).text[:1500] if name == REPORT_HTML else text_of(run_dir, name)[:700]
    assert summary["verdict"]["answer"] in start.replace("\\", "")
    assert summary["verdict"]["condition"] in start.replace("\\", "")


def test_the_page_fetches_nothing(run_dir):
    page = Page(text_of(run_dir))
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "base"}
    scripts = [attrs for tag, attrs in page.elements if tag == "script"]  # all in the page
    assert scripts == [{"type": "application/json", "id": "answer-data"}, {}]
    fetched = [attrs.get("src") or attrs.get("srcset") for tag, attrs in page.elements if tag not in ("a", "use")]
    assert all(address.startswith("data:") for address in fetched if address)
    assert not re.search(r"url\((?!#)|@import", text_of(run_dir))


def test_links_inside_the_page_have_their_ends(run_dir):
    elements = Page(text_of(run_dir)).elements
    ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    inside = {attrs["href"][1:] for tag, attrs in elements if tag == "a" and attrs.get("href", "").startswith("#")}
    assert inside and inside <= set(ids)


def test_plots_have_text_alternatives_and_tables_have_headers(run_dir):
    elements = Page(text_of(run_dir)).elements
    assert all(attrs.get("aria-label") or "aria-hidden" in attrs for tag, attrs in elements if tag == "svg")
    assert [tag for tag, _ in elements].count("table") == [tag for tag, _ in elements].count("thead")


def test_twins_are_labelled_as_what_they_are(run_dir):
    assert "Local twins: speed is this machine’s, without a network" in text_of(run_dir)
    assert "Local twins, not clouds." in text_of(run_dir, REPORT_MD)


def test_the_processor_of_client_and_twins_is_named(run_dir):
    assert "client and twins on 4 cores of Made-up CPU (AVX2)" in Page(text_of(run_dir)).text
    assert "\nProcessor: 4 cores of Made-up CPU (AVX2)\n" in text_of(run_dir, REPORT_MD)
    summary = json.loads(text_of(run_dir, REPORT_JSON))
    assert summary["run"]["client_environment"]["instruction_sets"] == ["AVX2"]
    assert {t["processor"]["cpu_model"] for t in summary["targets"].values()} == {"Made-up CPU"}


def test_deployed_targets_have_processors_of_their_own(tmp_path):
    folder = write_run_dir(tmp_path, n_images=40, twin=False, names=("aws_ec2", "heroku", "gcp_cloudrun"))
    record = json.loads((folder / "run.json").read_text())
    sets = {"aws_ec2": ["AVX2", "AVX-512"], "heroku": ["AVX2"], "gcp_cloudrun": ["AVX2"]}
    for target in record["targets"]:
        target["version"] |= {"cpu_model": "Xeon", "cpus": 1, "instruction_sets": sets[target["name"]]}
    (folder / "run.json").write_text(json.dumps(record))
    summary = write_reports(folder)
    assert summary["targets"]["aws_ec2"]["processor"]["instruction_sets"] == ["AVX2", "AVX-512"]
    page = Page(text_of(folder)).text
    assert "client on 4 cores of Made-up CPU (AVX2)" in page and "1 core of Xeon (AVX2, AVX-512)" in page
    assert (
        "\nProcessor of the client: 4 cores of Made-up CPU (AVX2); of Heroku, Google Cloud Run: 1 core of Xeon (AVX2); "
        "of AWS EC2: 1 core of Xeon (AVX2, AVX-512)\n"
    ) in text_of(folder, REPORT_MD)


def test_a_complete_run_has_no_banner(run_dir):
    assert "not complete" not in text_of(run_dir) + text_of(run_dir, REPORT_MD)


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD])
def test_an_interrupted_run_says_so_and_why(broken_dir, name):
    assert "Incomplete run: no answer yet." in text_of(broken_dir, name)
    assert "nterrupted from the keyboard" in text_of(broken_dir, name)


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD])
def test_every_warning_is_shown(broken_dir, name):
    report = json.loads(text_of(broken_dir, REPORT_JSON))
    codes = {f["code"] for f in report["run"]["findings"]} - {FindingCode.RUN_INCOMPLETE}  # which is the verdict
    remarks = report["verdict"]["remarks"]
    assert len(remarks) == len(codes) > 2
    shown = Page(text_of(broken_dir, name)).text.replace("\\", "")
    assert [remark for remark in remarks if " ".join(remark.split())[1:].rstrip(".") not in shown] == []


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD])
def test_a_target_that_did_not_start_is_shown_with_its_reason(broken_dir, name):
    assert "did not start: exit status 3" in text_of(broken_dir, name)


def test_failures_are_counted_by_kind(broken_dir):
    text = Page(text_of(broken_dir)).text
    assert "60 of 200" in text
    assert "disconnected" in text


def test_failures_are_in_the_latency_of_the_results(broken_dir):
    results = text_of(broken_dir, REPORT_MD).partition("\n## Results\n")[2].partition("\n## ")[0]
    infinite = [line.split("|")[1].strip() for line in results.splitlines() if "it is infinite: 57 of 190" in line]
    assert infinite == ["**Heroku**"]


def test_figure_without_enough_samples_shows_the_reason(broken_dir):
    assert "Not available: p99 (needs n >= 368, have 190" in Page(text_of(broken_dir)).text


def test_targets_that_disagree_are_told_apart(broken_dir):
    text = Page(text_of(broken_dir)).text
    assert re.search(r"AWS EC2 and Google Cloud Run [^A-Z]*7 of 200", text)
    assert "with each other" not in text


def test_targets_that_agree_share_one_confusion_matrix(run_dir):
    html = text_of(run_dir)
    assert html.count('<table class="heat confusion">') == 1
    assert "<summary>all 4 targets</summary>" in html


def test_markdown_has_one_row_for_each_target(run_dir):
    table = text_of(run_dir, REPORT_MD).split("## Results")[1].split("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("| **")]
    columns = table.splitlines()[2].count("|")
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {columns}


def test_a_run_of_five_targets_has_a_row_for_each(tmp_path):
    write_reports(write_run_dir(tmp_path, n_images=40, names=TARGETS), image_bytes)
    rows = [line for line in text_of(tmp_path, REPORT_MD).splitlines() if line.startswith("| **")]
    assert {row.split("**")[1] for row in rows} == {target.title for target in TARGETS.values()}
    assert "<summary>all 5 targets</summary>" in text_of(tmp_path)


def test_the_reference_stands_in_the_parity_table(run_dir):
    assert "reference" in text_of(run_dir).split('id="parity"')[1].split('class="fold"')[0]


def test_a_run_without_the_reference_says_so(tmp_path):
    write_reports(write_run_dir(tmp_path, n_images=40, reference=False))
    assert "its answers are not part of this run" in text_of(tmp_path)


def test_misclassified_images_are_embedded(run_dir):
    pictures = [attrs for tag, attrs in Page(text_of(run_dir)).elements if tag == "img"]
    assert 0 < len(pictures) <= 12
    assert all(p["src"].startswith("data:image/png;base64,") and p["alt"] for p in pictures)


def test_without_the_images_the_labels_are_shown(broken_dir):
    assert not [tag for tag, _ in Page(text_of(broken_dir)).elements if tag == "img"]
    assert "answered" in text_of(broken_dir).split("Misclassified")[1]


def test_bytes_that_were_not_posted_are_not_shown(tmp_path):
    write_reports(write_run_dir(tmp_path, n_images=40), lambda index: image_bytes(index + 1))
    assert not [tag for tag, _ in Page(text_of(tmp_path)).elements if tag == "img"]


def test_names_and_details_are_text_and_not_markup(tmp_path):
    names = (ATTACK, "a|b`c`", "_plain_")
    write_reports(write_run_dir(tmp_path, n_images=40, names=names, foreign=True, not_started={ATTACK: ATTACK}))
    assert [tag for tag, _ in Page(text_of(tmp_path)).elements].count("script") == 1
    assert ATTACK in Page(text_of(tmp_path)).text
    markdown = text_of(tmp_path, REPORT_MD)
    assert "<script" not in markdown
    assert r"a\|b\`c\`" in markdown


def test_endpoints_of_unknown_kind_are_reported_without_costs(tmp_path):
    write_reports(write_run_dir(tmp_path, n_images=40, names=("one", "two"), foreign=True, twin=False))
    text = Page(text_of(tmp_path)).text
    assert "Local twins" not in text
    assert "http://127.0.0.1:18080" in text
    assert "Bills by traffic" not in text and "Price file of" not in text
    assert "## Cost a month" not in text_of(tmp_path, REPORT_MD)


@pytest.fixture(scope="module")
def golden_dir(tmp_path_factory) -> Path:
    """A run of two twins on a sample of the golden set, of which one answers three images otherwise."""
    folder = tmp_path_factory.mktemp("golden")
    run, samples = make_run(n_images=40, names=("heroku", "heroku-onnx", "aws_ec2"), disagreements={"aws_ec2": 3})
    write_run(folder, dataclasses.replace(run, images_source=f"{GOLDEN_SOURCE}; a sample of 40 of 100"))
    with (folder / SAMPLES_FILE).open("w") as file:
        for sample in samples:
            append_sample(file, sample)
    write_reports(folder)
    return folder


def test_golden_set_gives_no_score_to_anybody(golden_dir):
    report = json.loads(text_of(golden_dir, REPORT_JSON))
    assert report["run"]["images"]["golden"] is True
    for target in report["targets"].values():
        for score in ("accuracy", "accuracy_over_sent", "f1_macro", "roc_auc", "ece"):
            assert target[score]["reason"]["code"] == ReasonCode.GOLDEN_SET
        assert target["confusion"] == target["per_class"] == []
    assert {agreement["mcnemar"] for agreement in report["agreement"].values()} == {None}
    (engines,) = report["engine_comparisons"]
    assert (engines["accuracy"]["difference"]["reason"]["code"], engines["accuracy"]["mcnemar"]) == (
        ReasonCode.GOLDEN_SET, None,
    )  # fmt: skip


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD])
def test_on_the_golden_set_answers_are_counted_as_the_models(golden_dir, name):
    text = Page(text_of(golden_dir, name)).text
    assert "37 of 40 · 40 of 40" in text  # the tile: the worst of each engine
    assert text.count("37 of 40") == 2 and re.search("as the model ", text, re.IGNORECASE)
    assert not re.search(r"ROC AUC|Calibration|Confusion|Misclassified|Accuracy", text)


def test_a_run_without_a_single_answer_is_reported(tmp_path):
    names = ("heroku", "aws_ec2")
    folder = write_run_dir(tmp_path, names=names, n_images=20, failures=dict.fromkeys(names, 20), reference=False)
    write_reports(folder)
    assert "No request was answered" in text_of(tmp_path)
    assert "20 of 20" in text_of(tmp_path, REPORT_MD)


@pytest.fixture(scope="module")
def many_dir(tmp_path_factory) -> Path:
    """A run of 40 targets, of which 20 answered nothing and one answers differently."""
    names = [f"site-with-a-long-name-{i:02d}" for i in range(40)]
    options = {"failures": dict.fromkeys(names[20:], 4), "disagreements": {names[1]: 2}}
    folder = write_run_dir(
        tmp_path_factory.mktemp("many"), names=names, n_images=4, foreign=True, twin=False, warmup=0, **options
    )
    write_reports(folder)
    return folder


def test_of_many_targets_the_plots_show_twelve_and_tables_all(many_dir):
    text, page = text_of(many_dir), Page(text_of(many_dir)).text
    assert "The plots show 12 of the 40 targets: the cheapest and the fastest." in page
    assert text.count('scope="row">') >= 5 * 40
    plot = text[text.index('id="scenario-single"') :].partition("</figure>")[0]
    assert len(set(re.findall(r'data-target="(\d+)"', plot))) == 12


def test_of_many_targets_the_verdict_names_a_few(many_dir):
    verdict = json.loads((many_dir / REPORT_JSON).read_text())["verdict"]
    assert len(verdict["answer"]) < 100 and len(verdict["condition"]) < 1000


@pytest.mark.parametrize(
    ("folder", "width"),
    [*itertools.product(["run_dir", "broken_dir"], [360, 390, 800, 1280]), ("many_dir", 390), ("many_dir", 1280)],
)
def test_the_page_never_scrolls_sideways_and_asks_no_network(browser, request, folder, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto((request.getfixturevalue(folder) / REPORT_HTML).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked[1:] if not url.startswith("data:")] == []
    assert said == []
    page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_fault_in_the_report(browser, run_dir, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto((run_dir / REPORT_HTML).as_uri())
    assert accessibility_faults(page) == []
    page.close()


@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_the_text_of_a_plot_is_readable_at_every_width(browser, run_dir, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((run_dir / REPORT_HTML).as_uri())
    scales = page.locator("svg.plot").evaluate_all("all => all.map((svg) => svg.getScreenCTM().a)")
    assert len(scales) > 4
    smallest_unit, page_px = 10, 16  # font sizes: of a plot, in its own units, and of the page
    assert all(9 <= scale * smallest_unit <= page_px for scale in scales)
    page.close()


def test_on_a_phone_a_plot_scrolls_sideways_in_its_box(browser, run_dir):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((run_dir / REPORT_HTML).as_uri())
    box = page.locator("#latency figure:visible .scroll:has(svg.plot)").first
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(box) => box.scrollLeft > 0", arg=box.element_handle())
    page.close()


def test_the_results_accuse_no_memory_that_the_answer_does_not(tmp_path):
    """PyTorch's CUDA build fills memory that no cloud needs; the CPU build's is the cloud's own."""
    run, samples = make_run(n_images=40, names=["heroku"])
    (heroku,) = run.targets
    for build, said in (("cu130", "not known"), ("cpu", "exceeds 512 MiB")):
        folder = tmp_path / build
        folder.mkdir()
        version = {**heroku.version, "versions": {"torch": f"2.14.1+{build}"}}
        target = dataclasses.replace(heroku, peak_memory_mib=600.0, version=version)
        write_run(folder, dataclasses.replace(run, targets=[target]))
        with (folder / SAMPLES_FILE).open("w", encoding="utf-8") as file:
            for sample in samples:
                append_sample(file, sample)
        write_reports(folder)
        cell = text_of(folder).partition('data-label="Memory"')[2].partition("</td>")[0]
        assert said in cell and "600 MiB" in cell


def test_a_printed_page_has_light_colours(browser, run_dir):
    page = browser.new_page(color_scheme="dark")
    page.goto((run_dir / REPORT_HTML).as_uri())
    ink = "getComputedStyle(document.documentElement).getPropertyValue('--ink')"
    on_screen = page.evaluate(ink)
    page.emulate_media(media="print", color_scheme="dark")
    printed = page.evaluate(ink)
    page.emulate_media(media="screen", color_scheme="light")
    assert printed == page.evaluate(ink) != on_screen
    page.close()


def test_plots_follow_the_colour_scheme(browser, run_dir):
    colours = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto((run_dir / REPORT_HTML).as_uri())
        colours.append(page.evaluate("getComputedStyle(document.querySelector('svg.plot text')).fill"))
        page.close()
    assert colours[0] != colours[1]
