"""What report.json says of runs whose numbers are known."""

import json
import math
from dataclasses import replace
from itertools import pairwise, product

import pytest

from eval.analysis.findings import FindingCode, Severity
from eval.analysis.latency import scenario_report
from eval.analysis.summary import break_even_points
from eval.codes import AssumptionCode, ReasonCode, reason, unavailable
from eval.cost.billing import SECONDS_PER_MONTH
from eval.cost.cost_model import build_cost_model
from eval.cost.price_list import load_price_list
from eval.plan.arrivals import poisson_arrivals
from eval.report.report_json import build_report, to_jsonable
from eval.samples.model import ClockRecord, SenderRecord
from eval.samples.rounds import latencies_by_round
from eval.stats.intervals import Estimate
from infra.models import DEFAULT_MODEL
from tests.helpers.synthetic_run import (
    ANSWER_BYTES,
    CLASSES,
    FOUR,
    MEDIAN_MS,
    MODEL_VERSION,
    STARTUP_MS,
    WARMUP_MS,
    make_run,
    make_sample,
)
from tests.helpers.synthetic_scenarios import make_full_run

PRICES = load_price_list()
NAMES = list(FOUR)


def report(**options):
    run, samples = make_run(**options)
    return build_report(run, samples, PRICES)


def findings(found):
    """(code, target, values) of each, except those that the price list gives to every run."""
    return [
        (f["code"], f["target"], f["values"]) for f in found["run"]["findings"] if not f["code"].startswith("prices_")
    ]


def codes(found):
    return [code for code, _, _ in findings(found)]


def of_code(found, code):
    return next(f["values"] for f in found["run"]["findings"] if f["code"] == code)


@pytest.fixture(scope="module")
def plain():
    return report()


def reasons(value, path=""):
    """Every missing figure below, with where it is."""
    if isinstance(value, dict):
        if value.get("reason") and value.get("value") is None:
            yield path, value["reason"]["code"]
        for key, inner in value.items():
            yield from reasons(inner, f"{path}/{key}")


def test_it_is_json_without_nan_or_infinity_whatever_failed():
    for options in ({}, {"failures": {"heroku": 400}}, {"not_started": {"aws_ec2": "no"}}, {"n_images": 3}):
        json.dumps(report(**options), allow_nan=False)


def test_it_is_pure():
    run, samples = make_run(n_images=60)
    assert build_report(run, iter(samples), PRICES) == build_report(run, list(samples), PRICES)


def test_it_has_the_parts_that_are_documented(plain):
    assert set(plain) == {
        "schema_version",
        "run",
        "verdict",
        "candidates",
        "targets",
        "agreement",
        "engine_comparisons",
        "break_even",
    }
    assert set(plain["run"]) == {
        "id", "started_at", "ended_at", "complete", "incomplete_reason", "command", "seed", "scenarios", "images",
        "prices", "client_environment", "versions", "twins", "findings", "config", "resumed_at", "cost",
    }  # fmt: skip
    parts = {"answer", "condition", "tiles", "recommended", "options", "traffic", "all_targets_agree"}
    assert parts <= set(plain["verdict"])
    for facts in plain["targets"].values():
        assert {
            "title", "kind", "size", "region", "vcpus", "memory_mib", "twin", "url", "reverse_proxy", "cpus", "failure",
            "sent", "succeeded", "errors", "accuracy", "accuracy_over_sent", "top5_accuracy", "f1_macro", "f1_weighted",
            "precision_macro", "precision_weighted", "roc_auc", "average_precision", "ece", "per_class",
            "most_confused",
            "confusion", "scenarios", "startup_ms", "startup_phases_ms", "memory", "cost", "model_version", "engine",
            "instances", "all_requests", "baseline_rtt_ms", "cache", "cold_starts", "artifact_size", "processor",
        } == set(facts)  # fmt: skip
        assert {
            "succeeded", "latency_ms", "latency_with_failures_ms", "service_time_ms", "server_timing_ms",
            "throughput_rps", "send_delay_ms", "after_pause_ms",
        } <= set(facts["scenarios"]["single"])  # fmt: skip
        assert {
            "per_million", "idle_usd_per_month", "monthly_usd", "curve", "what_if", "measured", "assumptions"
        } == set(facts["cost"])  # fmt: skip


def test_full_run_of_400_images_lacks_only_break_evens_never_met(plain):
    more = (
        "/cold_starts",
        "/baseline_rtt_ms",
        "/cache",
        "/latency_early_stopping_ms/p99",
        "/tail_ratio",
        "/instances",
    )  # not tried, or from more
    missing = [path for path, _ in reasons(plain["targets"]) if not any(name in path for name in more)]
    assert list(reasons(plain["run"])) == missing == list(reasons(plain["agreement"])) == []
    assert findings(plain) == []


