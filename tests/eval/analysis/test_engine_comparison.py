"""Two engines in one run: who is held against whom, what the switch is worth, and what is no fault."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest
from playwright import sync_api as playwright
from rich.console import Console

from eval.__main__ import main
from eval.analysis.comparability import incompatibilities
from eval.analysis.findings import FindingCode, Severity, invalid
from eval.codes import ReasonCode
from eval.cost.price_list import load_price_list
from eval.dataset.images import load_images
from eval.plan.config import Config, config_from_json
from eval.progress import Reporter
from eval.report.engine_table import engine_rows
from eval.report.plots.style import assign_styles
from eval.report.plots.svg import COLOUR_COUNT
from eval.report.render import REPORT_HTML, REPORT_MD, write_reports
from eval.report.report_json import build_report
from eval.report.trend_page import TREND_HTML, TREND_JSON, write_trend
from eval.run.runner import RunOptions, execute_run, new_run
from eval.samples.model import TargetRun
from eval.samples.store import read_run, read_samples
from eval.targets.endpoints import Endpoint, TargetSet, start_targets
from eval.targets.engines import EnginePair, matching_engine_pairs
from infra.local.twins import local_twins
from infra.targets import TARGETS
from scripts.docs.readme import results
from service.engines.names import twin_names
from service.settings import ENGINES
from tests.conftest import CHROMIUM, descendants
from tests.helpers.fake_endpoint import fake_endpoint, image_set
from tests.helpers.html_pages import Page, text_of
from tests.helpers.synthetic_run import FOUR, MODEL_VERSION, ONNX_VERSION, SHIPPED, image_bytes, make_run
from tests.helpers.synthetic_scenarios import make_full_run, write_full_run

pytestmark = pytest.mark.integration

PRICES = load_price_list()
BOTH = ["heroku", "heroku-onnx", "gcp_cloudrun", "gcp_cloudrun-onnx"]
EIGHT = twin_names(FOUR, ENGINES)
FEW_OTHERWISE = {"heroku-onnx": 2, "gcp_cloudrun-onnx": 2}  # of 400 pictures


def report(names=BOTH, **options):
    run, samples = make_run(names=names, **options)
    return build_report(run, samples, PRICES)


def faults(found):
    """The findings except those that the price list gives to every run."""
    return [finding for finding in found["run"]["findings"] if not finding["code"].startswith("prices_")]


@pytest.fixture(scope="module")
def both():
    return report(disagreements=FEW_OTHERWISE)


# Who is held against whom


def endpoint(name, engine, twin=False, target="heroku"):
    return TargetRun(name, target, "", twin, version={"engine": engine})


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        ([endpoint("heroku", "torch"), endpoint("heroku-onnx", "onnx")], [EnginePair("heroku", "heroku-onnx")]),
        ([endpoint("heroku-onnx", "onnx"), endpoint("heroku-prod", "torch")],
         [EnginePair("heroku-prod", "heroku-onnx")]),
        ([endpoint("heroku-eu", "torch"), endpoint("heroku", "torch"), endpoint("heroku-onnx", "onnx")],
         [EnginePair("heroku", "heroku-onnx")]),
        ([endpoint("heroku", "torch"), endpoint("heroku-fast", "onnx")], [EnginePair("heroku", "heroku-fast")]),
        ([endpoint("heroku", "torch"), endpoint("aws_ec2-onnx", "onnx", target="aws_ec2")], []),
        ([endpoint("heroku", "torch", twin=True), endpoint("heroku-onnx", "onnx")], []),
        ([endpoint("heroku", "torch"), endpoint("heroku-onnx", "torch")], []),
        ([endpoint("heroku-onnx", "onnx")], []),
        ([endpoint("mine", "torch", target=None), endpoint("mine-onnx", "onnx", target=None)],
         [EnginePair("mine", "mine-onnx")]),
        ([endpoint("mine", "torch", target=None), endpoint("other", "onnx", target=None)], []),
    ],
    ids=["stage", "whatever the order", "same name first", "any stage", "two targets", "twin and cloud",
         "the name does not count", "alone", "foreign", "two foreign"],
)  # fmt: skip
def test_endpoints_of_one_target_with_two_engines_are_a_pair(targets, found):
    assert matching_engine_pairs(targets) == found


# What is no fault


def test_second_engine_has_its_own_file_and_may_differ_slightly(both):
    assert both["targets"]["heroku-onnx"]["model_version"] == ONNX_VERSION != MODEL_VERSION
    assert both["agreement"]["heroku-onnx|reference"]["disagreements"] == 2
    assert both["verdict"]["all_targets_agree"] is both["verdict"]["valid"] is True
    assert faults(both) == []
    correct, same, _ = both["verdict"]["tiles"]
    assert (correct["value"], correct["note"]) == ("93.00% · 92.50%", "PyTorch · ONNX int8: of 400 images")
    assert same["value"] == "yes, but for rounding"
    assert "ONNX int8: 2 of 400 images differ from the model, by rounding" in same["note"]


def test_single_engine_is_compared_with_the_others_reference():
    found = report(["heroku-onnx", "aws_ec2-onnx"], disagreements={"heroku-onnx": 2, "aws_ec2-onnx": 2})
    assert found["verdict"]["all_targets_agree"] is True and faults(found) == []
    assert found["engine_comparisons"] == []


def test_two_targets_of_one_engine_that_differ_are_a_fault():
    found = report(disagreements={"heroku-onnx": 2, "gcp_cloudrun-onnx": 3})
    assert found["verdict"]["all_targets_agree"] is False
    (finding,) = faults(found)
    assert (finding["code"], finding["severity"]) == (FindingCode.PREDICTIONS_DIFFER, Severity.WARNING)
    titles = ["Heroku (ONNX int8)", "Google Cloud Run (ONNX int8)"]
    assert finding["values"] == {"titles": titles, "disagreements": 1, "n": 400, "max_agreement": None}


def test_engine_that_differs_on_too_many_images_is_another_model():
    found = report(["heroku", "heroku-onnx"], disagreements={"heroku-onnx": 40})
    assert found["verdict"]["all_targets_agree"] is False
    differ = [finding["values"] for finding in faults(found) if finding["code"] == FindingCode.PREDICTIONS_DIFFER]
    assert [values["max_agreement"] for values in differ] == [pytest.approx(0.928, abs=0.001)] * len(differ)


@pytest.mark.parametrize(
    ("images", "differ", "wrong"),
    [(2, 1, 1), (90, 90, 0), (400, 40, 300)],
    ids=["two", "too few", "unlike the training set"],
)
def test_different_models_are_concluded_from_enough_images_only(images, differ, wrong):
    found = report(["heroku", "heroku-onnx"], n_images=images, disagreements={"heroku-onnx": differ}, wrong=wrong)
    assert FindingCode.PREDICTIONS_DIFFER not in {finding["code"] for finding in faults(found)}
    (undecided,) = [f["values"] for f in faults(found) if f["code"] == FindingCode.SAME_MODEL_UNDECIDED]
    assert undecided["n"] == images


def test_one_image_many_times_counts_as_one():
    run, samples = make_run(names=["heroku", "heroku-onnx"], disagreements={"heroku-onnx": 400})
    one = [replace(entry, sha256="0" * 64) for entry in run.image_manifest]
    found = build_report(replace(run, image_manifest=one), samples, PRICES)
    (undecided,) = [f["values"] for f in faults(found) if f["code"] == FindingCode.SAME_MODEL_UNDECIDED]
    assert undecided["n"] == 1


def test_other_weights_for_one_engine_are_no_comparison():
    found = report(model_versions={"heroku-onnx": "fedcba987654"})
    assert found["verdict"]["valid"] is False
    finding = faults(found)[0]
    assert (finding["code"], finding["severity"]) == (FindingCode.MODEL_VERSIONS_DIFFER, Severity.INVALID)
    assert finding["values"]["titles_by_version"]["fedcba987654"] == ["Heroku (ONNX int8)"]
    assert MODEL_VERSION not in finding["values"]["titles_by_version"]


def test_significant_accuracy_loss_is_a_warning_and_no_error():
    found = report(["heroku", "heroku-onnx"], disagreements={"heroku-onnx": 8})
    assert found["verdict"]["all_targets_agree"] is True
    (finding,) = faults(found)
    assert (finding["code"], finding["severity"]) == (FindingCode.LESS_ACCURATE, Severity.WARNING)
    assert (finding["values"]["engine"], finding["values"]["max_drop"]) == ("onnx", pytest.approx(0.02))
    assert finding["values"]["decision"] == found["engine_comparisons"][0]["accuracy"]["decision"] == "inferior"
    assert "; inferior (a loss of more than 1 point is shown)" in finding["message"]


def test_a_loss_that_is_sure_and_small_is_not_inferior():
    found = report(["heroku", "heroku-onnx"], n_images=1600, disagreements={"heroku-onnx": 6})
    (finding,) = faults(found)
    assert (finding["code"], finding["values"]["decision"]) == (FindingCode.LESS_ACCURATE, "not inferior")
    (note,) = [row.cells[0].note for row in engine_rows(found["engine_comparisons"]) if row.title == "Accuracy"]
    assert note.endswith("; not inferior (a loss of 1 point or more is excluded)")


# What it is worth


def test_the_second_engine_is_priced_as_its_target(both):
    first, second = both["targets"]["heroku"], both["targets"]["heroku-onnx"]
    assert (second["title"], second["size"], second["memory_mib"]) == ("Heroku (ONNX int8)", "basic", 512)
    assert first["cost"]["idle_usd_per_month"] == second["cost"]["idle_usd_per_month"] == 7.0


@pytest.mark.parametrize(
    ("b_usd", "b_instances", "note"), [(1.3462, 2, "the same"), (1.8, 2, "+33%"), (1.8, 3, "2 → 3 instances")]
)
def test_a_cost_has_a_percentage_only_where_it_says_something(both, b_usd, b_instances, note):
    pair = both["engine_comparisons"][0]
    costs = {"a": {"gross_usd": 1.3501, "instances": 2}, "b": {"gross_usd": b_usd, "instances": b_instances}}
    rows = engine_rows([{**pair, "per_million": {**pair["per_million"], "10": costs}}])
    assert next(row.cells[0].note for row in rows if row.title == "$ per million") == note


def test_of_engines_that_cost_the_same_the_quicker_one_is_told(both):
    verdict = both["verdict"]
    assert verdict["engine"] == "onnx"
    assert (verdict["recommended"], verdict["runner_up"]) == ("gcp_cloudrun-onnx", "heroku-onnx")
    assert verdict["condition"].startswith("With ONNX int8. Next: Heroku at $7.00.")


def test_every_figure_stands_before_and_after_the_switch(both):
    one = both["engine_comparisons"][0]
    assert (one["a"], one["b"], one["title"]) == ("heroku", "heroku-onnx", "Heroku")
    assert one["engines"] == {"a": "torch", "b": "onnx"}
    for side, name in (("a", "heroku"), ("b", "heroku-onnx")):
        facts = both["targets"][name]
        assert one["latency_ms"]["p95"][side] == facts["scenarios"]["single"]["latency_ms"]["p95"]
        assert one["per_million"]["10"][side] == facts["cost"]["per_million"]["10"]
        assert one["monthly_usd"]["1000000"][side] == facts["cost"]["monthly_usd"]["1000000"]
        assert one["startup_ms"][side] == facts["startup_ms"]
        assert one["memory_mib"][side] == facts["memory"]["peak_mib"]
        assert one["artifact_size"][side]["files_bytes"] == SHIPPED[one["engines"][side]]["files_bytes"]
        assert one["accuracy"][side] == facts["accuracy"]
    assert one["startup_ms"]["metric"] == "ready"
    assert one["agreement"]["disagreements"] == 2


def test_how_many_times_as_fast_has_an_interval_around_the_truth(both):
    for one in both["engine_comparisons"]:
        for factor in (one["latency_ms"][p]["speedup"] for p in ("p50", "p95")):
            assert 4.0 < factor["low"] < factor["value"] < factor["high"] < 6.0
        assert one["latency_ms"]["p50"]["speedup"]["low"] < 5.0 < one["latency_ms"]["p50"]["speedup"]["high"]


def test_the_difference_of_accuracy_is_paired_and_tested(both):
    change = both["engine_comparisons"][0]["accuracy"]
    assert change["difference"]["value"] == pytest.approx(-2 / 400)
    assert change["difference"]["low"] < -2 / 400 < 0 < change["difference"]["high"]
    assert change["decision"] == "not decided"  # 400 images do not exclude a loss of one percentage point
    assert (change["mcnemar"]["only_a_correct"], change["mcnemar"]["p"]) == (2, 0.5)
    assert change["mcnemar"]["p_holm"] == 0.5  # both pairs of engines are one hypothesis


def test_a_start_is_the_proven_cold_one_where_there_is_one():
    run, samples = make_full_run(60, scenarios=("single", "cold"), names=["heroku", "heroku-onnx"])
    (one,) = build_report(run, samples, PRICES)["engine_comparisons"]
    assert one["startup_ms"]["metric"] == "time_to_first_prediction"
    assert one["startup_ms"]["a"]["value"] > 2000


@pytest.mark.parametrize(
    "options", [{"failures": {"heroku-onnx": 400}}, {"not_started": {"heroku-onnx": "no model"}}, {"n_images": 3}]
)
def test_what_could_not_be_measured_of_both_says_so(options):
    found = report(["heroku", "heroku-onnx"], **options)
    json.dumps(found, allow_nan=False)
    (one,) = found["engine_comparisons"]
    assert one["latency_ms"]["p95"]["speedup"]["value"] is None
    assert all(
        cell.value and cell.note is not None for row in engine_rows(found["engine_comparisons"]) for cell in row.cells
    )


def test_deployed_stacks_are_compared_like_twins():
    found = report(["heroku", "heroku-onnx"], twin=False)
    (one,) = found["engine_comparisons"]
    assert one["artifact_size"]["b"]["files_bytes"]["reason"]["code"] == ReasonCode.ONLY_TWIN_ARTIFACT_OBSERVED
    assert one["startup_ms"]["metric"] is None


def test_a_run_of_one_engine_has_no_such_part():
    assert report(["heroku", "aws_ec2"])["engine_comparisons"] == []


# On the page


@pytest.fixture(scope="module")
def page_dir(tmp_path_factory):
    """Eight twins in every scenario."""
    folder = tmp_path_factory.mktemp("eight")
    few = {name: 2 for name in EIGHT if name.endswith("-onnx")}
    write_reports(write_full_run(folder, n_images=200, names=EIGHT, disagreements=few), image_bytes)
    return folder


@pytest.mark.parametrize("name", [REPORT_HTML, REPORT_MD])
def test_the_report_tells_what_the_switch_is_worth(page_dir, name):
    text = Page(text_of(page_dir, name)).text
    worth = text.split("PyTorch vs ONNX int8")[1]
    for figure in ("Latency p50", "Latency p95", "$ per million", "Start", "Shipped", "Memory", "Accuracy", "Same"):
        assert figure in worth
    assert "22.6 MB → 11.4 MB" in worth and "as fast" in worth and "2 of 200 images differ" in worth


def test_a_report_of_one_engine_does_not_mention_engines(tmp_path):
    write_reports(write_full_run(tmp_path, n_images=40, scenarios=("single",)))
    for name in (REPORT_HTML, REPORT_MD):
        assert "PyTorch vs ONNX int8" not in text_of(tmp_path, name)
        assert "Another engine" not in text_of(tmp_path, name)


def test_parity_raises_no_alarm_for_another_engine(page_dir):
    table = text_of(page_dir).split('aria-label="Parity"')[1].split("</table>")[0]
    assert "PyTorch on all 4 targets and ONNX int8 on all 4 targets" in table
    assert ">2 of 200<" in table and 'class="bad"' not in table


def test_the_readme_takes_the_table_of_the_switch_along(page_dir):
    block = results(text_of(page_dir, REPORT_MD))
    lines = [line for line in block.splitlines() if line.startswith("| ")]
    assert sum(line.startswith("| **") for line in lines) == 8
    assert (
        sum(line.startswith(("| PyTorch on all 4 targets |", "| ONNX int8 on all 4 targets |")) for line in lines) == 2
    )
    alike = [line for line in block.splitlines() if line.startswith("- ") and line.endswith(", on every target.")]
    assert sum(line.count("→") == len(FOUR) for line in lines) >= 5
    assert any(line.startswith("- Accuracy, on the same images") for line in alike)


def test_engines_of_a_target_share_its_colour_not_its_figures():
    found = assign_styles(EIGHT, {f"{name}-onnx": name for name in FOUR})
    assert len(set(found.values())) == len(EIGHT)
    for name in FOUR:
        assert found[name] % COLOUR_COUNT == found[f"{name}-onnx"] % COLOUR_COUNT
    assert len({found[name] % COLOUR_COUNT for name in FOUR}) == len(FOUR)


def test_without_a_second_engine_numbers_are_places():
    assert list(assign_styles(TARGETS, {}).values()) == [0, 1, 2, 3, 4] and len(TARGETS) <= COLOUR_COUNT


@pytest.mark.parametrize("count", [8, 9, 30])
def test_however_many_endpoints_there_are_no_two_have_one_number(count):
    names = [f"n{i}" for i in range(count)]
    assert len(set(assign_styles(names, {"n5": "n1", "n6": "n1", "n7": "n6"}).values())) == count


def test_a_trend_keeps_the_engines_of_a_target_together(tmp_path):
    for day in (1, 2):
        folder = write_full_run(tmp_path / str(day), n_images=40, scenarios=("single",), names=BOTH,
                                started_at=f"2026-11-0{day}T08:30:00+00:00")  # fmt: skip
        record = json.loads((folder / "run.json").read_text()) | {"id": f"run-{day}"}
        (folder / "run.json").write_text(json.dumps(record))
    write_trend([tmp_path / "1", tmp_path / "2"])
    assert json.loads((tmp_path / TREND_JSON).read_text())["engine_pairs"] == {
        "heroku-onnx": "heroku", "gcp_cloudrun-onnx": "gcp_cloudrun",
    }  # fmt: skip
    assert 'class="chip open"' in text_of(tmp_path, TREND_HTML)


def test_runs_of_another_engine_under_one_name_are_unlike():
    torch, onnx = (make_run(names=["heroku"], n_images=20)[0] for _ in ENGINES)
    onnx = replace(onnx, targets=[replace(onnx.targets[0], engine="onnx")])
    engine_differs = invalid(FindingCode.ENGINE_DIFFERS, "heroku", a="torch", b="onnx")
    assert incompatibilities(torch, onnx, {}, {}) == [engine_differs]
    assert incompatibilities(torch, torch, {}, {}) == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_of_eight_never_scrolls_sideways(needs_tool, page_dir, width):
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=needs_tool("chromium"), args=CHROMIUM)
        page = chromium.new_page(viewport={"width": width, "height": 900})
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((page_dir / REPORT_HTML).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown, buttons = (
            page.locator("#latency .readout p:visible").first,
            page.get_by_role("region", name="Targets that"),
        )
        buttons.get_by_role("button", name="ONNX int8").focus()
        page.keyboard.press("Enter")
        assert "ONNX int8" not in shown.inner_text() and "Heroku " in shown.inner_text()
        buttons.get_by_role("button", name="Heroku").click()
        assert "Heroku" not in shown.inner_text() and "AWS EC2 " in shown.inner_text()
        assert said == []
        chromium.close()


# Old runs


def test_a_run_of_before_engines_were_kept_is_read_and_reported():
    run, samples = make_run(names=["heroku"])
    facts = asdict(run)
    for target in facts["targets"]:
        del target["engine"], target["artifact"]
    old = replace(run, targets=[TargetRun(**target) for target in facts["targets"]])
    found = build_report(old, samples, PRICES)["targets"]["heroku"]
    assert (found["engine"], found["title"]) == ("torch", "Heroku")
    assert config_from_json({"seed": 1}).engines == ("torch",)


# Running


def screen():
    return Reporter(Console(file=io.StringIO(), width=200))


@pytest.mark.slow
def test_both_engines_of_a_target_alternate_start_cold_and_agree(tmp_path):
    images = load_images("golden", 40, 0, print)
    config = Config(scenarios=("single", "cold"), restarts=1, warmup=2, block=10, baseline_rtt=2, engines=ENGINES)
    with local_twins(["heroku"], tmp_path / "logs", engines=ENGINES) as twins:
        fleet = TargetSet(tuple(Endpoint(t.name, t.target.name, t.url, t) for t in twins.running), twins.failures)
        begun = new_run("some-id", fleet, images, config, RunOptions())
        done = execute_run(tmp_path, begun, fleet, images, config, RunOptions(), screen())
    assert descendants() == []
    assert done.complete
    assert [(t.name, t.target, t.engine, t.failure) for t in done.targets] == [
        ("heroku", "heroku", "torch", None), ("heroku-onnx", "heroku", "onnx", None),
    ]  # fmt: skip
    assert done.targets[1].artifact["installed_bytes"] > 0
    samples = [s for s in read_samples(tmp_path) if s.phase == "measure" and s.target != "reference"]
    assert all(s.error is None for s in samples)
    turns = [s.target for s in samples if s.scenario == "single"]
    assert {*turns[:20]} == {*turns[-20:]} == {"heroku", "heroku-onnx"}
    found = write_reports(tmp_path)
    (one,) = found["engine_comparisons"]
    assert [f["cold_starts"]["forced"]["confirmed"] for f in found["targets"].values()] == [1, 1]
    assert min(one["startup_ms"]["a"], one["startup_ms"]["b"]) > 0
    assert one["memory_mib"]["b"] < one["memory_mib"]["a"]
    assert one["agreement"]["fraction"]["value"] >= 0.95
    assert found["agreement"]["heroku|reference"]["disagreements"] == 0
    # Tests that run beside this one may make the client late: nothing else may spoil the comparison.
    spoilt_by = {f["code"] for f in found["run"]["findings"] if f["severity"] == Severity.INVALID}
    assert spoilt_by <= {FindingCode.CLIENT_SATURATED, FindingCode.LATE_AT_START}
    assert found["verdict"]["all_targets_agree"] is not bool(spoilt_by)


@pytest.fixture
def fake():
    with fake_endpoint() as endpoint_:
        yield endpoint_


def begin(folder, fake, **known):
    """A run of one endpoint of which that much is known before it is asked."""
    images, config = image_set(4), Config(warmup=0, baseline_rtt=0)
    fleet = TargetSet((Endpoint("heroku-onnx", "heroku", fake.url),), {})
    begun = new_run("some-id", fleet, images, config, RunOptions())
    begun = replace(begun, targets=[replace(begun.targets[0], **known)])
    return execute_run(folder, begun, fleet, images, config, RunOptions(), screen()), fake.posts


@pytest.mark.parametrize("known", [{"engine": "onnx"}, {"version": {"engine": "onnx"}}], ids=["started", "before"])
def test_endpoint_that_runs_the_wrong_engine_is_not_measured(tmp_path, fake, known):
    fake.engine = "torch"
    done, posts = begin(tmp_path, fake, **known)
    assert "engine mismatch: expected onnx, /version reports torch" in (done.targets[0].failure or "")
    assert posts == []


def test_an_endpoint_that_runs_what_it_should_is_measured(tmp_path, fake):
    fake.engine = "onnx"
    done, posts = begin(tmp_path, fake, engine="onnx")
    assert done.complete and len(posts) == 4


def test_a_twin_that_did_not_start_keeps_target_and_engine():
    fleet = TargetSet((), {"heroku-onnx": "no model"})
    (target,) = new_run("some-id", fleet, image_set(1), Config(), RunOptions()).targets
    assert (target.name, target.target, target.engine) == ("heroku-onnx", "heroku", "onnx")


def test_no_engines_no_twins(tmp_path):
    with start_targets((), TargetSet((), {}), tmp_path, Reporter()) as fleet:
        assert fleet == TargetSet((), {})


# The command line


def refused(capsys, *arguments):
    assert main(["run", *arguments]) == 1
    return capsys.readouterr().err


def test_engines_of_a_deployed_stack_are_not_chosen_here(capsys):
    said = refused(capsys, "--target", "heroku=http://127.0.0.1:9", "--engines", "onnx")
    assert said.startswith("--engines is for local twins") and "cloudtrial:engine" in said


def test_endpoint_may_not_take_the_name_of_a_second_engines_twin(capsys):
    address = "heroku-onnx=http://127.0.0.1:9"
    said = refused(capsys, "--local", "--engines", "torch,onnx", "--target", address, "--images", "golden")
    assert said == "two endpoints are called 'heroku-onnx': rename one\n"


def test_a_run_is_not_gone_on_with_in_other_engines(tmp_path, capsys, fake):
    main(["run", "--target", f"a={fake.url}", "--images", "golden", "--limit", "3", "--out", str(tmp_path)])
    facts = json.loads((tmp_path / "run.json").read_text())
    facts["config"] |= {"local": True, "targets": [], "engines": ["torch", "onnx"]}
    (tmp_path / "run.json").write_text(json.dumps(facts | {"complete": False}))
    said = refused(capsys, "--resume", str(tmp_path), "--engines", "onnx")
    assert "with engines=('onnx',) instead of ('torch', 'onnx')" in said
    assert read_run(tmp_path).config["engines"] == ["torch", "onnx"]