def test_the_warm_up_is_in_no_figure(plain):
    run, samples = make_run()
    without = [s for s in samples if s.phase == "measure"]
    assert len(without) < len(samples)
    assert build_report(run, without, PRICES) == plain
    assert plain["targets"]["heroku"]["scenarios"]["single"]["latency_ms"]["p99"]["high"] < WARMUP_MS


@pytest.mark.parametrize("name", NAMES)
def test_latency_is_that_of_the_samples(plain, name):
    single = plain["targets"][name]["scenarios"]["single"]
    p50 = single["latency_ms"]["p50"]
    assert p50["low"] <= p50["value"] <= p50["high"]
    assert p50["value"] == pytest.approx(MEDIAN_MS[name], rel=0.05)
    assert single["latency_ms"] == single["latency_with_failures_ms"]
    assert single["throughput_rps"] is None  # 1 / latency says nothing of what the target can do


def test_throughput_of_a_burst_is_answers_over_its_time():
    burst = [make_sample(scenario="burst", latency_ms=ms) for ms in (10.0, 20.0, 30.0, 40.0)]
    assert scenario_report("burst", burst, slo_ms=200.0).throughput_rps == pytest.approx(4 / 0.040)
    assert scenario_report("poisson", burst, slo_ms=200.0).throughput_rps is None


OVERNIGHT_S = 8 * 3600


def test_throughput_has_no_part_of_an_interruption():
    answered = [make_sample(scenario="burst", latency_ms=ms) for ms in (10.0, 20.0)]
    rest = [make_sample(scenario="burst", latency_ms=ms, scheduled_s=OVERNIGHT_S) for ms in (10.0, 20.0, 30.0, 40.0)]
    report = scenario_report("burst", [*answered, *rest], slo_ms=200.0)
    assert report.throughput_rps == pytest.approx(6 / 0.060)
    senders = [
        replace(s, scheduled_s=0.003 * i, latency_ms=0.5) for i, s in enumerate(rest)
    ]  # clocks of other machines
    assert scenario_report("burst", senders, slo_ms=200.0).throughput_rps == pytest.approx(4 / 0.0095)


@pytest.mark.parametrize("rate_rps", [0.5, 20.0, 2000.0])
def test_throughput_of_a_rate_is_the_same_where_it_was_cut(rate_rps):
    offsets_s = poisson_arrivals(rate_rps, 1000 / rate_rps, "a step")
    step = [
        make_sample(scenario="max_rate", rate_rps=rate_rps, latency_ms=9.0, scheduled_s=offset_s, index_in_block=i)
        for i, offset_s in enumerate(offsets_s)
    ]
    cut = [replace(s, scheduled_s=s.scheduled_s + OVERNIGHT_S * (s.index_in_block >= 300)) for s in step]
    whole, resumed = (scenario_report("max_rate", of, slo_ms=200.0).throughput_rps for of in (step, cut))
    assert whole == pytest.approx(rate_rps, rel=0.1)
    assert resumed == pytest.approx(whole, rel=0.02)


def test_accuracy_is_known_and_equal_on_all(plain):
    for facts in plain["targets"].values():
        assert facts["accuracy"]["value"] == facts["accuracy_over_sent"]["value"] == 0.93
        assert [row["label"] for row in facts["per_class"]] == CLASSES
        assert sum(map(sum, facts["confusion"])) == 400


def test_verdict_recommends_the_cheapest_at_its_traffic(plain):
    verdict = plain["verdict"]
    assert (verdict["recommended"], verdict["runner_up"]) == ("gcp_function", "gcp_cloudrun")
    assert verdict["engine"] == "torch"
    assert verdict["traffic"] == {"busy_rps": 1.0, "busy_hours_per_day": 8.0}
    assert verdict["answer"] == "At 1 a second, 8 h a day, take Google Cloud Functions: $0 a month."
    assert verdict["all_targets_agree"] is True
    assert verdict["fastest"] is None  # the speed of twins is that of one machine


def test_a_run_in_clouds_does_not_speak_of_twins():
    found = report(twin=False)
    assert found["verdict"]["slowdown_limit"] is None
    assert found["verdict"]["fastest"] == "aws_ec2"
    assert found["run"]["twins"] is False
    assert found["targets"]["heroku"]["startup_ms"]["reason"]["code"] == ReasonCode.ONLY_TWIN_START_OBSERVED
    assert found["targets"]["heroku"]["memory"]["fits"] is None


def test_short_runs_do_not_tell_apart_what_is_alike():
    found = report(names=["heroku", "gcp_cloudrun"], twin=False)
    assert found["verdict"]["vs_fastest"] == {"heroku": "undecided"}
    assert found["verdict"]["fastest"] is None


def test_p95_of_a_short_run_is_not_known_and_the_bill_decides():
    short = report(n_images=40)
    assert {option["p95_ms"] for option in short["verdict"]["options"].values()} == {None}
    assert short["verdict"]["recommended"] == "gcp_function"
    assert short["targets"]["aws_ec2"]["scenarios"]["single"]["latency_ms"]["p95"] == to_jsonable(
        Estimate(None, reason=reason(ReasonCode.TOO_FEW_SAMPLES, needed=72, n=38))  # 40 less a first one a block
    )


def test_failures_count_as_wrong_and_as_latency_without_end():
    found = report(failures={"aws_ec2": 40}, failure_kind="disconnected")
    facts = found["targets"]["aws_ec2"]
    assert (facts["sent"], facts["succeeded"], facts["errors"]) == (400, 360, {"disconnected": 40})
    assert facts["accuracy"]["value"] == 1.0  # the last 28, which the model gets wrong, were not answered
    assert facts["accuracy_over_sent"]["value"] == 0.9
    single = facts["scenarios"]["single"]
    assert single["latency_ms"]["p95"]["value"] < 15
    infinite = Estimate(None, reason=reason(ReasonCode.INFINITE, failed=38, n=380))
    assert single["latency_with_failures_ms"]["p95"] == to_jsonable(infinite)
    assert single["latency_with_failures_ms"]["p50"]["value"] < 15


def test_a_target_that_was_fast_until_it_died_is_not_the_fastest():
    found = report(failures={"aws_ec2": 40}, twin=False)
    assert found["verdict"]["fastest"] != "aws_ec2"
    assert found["verdict"]["options"]["aws_ec2"]["excluded"]["code"] == ReasonCode.TOO_MANY_FAILURES
    values = {"title": "AWS EC2", "failed": 40, "sent": 400, "errors": {"disconnected": 40}}
    assert (FindingCode.MANY_FAILURES, "aws_ec2", values) in findings(found)


def test_one_failure_in_four_hundred_is_counted_but_no_warning():
    found = report(failures={"aws_ec2": 1}, failure_kind="timeout")
    assert found["targets"]["aws_ec2"]["errors"] == {"timeout": 1}
    assert findings(found) == []


def test_target_that_did_not_start_is_reported_with_its_reason():
    found = report(not_started={"heroku": "port 5000 was never opened\nlast lines of its log"})
    facts = found["targets"]["heroku"]
    assert (facts["sent"], facts["succeeded"], facts["scenarios"]) == (0, 0, {})
    assert facts["cost"]["idle_usd_per_month"]["reason"]["code"] == ReasonCode.NO_REQUEST_SUCCEEDED
    values = {"title": "Heroku", "failure": "port 5000 was never opened"}
    assert findings(found) == [(FindingCode.TARGET_FAILED, "heroku", values)]
    assert found["verdict"]["tiles"][1]["value"] == "yes, of those that answered"
    assert found["verdict"]["all_targets_agree"] is False


def test_nothing_answered_is_said_and_nothing_is_compared():
    found = report(failures=dict.fromkeys(NAMES, 400), failure_kind="connect", reference=False)
    titles = "AWS EC2, Heroku, Google Cloud Run and Google Cloud Functions"
    assert found["verdict"]["answer"] == "No target answered."
    assert found["verdict"]["condition"] == f"{titles} answered none of 400: made up: connect."
    assert found["verdict"]["fastest"] is found["verdict"]["recommended"] is None


def test_models_do_not_differ_by_a_target_without_an_answer():
    run, samples = make_run(names=["aws_ec2", "heroku"], failures={"heroku": 400}, model_versions={"heroku": "fedcba"})
    other = {"model": {"version": "fedcba987654"}}
    targets = [replace(t, version=other) if t.name == "heroku" else t for t in run.targets]
    found = build_report(replace(run, targets=targets), samples, PRICES)
    assert FindingCode.MODEL_VERSIONS_DIFFER not in codes(found)
    assert found["verdict"]["valid"] is True


def test_incomplete_run_says_so_first_and_counts_what_is_missing():
    run, samples = make_run(complete=False)
    found = build_report(run, samples[:1000], PRICES)
    assert found["verdict"]["answer"] == "Incomplete run: no answer yet."
    assert findings(found)[:2] == [
        (FindingCode.RUN_INCOMPLETE, None, {"note": "interrupted from the keyboard"}),
        (FindingCode.REQUESTS_MISSING, None, {"missing": 620, "planned": 1600}),
    ]


def test_a_disagreement_is_told_once_and_by_whom():
    found = report(disagreements={"gcp_function": 2})
    assert found["agreement"]["gcp_function|reference"]["disagreements"] == 2
    assert found["agreement"]["aws_ec2|gcp_function"]["fraction"]["value"] == 0.995
    assert found["agreement"]["aws_ec2|heroku"]["disagreements"] == 0
    assert found["verdict"]["all_targets_agree"] is False
    assert found["verdict"]["tiles"][1]["note"] == "Google Cloud Functions and the reference: 2 of 400 images"
    titles = ["Google Cloud Functions", "the reference"]
    values = {"titles": titles, "disagreements": 2, "n": 400, "max_agreement": None}
    assert findings(found) == [(FindingCode.PREDICTIONS_DIFFER, None, values)]


def test_without_a_reference_targets_are_held_against_each_other():
    alike = report(reference=False)
    assert not any("reference" in pair for pair in alike["agreement"])
    assert "not checked against the model itself" in alike["verdict"]["tiles"][1]["note"]
    assert codes(alike) == [FindingCode.NO_REFERENCE]
    differ = report(reference=False, disagreements={"heroku": 1})
    assert differ["verdict"]["all_targets_agree"] is False
    assert codes(differ).count(FindingCode.PREDICTIONS_DIFFER) == 3


@pytest.mark.parametrize(
    ("model", "adapter", "warned"),
    [(DEFAULT_MODEL, None, True), (None, None, False), (DEFAULT_MODEL, "sent the bytes of the image", False)],
    ids=["ours", "own classes", "own format"],
)
def test_nothing_is_said_of_the_model_beside_an_own_service(model, adapter, warned):
    run, samples = make_run(names=["mine"], foreign=True, twin=False, reference=False)
    run = replace(run, model=model, targets=[replace(run.targets[0], adapter=adapter)])
    assert (FindingCode.NO_REFERENCE in codes(build_report(run, samples, PRICES))) == warned


def test_a_single_target_without_a_reference_is_not_called_right():
    found = report(names=["heroku"], reference=False)
    assert found["verdict"]["all_targets_agree"] is False
    assert found["verdict"]["tiles"][1]["value"] == "not checked"


def test_different_models_make_the_comparison_invalid():
    found = report(model_versions={"heroku": "fedcba987654"})
    assert found["verdict"]["valid"] is found["verdict"]["all_targets_agree"] is False
    assert found["verdict"]["answer"] == "Not a valid comparison: no answer."
    assert found["verdict"]["condition"].startswith("The models differ")
    assert found["run"]["findings"][0]["severity"] == Severity.INVALID
    titles_by_version = of_code(found, FindingCode.MODEL_VERSIONS_DIFFER)["titles_by_version"]
    assert titles_by_version["fedcba987654"] == ["Heroku"] and MODEL_VERSION in titles_by_version


def streamed(late_ms, **options):
    """The report of a run with a Poisson stream that was sent late, as (valid, codes, values of the finding)."""
    run, samples = make_full_run(20, names=["heroku"], scenarios=("single", "poisson"), late_ms=late_ms, **options)
    found = build_report(run, samples, PRICES)
    late = [f["values"] for f in found["run"]["findings"] if f["code"] in ("client_saturated", "sent_late")]
    return found["verdict"]["valid"], [code for code in codes(found) if "late" in code or "sat" in code], late


@pytest.mark.parametrize(
    ("late_ms", "valid", "code"),
    [(0.4, True, None), (0.6, True, "sent_late"), (4.9, True, "sent_late"), (6.0, False, "client_saturated")],
)
def test_a_stream_that_is_sent_late_is_marked_or_invalid(late_ms, valid, code):
    found_valid, found_codes, values = streamed(late_ms)
    assert (found_valid, found_codes) == (valid, [code] if code else [])
    if code == "sent_late":
        assert values == [{"p99_delay_ms_by_title": {"Heroku": late_ms}, "limit_ms": 0.5}]


@pytest.mark.parametrize(
    ("passing_ms", "overload_ms", "code"),
    [
        (0.4, 90.0, None),
        (4.0, 90.0, "sent_late"),
        (11.0, 0.1, "search_limited_by_client"),
        (0.4, 110.0, "search_limited_by_client"),
    ],
)
def test_a_client_late_in_a_rate_search_makes_no_run_invalid(passing_ms, overload_ms, code):
    run, samples = make_run(20, names=["heroku"])
    run = replace(run, scenarios=["single", "max_rate"])
    for block, (rate_rps, latency_ms, delay_ms) in enumerate([(50.0, 20.0, passing_ms), (100.0, 900.0, overload_ms)]):
        step = {"scenario": "max_rate", "rate_rps": rate_rps, "latency_ms": latency_ms, "send_delay_ms": delay_ms}
        samples += [make_sample(i % 20, block=1000 + block, index_in_block=i, **step) for i in range(160)]
    found = build_report(run, samples, PRICES)
    late = {"sent_late", "client_saturated", "search_limited_by_client"}
    assert late & set(codes(found)) == ({code} if code else set())
    assert found["verdict"]["valid"] is True


def test_five_percent_of_a_long_latency_may_be_late():
    run, samples = make_full_run(20, names=["heroku"], scenarios=("single", "poisson"), late_ms=8.0)
    slow = [replace(s, latency_ms=s.latency_ms * 20) for s in samples]
    assert build_report(run, slow, PRICES)["verdict"]["valid"] is True


def test_a_closed_loop_has_no_send_delay_an_open_loop_has():
    run, samples = make_full_run(20, names=["heroku"], scenarios=("single", "poisson"), late_ms=0.3)
    scenarios = build_report(run, samples, PRICES)["targets"]["heroku"]["scenarios"]
    assert scenarios["single"]["send_delay_ms"] is None
    assert scenarios["poisson"]["send_delay_ms"]["p99"]["value"] == 0.3


def blocks(count, size, *, first_ms=30.0, scenario="single", first_error=None):
    """Blocks of requests of 10 ms, of which the first one takes longer."""
    return [
        make_sample(
            image, block=block, index_in_block=index, scenario=scenario, scheduled_s=image / 10,
            latency_ms=first_ms if index == 0 else 10.0, error=first_error if index == 0 else None,
        )
        for image, (block, index) in enumerate(product(range(count), range(size)))
    ]  # fmt: skip


def test_the_first_request_after_a_pause_is_in_no_percentile():
    found = scenario_report("single", blocks(40, 25), slo_ms=200.0)
    assert (found.sent, found.succeeded) == (1000, 1000)
    assert (found.latency_ms["p99"].high, found.latency_ms["p99"].n) == (10.0, 960)
    assert found.after_pause_ms is not None
    assert (found.after_pause_ms.value, found.after_pause_ms.n) == (30.0, 40)
    assert latencies_by_round(blocks(2, 3), "single") == {0: [10.0] * 2, 1: [10.0] * 2}


def test_a_first_request_that_fails_is_counted():
    found = scenario_report("single", blocks(40, 25, first_error="timeout"), slo_ms=200.0)
    assert (found.sent, found.succeeded, found.errors) == (1000, 960, {"timeout": 40})
    assert found.latency_with_failures_ms["p99"].value == 10.0
    assert found.after_pause_ms.value is None


@pytest.mark.parametrize(
    "samples",
    [pytest.param(blocks(40, 1), id="blocks of one"), pytest.param(blocks(4, 25, scenario="poisson"), id="a stream")],
)
def test_nothing_is_set_apart_of_single_blocks_and_of_streams(samples):
    found = scenario_report(samples[0].scenario, samples, slo_ms=200.0)
    assert found.after_pause_ms is None
    assert found.latency_ms["p50"].n == len(samples)


@pytest.mark.parametrize(
    ("torch", "cuda_build"),
    [
        pytest.param("2.14.1+cpu", False, id="the clouds' build"),
        pytest.param("2.14.1+cu132", True, id="the CUDA build"),
    ],
)
def test_too_much_memory_is_a_warning(torch, cuda_build):
    run, samples = make_run()
    version = {"versions": {"torch": torch}}
    run = replace(run, targets=[replace(t, peak_memory_mib=600.0, version=version) for t in run.targets])
    found = build_report(run, samples, PRICES)
    assert found["targets"]["heroku"]["memory"]["fits"] is False
    values = {"title": "Heroku", "peak_mib": 600.0, "limit_mib": 512, "cuda_build": cuda_build}
    assert findings(found) == [(FindingCode.MEMORY_EXCEEDED, "heroku", values)]


def test_units_that_a_targets_processor_may_lack_are_named():
    run, samples = make_run(names=["aws_ec2", "heroku", "heroku-onnx", "aws_ec2-onnx"])
    newer = {**run.client_environment, "instruction_sets": ["AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16"]}
    found = build_report(replace(run, client_environment=newer), samples, PRICES)
    units_by_title = {"Heroku (ONNX int8)": ["AVX-512", "AVX-512 VNNI"], "AWS EC2 (ONNX int8)": ["AVX-512 VNNI"]}
    assert of_code(found, FindingCode.UNITS_NOT_PROMISED) == {"units_by_title": units_by_title}
    assert FindingCode.UNITS_NOT_PROMISED not in codes(build_report(run, samples, PRICES))
    elsewhere = replace(run, targets=[replace(target, twin=False) for target in run.targets])
    assert FindingCode.UNITS_NOT_PROMISED not in codes(build_report(elsewhere, samples, PRICES))
    floats = [replace(target, version={"precision": "float32"}) for target in run.targets]
    in_floats = replace(run, client_environment=newer, targets=floats)
    assert FindingCode.UNITS_NOT_PROMISED not in codes(build_report(in_floats, samples, PRICES))


def test_the_plain_engine_of_the_model_is_in_no_title():
    run, samples = make_run(names=["heroku-onnx", "aws_ec2-onnx"])
    found = build_report(replace(run, reference_engine="onnx"), samples, PRICES)
    assert [target["title"] for target in found["targets"].values()] == ["Heroku", "AWS EC2"]
    assert "ONNX" not in found["verdict"]["tiles"][0]["note"]
    titles = [target["title"] for target in build_report(run, samples, PRICES)["targets"].values()]
    assert titles == ["Heroku (ONNX int8)", "AWS EC2 (ONNX int8)"]


def test_a_twin_that_shares_its_cores_with_the_client_is_named():
    run, samples = make_run()
    found = build_report(replace(run, client_environment={**run.client_environment, "cores": 2}), samples, PRICES)
    assert of_code(found, FindingCode.CPU_CONTENTION) == {"titles": ["AWS EC2"], "cores": 2}
    assert FindingCode.CPU_CONTENTION not in codes(build_report(run, samples, PRICES))


def test_other_machines_that_sent_open_loops_are_named():
    run, samples = make_run()
    clocks = [ClockRecord(3, 1000.5, 0.1), ClockRecord(4, 1000.5, 0.3)]
    one, idle = (SenderRecord(name, 2, 4, {}, {}, "0" * 64) for name in ("10.0.0.2", "10.0.0.3"))
    resumed = [replace(one, clocks=clocks), idle, replace(one, clocks=clocks[:1])]
    found = of_code(build_report(replace(run, senders=resumed), samples, PRICES), FindingCode.SENT_ELSEWHERE)
    assert found == {"machines": ["10.0.0.2"], "processes": 2, "uncertainty_ms": 0.3}
    assert FindingCode.SENT_ELSEWHERE not in codes(build_report(run, samples, PRICES))


def test_prices_older_than_180_days_are_named(plain):
    surplus = {"aws_ec2_t3_surplus_vcpu_hour": "2021-08-30"}
    assert of_code(plain, FindingCode.PRICES_STALE) == {"max_age_days": 180, "date_by_price": surplus}
    assert plain["run"]["prices"]["stale_days"] is None
    run, samples = make_run()
    later = build_report(replace(run, started_at="2027-11-21T00:00:00+00:00"), samples, PRICES)
    assert later["run"]["prices"]["stale_days"] == 357
    assert "heroku_basic_month" in of_code(later, FindingCode.PRICES_STALE)["date_by_price"]


def test_another_price_list_than_the_runs_is_a_warning():
    run, samples = make_run()
    found = build_report(replace(run, prices_sha256="0" * 64), samples, PRICES)
    assert FindingCode.PRICE_LIST_CHANGED in codes(found)


def test_foreign_endpoints_have_every_figure_but_costs():
    found = report(foreign=True, twin=False)
    facts = found["targets"]["heroku"]
    assert (facts["title"], facts["kind"], facts["vcpus"]) == ("heroku", None, None)
    assert facts["accuracy"]["value"] == 0.93
    for where, code in reasons(facts["cost"]):
        assert code == ReasonCode.CUSTOM_ENDPOINT, where
    assert set(facts["cost"]["monthly_usd"]) == {"10000", "1000000", "100000000"}
    assert found["break_even"] == []
    assert found["verdict"]["recommended"] is None
    assert found["verdict"]["answer"] == "aws_ec2 is fastest (one at a time); no prices are known."


def test_two_endpoints_of_one_target_are_told_apart():
    run, samples = make_run(names=["heroku"], n_images=40)
    twice = replace(run.targets[0], name="heroku-eu")
    both = samples + [replace(s, target="heroku-eu") for s in samples if s.target == "heroku"]
    found = build_report(replace(run, targets=[*run.targets, twice]), both, PRICES)
    assert [facts["title"] for facts in found["targets"].values()] == ["Heroku", "Heroku (heroku-eu)"]


def test_cost_says_what_was_measured(plain):
    measured = plain["targets"]["gcp_cloudrun"]["cost"]["measured"]
    _, samples = make_run()
    totals = [s.server_timing_ms["total"] for s in samples if s.target == "gcp_cloudrun" and s.phase == "measure"]
    assert measured["service_ms"] == pytest.approx(sum(totals) / len(totals), abs=1e-3)
    assert measured["billed_ms"] == pytest.approx(100)
    assert measured["startup_s"] == STARTUP_MS["gcp_cloudrun"] / 1000
    assert measured["response_bytes"] == ANSWER_BYTES


def test_inference_uses_two_cores_and_the_rest_one(plain):
    demand = plain["candidates"]["aws_ec2"]["demand_by_slowdown"]["1"]
    _, samples = make_run()
    taken = [s.server_timing_ms for s in samples if s.target == "aws_ec2" and s.phase == "measure"]
    cpu = sum(ms["total"] + ms["inference"] for ms in taken) / len(taken)
    assert demand["cpu_s"] * 1000 == pytest.approx(cpu, abs=1e-3)


def test_windows_are_rounded_request_by_request():
    run, samples = make_run(names=["gcp_cloudrun"])
    slow = [
        replace(s, server_timing_ms={"total": 150.0 if s.image_index % 2 else 50.0})
        if s.target == "gcp_cloudrun"
        else s
        for s in samples
    ]
    measured = build_report(run, slow, PRICES)["targets"]["gcp_cloudrun"]["cost"]["measured"]
    assert (measured["service_ms"], measured["billed_ms"]) == (100.0, 150.0)  # the mean alone would give 100


def test_cost_says_what_was_assumed(plain):
    for name, expected in {
        "aws_ec2": {"poisson_arrivals": {"hours_per_month": 730, "peak": 3.0}, "cloud_cpu_as_fast": {},
                    "cpu_time_of_cores": {"cores": 2}, "surplus_credits": {"baseline_vcpus": 0.4},
                    "response_headers": {"header_bytes": 500}, "list_prices": {"date": "2026-11-29"},
                    "unconfirmed_prices": None},
        "heroku": {"poisson_arrivals": {"hours_per_month": 730, "peak": 3.0}, "egress_not_metered": {},
                   "one_small_dyno": {"size": "basic"}},
        "gcp_cloudrun": {"billed_time_rounded": {},
                         "idle_instance_kept": {"timeout_s": 900, "min_timeout_s": 60, "assumed_startup_s": None},
                         "container_images_kept": {"gib": pytest.approx(0.2546, abs=1e-4), "libraries_measured": True,
                                                   "packed_fraction": 265 / 995, "base_mb": 50.0},
                         "free_allowances_unshared": {}},
        "gcp_function": {"billed_time_rounded": {}},
    }.items():  # fmt: skip
        assumed = {a["code"]: a["values"] for a in plain["targets"][name]["cost"]["assumptions"]}
        assert expected == {code: assumed.get(code) for code in expected}, name
    for name in ("aws_ec2", "heroku"):
        assert "scaled_by_client_time" in [a["code"] for a in plain["targets"][name]["cost"]["assumptions"]]


def test_traffic_beyond_max_instances_is_priced_and_reported():
    run, samples = make_run(names=["heroku"])
    slow = [replace(s, server_timing_ms={"total": 200.0}) if s.target == "heroku" else s for s in samples]
    cost = build_report(run, slow, PRICES)["targets"]["heroku"]["cost"]
    month = cost["monthly_usd"]["100000000"]
    assert (month["instances"], month["exceeds_max_instances"], month["net_usd"]) == (
        33,
        True,
        33 * 25,
    )  # 114.2 a second at the peak, 3.5 each
    (values,) = [a["values"] for a in cost["assumptions"] if a["code"] == AssumptionCode.EXCEEDS_MAX_INSTANCES]
    assert values == {"requests_per_month": 100_000_000, "instances": 33, "max_instances": 3}


def test_dollars_per_million_are_gross_at_a_mean_rate(plain):
    cost = plain["targets"]["heroku"]["cost"]
    assert cost["per_million"]["1"]["gross_usd"] == pytest.approx(7 / (SECONDS_PER_MONTH / 1e6), abs=1e-6)
    assert set(cost["per_million"]) == {"1", "10", "100"}


def test_idle_costs_nothing_only_where_a_target_scales_to_zero(plain):
    idle = {name: facts["cost"]["idle_usd_per_month"] for name, facts in plain["targets"].items()}
    assert idle == {"aws_ec2": pytest.approx(20.114), "heroku": 7.0, "gcp_cloudrun": 0.0, "gcp_function": 0.0}


@pytest.mark.parametrize("name", NAMES)
def test_bills_grow_with_traffic_and_net_is_never_above_gross(plain, name):
    cost = plain["targets"][name]["cost"]
    for key in ("gross_usd", "net_usd"):
        values = [point[key] for point in cost["curve"]]
        # Longer gaps mean more cold starts, so a little traffic may cost cents more than somewhat more of it.
        assert all(after >= before - 0.05 for before, after in pairwise(values))
    assert all(point["net_usd"] <= point["gross_usd"] for point in cost["curve"])
    assert (cost["curve"][0]["rps"], cost["curve"][-1]["rps"]) == (0.001, 10_000)


@pytest.mark.parametrize("reference", [True, False])
def test_pairs_of_many_targets_are_as_many_as_the_targets(reference):
    plain = [f"{name}-{number}" for name in NAMES for number in range(5)]
    names = [*plain, *(f"{name}-onnx" for name in plain[:3])]
    run, samples = make_run(n_images=2, names=names, foreign=True, warmup=0, reference=reference)
    targets = [replace(t, target=t.name.split("-")[0]) for t in run.targets]
    found = build_report(replace(run, targets=targets), samples, PRICES)
    engine_pairs = {(pair["a"], pair["b"]) for pair in found["engine_comparisons"]}
    assert len(engine_pairs) == 3 and {f"{a}|{b}" for a, b in engine_pairs} <= found["agreement"].keys()
    assert len(found["agreement"]) <= len(names) + len(engine_pairs)
    assert len({(point["a"], point["b"]) for point in found["break_even"]}) == len(names) - 1


def test_break_even_is_where_the_two_net_bills_meet(plain):
    points = {(p["a"], p["b"]): p for p in plain["break_even"]}
    assert len(points) == 6
    found = points["heroku", "gcp_cloudrun"]
    assert found["requests_per_month"] == pytest.approx(5.27e6, rel=0.02)
    assert found["rps"] == pytest.approx(found["requests_per_month"] / SECONDS_PER_MONTH, abs=1e-4)
    assert (found["cheaper_below"], found["cheaper_above"]) == ("gcp_cloudrun", "heroku")
    # At worst every request is billed its own 0.1 s: 4.14M; at best about 10 ms of it, which leaves 18 to 20M.
    assert found["requests_per_month_low"] == pytest.approx(4.1e6, rel=0.02)
    assert 10e6 < found["requests_per_month_high"] < 25e6
    assert found["may_be_absent"] is False
    curve = plain["targets"]["gcp_cloudrun"]["cost"]["curve"]
    near = min(curve, key=lambda point: abs(math.log(point["requests_per_month"] / found["requests_per_month"])))
    assert near["net_usd"] == pytest.approx(7, rel=0.5)


def test_a_pair_that_never_crosses_says_who_is_cheaper(plain):
    found = next(p for p in plain["break_even"] if (p["a"], p["b"]) == ("gcp_cloudrun", "gcp_function"))
    assert found["cheaper_below"] == found["cheaper_above"] == "gcp_cloudrun"  # a function needs more instances
    values = {"title": "Google Cloud Run", "min_rps": 0.001, "max_rps": 10_000}
    assert found["requests_per_month"] == to_jsonable(unavailable(ReasonCode.ALWAYS_CHEAPER, **values))


def test_never_dearer_is_said_of_the_whole_curve_alone():
    # A dyno serves 100 a second at the peak, a machine of $0.04 an hour 120: from 33.3 to 40 a second in the mean
    # (87.6M to 105M a month) two dynos for $50 stand against one machine for $34 and its surplus credits.
    run, samples = make_run(names=["heroku", "aws_ec2"], reference=False)
    dyno, machine = (
        build_cost_model(target_run, [s for s in samples if s.target == target_run.name], PRICES, max_rate_rps=rate)
        for target_run, rate in zip(run.targets, (100.0, 120.0), strict=True)
    )
    machine = replace(machine, prices=machine.prices | {"hour": replace(machine.prices["hour"], amount=0.04)})
    (found,) = break_even_points({"heroku": dyno, "aws_ec2": machine}, {"heroku": "Heroku", "aws_ec2": "EC2"})
    assert found.requests_per_month.reason.code == ReasonCode.CHEAPER_WITH_EXCEPTIONS
    assert found.requests_per_month.reason.values["title"] == "Heroku"
    assert found.requests_per_month.reason.values["low_requests"] == pytest.approx(87.6e6, rel=0.001)
