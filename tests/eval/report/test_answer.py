"""The words of the first screen."""

import dataclasses
from dataclasses import replace
from types import SimpleNamespace

import pytest

from eval.analysis.findings import FindingCode, invalid, warning
from eval.analysis.latency import RateSearchReport
from eval.analysis.predictions.accuracy import Agreement
from eval.analysis.predictions.same_model import SameModel
from eval.analysis.recommendation import recommend
from eval.analysis.report_model import Tile, Traffic
from eval.analysis.verdict_facts import VerdictFacts, verdict_report
from eval.codes import ReasonCode, reason
from eval.cost.billing import prices_for
from eval.cost.cost_model import cost_report
from eval.cost.price_list import load_price_list
from eval.report.answer import answer, answer_rows, answer_table, condition, rate_text, tiles, traffic_text
from eval.report.report_json import build_report
from eval.report.terminal import terminal_table
from eval.stats.comparison import Decision
from eval.stats.intervals import Estimate
from infra.targets import TARGETS, sagemaker_target
from tests.eval.analysis.test_recommendation import DAYTIME, candidate, four
from tests.helpers.synthetic_run import FOUR, make_run

LATE = invalid(FindingCode.CLIENT_SATURATED, titles=["Heroku"], max_p99_delay_ms=6.0, workers=1, cores=2)
RATES = {"a": 21.0, "b": 58.0}


def rate_search(max_rps):
    percentiles = {"p50": Estimate(9.0), "p95": Estimate(20.0)}
    fields = dict.fromkeys(field.name for field in dataclasses.fields(RateSearchReport))
    known = {"sent": 200, "succeeded": 200, "latency_with_failures_ms": percentiles, "max_rate_rps": Estimate(max_rps)}
    return RateSearchReport(**fields | known)


def target(title, succeeded=400, failure=None, p95_ms=20.0, engine="torch", **changes):
    """The part of a TargetReport that the answer reads."""
    scenario = SimpleNamespace(
        sent=400, succeeded=succeeded, latency_with_failures_ms={"p50": Estimate(9.0), "p95": Estimate(p95_ms)}
    )
    fields = {
        "title": title, "sent": 400, "succeeded": succeeded, "all_requests": 400, "failure": failure, "engine": engine,
        "errors": {"timeout": 400 - succeeded} if succeeded < 400 else {}, "accuracy": Estimate(0.93, n=400),
        "scenarios": {"single": scenario}, "cost": cost_report(reason(ReasonCode.CUSTOM_ENDPOINT)),
    }  # fmt: skip
    return SimpleNamespace(**fields | changes)


def agreement(disagreements=0, n=400):
    return Agreement(n, Estimate(1 - disagreements / n), disagreements=disagreements, max_abs_prob_diff=0.0)


def facts(targets=None, candidates=None, *, traffic=DAYTIME, twins=True, **changes):
    candidates = four() if candidates is None else candidates
    targets = targets or {name: target(TARGETS[name].title) for name in FOUR}
    known = VerdictFacts(
        targets, {f"{name}|reference": agreement() for name in targets}, True, None, [], twins,
        recommend(candidates, traffic, 200.0), candidates, None, traffic,
    )  # fmt: skip
    return replace(known, **changes)


def test_answer_names_traffic_target_and_dollars():
    assert answer(facts(traffic=Traffic(10.0, 24.0))) == "At 10 a second, all day, take Heroku: $7.00 a month."


def test_condition_names_the_engine_where_there_are_several():
    pair = {"heroku": candidate("heroku"), "heroku-onnx": candidate("heroku", engine="onnx")}
    found = facts(candidates=pair, recommendation=recommend({"heroku-onnx": pair["heroku-onnx"]}, DAYTIME, 200.0))
    assert condition(found).startswith("With ONNX int8. ")


def test_an_accuracy_that_nobody_knows_is_not_zero():
    unknown = Estimate(None, reason=reason(ReasonCode.NO_RESPONSES))
    two = {"a": target("A", accuracy=unknown), "b": target("B")}
    assert tiles(facts(two, {}), [], golden=False)[0].value == "93.00%"
    assert tiles(facts({"a": two["a"]}, {}), [], golden=False)[0].value == "not known"


def test_condition_names_the_next_and_what_the_answer_stands():
    text = condition(facts(traffic=Traffic(10.0, 24.0)))
    assert text == (
        "Next: AWS EC2 at $20.11. The answer holds on a processor up to 8 times slower than this machine's, at $75.00."
    )


def test_an_answer_with_a_warm_instance_names_its_setting():
    candidates = {name: candidate(name) for name in ("gcp_cloudrun", "gcp_function", "aws_ec2")}
    found = facts(candidates=candidates, traffic=Traffic(1 / 3600, 24.0), twins=False)
    assert answer(found) == "At 1 an hour, all day, take Google Cloud Run: $13.14 a month."
    assert condition(found) == (
        "With one instance always warm (cloudtrial:minInstances 1). "
        "Google Cloud Functions (always warm) costs the same."
    )
    run, _, ec2 = answer_rows(candidates, found.recommendation.options, found.recommendation.ranked)
    assert (run.usd, run.cold_fraction, run.always_warm) == ("$13.14", "never", "always warm")
    assert ec2.always_warm == ""


def test_what_a_warm_instance_would_cost_stands_beside_the_bill():
    found = facts()
    rows = answer_rows(found.candidates, found.recommendation.options, found.recommendation.ranked)
    notes = {row.name: row.always_warm for row in rows}
    assert notes == {"heroku": "", "aws_ec2": ""} | dict.fromkeys(
        ("gcp_cloudrun", "gcp_function"), "always warm: $12.72"
    )


@pytest.mark.parametrize("changes", [{"complete": False}, {"invalid": [LATE]}])
def test_a_run_without_an_answer_recommends_nothing(changes):
    found = facts(twins=False, vs_fastest=dict.fromkeys(("heroku",), Decision.DIFFERENT), **changes)
    verdict = verdict_report(found)
    assert answer_table(found).rows == []
    assert (verdict.recommended, verdict.runner_up, verdict.fastest, verdict.tied) == (None, None, None, False)
    assert answer_table(facts()).rows and verdict_report(facts()).recommended


def test_targets_that_cost_the_same_are_named():
    assert condition(facts(twins=False)) == "Google Cloud Run costs the same."


def test_an_answer_without_p95_says_that_the_bill_alone_decides():
    short = {name: candidate(name, p95_ms=None) for name in ("heroku", "aws_ec2")}
    found = facts(candidates=short)
    assert condition(found) == "P95 not known (needs n >= 72, have 50): by the bill alone. Next: AWS EC2 at $20.11."
    assert answer_table(found).taken_for == "cheapest of those that fit, by the bill alone, as p95 is not known"
    assert answer_table(facts()).taken_for == "cheapest of those that fit, and keep p95 within 200 ms"


def test_a_median_above_the_objective_is_told():
    slow = {"heroku": candidate("heroku", p95_ms=None, p50_low_ms=659.0)}
    found = facts(candidates=slow)
    assert answer(found) == "At 1 a second, 8 h a day, no target qualifies."
    assert condition(found) == "Left out: Heroku (p50 659 ms or more)."
    assert answer_table(found).taken_for == ""
    (row,) = answer_table(found).rows
    assert (row.p95, row.within) == ("not known", "no")


def test_p95_unknown_for_want_of_a_start_is_told():
    serverless = sagemaker_target("serverless-2048")
    unit_prices = {role: price.amount for role, price in prices_for(serverless, load_price_list()).items()}
    changes = {"target": serverless, "unit_prices": unit_prices, "startup_measured": False}
    unstarted = {"aws_sagemaker": candidate("aws_sagemaker", **changes)}
    targets = {"aws_sagemaker": target("AWS SageMaker")}
    found = facts(targets, unstarted, traffic=Traffic(1 / 3600, 24.0), twins=False)
    assert condition(found).startswith("P95 not known (it is that of a cold start, and no start was measured)")
    assert answer_table(found).taken_for == ("cheapest of those that fit, and keep p95 within 200 ms where it is known")


def test_a_start_that_was_not_measured_is_not_called_never():
    names = ("gcp_cloudrun", "heroku")
    found = facts(candidates={name: candidate(name, startup_measured=False) for name in names})
    starts = {row.name: (row.cold_fraction, row.cold_start) for row in answer_table(found).rows}
    assert starts == {"gcp_cloudrun": ("< 0.1%", "not measured"), "heroku": ("never", "")}


def test_no_processor_is_doubted_where_the_cloud_was_measured():
    assert "slower" not in condition(facts(twins=False))


def test_where_no_target_qualifies_each_says_why():
    found = facts(candidates={"heroku": candidate("heroku", p95_ms=312.0)})
    assert answer(found) == "At 1 a second, 8 h a day, no target qualifies."
    assert condition(found) == "Left out: Heroku (p95 312 ms)."


def test_an_invalid_comparison_is_only_that():
    found = facts(invalid=[LATE])
    assert answer(found) == "Not a valid comparison: no answer."
    assert condition(found).startswith("The client had too little processor time and sent late to Heroku")


def test_an_interrupted_run_is_only_that_with_its_cure():
    found = facts(complete=False, note="interrupted from the keyboard")
    assert answer(found) == "Incomplete run: no answer yet."
    assert "interrupted from the keyboard" in condition(found) and "--resume" in condition(found)


def test_a_run_that_goes_on_is_not_said_to_have_ended():
    assert condition(facts(complete=False, note="running")).startswith("It is still running, or was killed. ")


def test_failures_of_all_are_told_once():
    dead = {name: target(TARGETS[name].title, 0, "port 1 was never opened") for name in ("heroku", "aws_ec2")}
    found = facts(dead, {})
    assert answer(found) == "No target answered."
    assert condition(found) == "Heroku and AWS EC2 answered none of 400: port 1 was never opened."
    trust = tiles(found, [], golden=False)[2]
    assert (trust.value, trust.note) == ("no", "800 of 800 requests failed")


def test_twins_have_no_fastest():
    apart = dict.fromkeys(("heroku", "gcp_cloudrun", "gcp_function"), Decision.DIFFERENT)
    assert facts(vs_fastest=apart).fastest() is None
    assert facts(vs_fastest=apart, twins=False).fastest() == "aws_ec2"
    near = apart | {"heroku": Decision.UNDECIDED}
    assert facts(vs_fastest=near, twins=False).fastest() is None


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Decision.DIFFERENT, "A is fastest (one at a time); no prices are known."),
        (Decision.UNDECIDED, "None is shown to be fastest (one at a time); no prices are known."),
    ],
)
def test_endpoints_without_prices_are_compared_by_speed(decision, text):
    pair = {"a": target("A", p95_ms=10.0), "b": target("B", p95_ms=30.0)}
    assert answer(facts(pair, {}, twins=False, vs_fastest={"b": decision})) == text


def test_one_endpoint_without_a_price_has_its_figures():
    alone = facts({"a": target("A")}, {}, twins=False)
    assert answer(alone) == "A: p95 20.0 ms (one at a time), 93.00% correct."
    assert condition(alone) == "No target has a price. One gets it by --priced-as, as in a=gcp_cloudrun:1:1024."


def test_what_is_priced_as_a_target_says_why_it_has_no_price():
    untold = cost_report(reason(ReasonCode.NO_SERVER_TIMING))
    targets = {"a": target("A", cost=untold), "b": target("B", cost=untold), "c": target("C")}
    assert condition(facts(targets, {}, twins=False)).startswith(
        "No target has a price: no response has the service time (Server-Timing: total), and too few round trips were"
    )
    targets["b"] = target("B", cost=cost_report(reason(ReasonCode.PRICE_UNKNOWN, detail="not sold there")))
    assert condition(facts(targets, {}, twins=False)).endswith("from the client's) and B (not sold there).")


def test_one_endpoint_on_the_golden_set_is_held_to_the_model():
    golden = {"a": target("A", accuracy=Estimate(None, reason=reason(ReasonCode.GOLDEN_SET)))}
    found = answer(facts(golden, {}, twins=False, agreement={"a|reference": agreement(3)}))
    assert found == "A: p95 20.0 ms (one at a time), 397 of 400 as the model itself."
    assert len(found.split()) <= 15


def test_endpoints_of_a_rate_search_alone_have_their_rates():
    searched = {name: target(name.upper(), scenarios={"max_rate": rate_search(rps)}) for name, rps in RATES.items()}
    assert answer(facts(searched, {}, twins=False)) == "Highest rate with p95 within 200 ms: B 58.0/s and A 21.0/s."
    third = searched | {"c": target("C", scenarios={"max_rate": rate_search(7.0)})}
    assert answer(facts(third, {}, twins=False)) == "Highest rate with p95 within 200 ms: 7.00/s to 58.0/s."


def test_tiles_of_a_run_without_a_fault():
    assert tiles(facts(), [], golden=False) == (
        Tile("Correct", "93.00%", "PyTorch: of 400 images"),
        Tile("Same answers everywhere", "yes",
             "0 of 400 images differ between targets of one engine, or from the model itself"),
        Tile("Can this run be trusted?", "yes", "0 of 1,600 requests failed"),
    )  # fmt: skip


def test_no_engine_is_named_that_is_not_known():
    own = {"a": target("A", engine=None), "b": target("B", engine=None)}
    correct, same, _ = tiles(facts(own, {}, agreement={"a|b": agreement()}), [], golden=False)
    assert (correct.value, correct.note) == ("93.00%", "of 400 images")
    assert same.note == "0 of 400 images differ between targets; not checked against the model itself"
    mixed = own | {"c": target("C", engine="onnx", accuracy=Estimate(0.9, n=400))}
    correct, *_ = tiles(facts(mixed, {}), [], golden=False)
    assert (correct.value, correct.note) == ("93.00% · 90.00%", "engine not known · ONNX int8: of 400 images")


def test_golden_set_tells_no_accuracy():
    found = facts({"heroku": target("Heroku")}, agreement={"heroku|reference": agreement(1)})
    correct, *_ = tiles(found, [], golden=True)
    assert correct.value == "399 of 400" and "no accuracy" in correct.note


def test_tiles_name_who_differs_and_what_to_know():
    found = facts(agreement={"heroku|reference": agreement(2), "aws_ec2|reference": agreement()})
    remarks = [warning(FindingCode.NO_REFERENCE), warning(FindingCode.CACHE_SUSPECTED, titles=["Heroku"])]
    _, same, trust = tiles(found, remarks, golden=False)
    assert (same.value, same.note) == ("no", "Heroku and the reference: 2 of 400 images")
    assert trust.value == "yes, 2 remarks"


def agreement_tile(**changes):
    return tiles(facts(**changes), [], golden=False)[1]


def test_another_engine_is_told_by_its_difference_from_the_model():
    names = ["heroku", "aws_ec2", "heroku-onnx", "aws_ec2-onnx"]
    targets = {name: target(name, engine="onnx" if "-onnx" in name else "torch") for name in names}
    pairs = {
        "heroku|aws_ec2": agreement(0, 10_000),
        "heroku-onnx|aws_ec2-onnx": agreement(0, 10_000),
        "heroku|heroku-onnx": agreement(40, 10_000),
        **{f"{name}|reference": agreement(40 if "-onnx" in name else 0, 10_000) for name in names},
    }
    assert agreement_tile(targets=targets, agreement=pairs) == Tile(
        "Same answers everywhere",
        "yes, but for rounding",
        "0 of 10,000 images differ between targets of one engine, or with PyTorch from the model itself; "
        "ONNX int8: 40 of 10,000 images differ from the model, by rounding",
    )
    among_themselves = {pair: found for pair, found in pairs.items() if "reference" not in pair}
    assert agreement_tile(targets=targets, agreement=among_themselves).note == (
        "0 of 10,000 images differ between targets of one engine; "
        "ONNX int8: 40 of 10,000 images differ from PyTorch, by rounding; not checked against the model itself"
    )


def test_an_engine_too_far_for_so_few_images_is_not_decided():
    found = agreement_tile(
        targets={"heroku-onnx": target("Heroku (ONNX int8)", engine="onnx")},
        agreement={"heroku-onnx|reference": agreement(45, 50)},
        same_models={"heroku-onnx|reference": SameModel(50, 0.22, 0.94, differs_often=True)},
    )
    assert (found.value, found.note) == (
        "not decided",
        "ONNX int8: 45 of 50 images differ from the model; whether it is the same is not decided",
    )


def test_one_target_is_held_to_the_model_in_a_sentence():
    found = agreement_tile(targets={"heroku": target("Heroku")})
    assert (found.value, found.note) == ("yes", "0 of 400 images differ from the model itself")


@pytest.mark.parametrize(("rps", "text"), [(1 / 3600, "1 an hour"), (0.5, "0.5 a second"), (1000.0, "1,000 a second")])
def test_rates_are_told_by_the_second_or_the_hour(rps, text):
    assert rate_text(rps) == text


def test_traffic_that_never_rests_is_all_day():
    assert traffic_text(Traffic(5.0, 24.0)) == "5 a second, all day"
    assert traffic_text(Traffic(5.0, 2.5)) == "5 a second, 2.5 h a day"


def test_terminal_has_one_line_a_target_with_its_figures():
    run, samples = make_run()
    assert terminal_table(build_report(run, samples, load_price_list())) == [
        "                        $ a month      p95    errors  fits memory",
        "AWS EC2                    $20.11  11.1 ms  0 of 400          yes",
        "Heroku                      $7.00  17.9 ms  0 of 400          yes",
        "Google Cloud Run               $0  17.2 ms  0 of 400          yes",
        "Google Cloud Functions         $0  21.3 ms  0 of 400          yes",
    ]


def test_terminal_accuses_no_memory_that_the_answer_does_not():
    run, samples = make_run(names=["heroku"])
    (heroku,) = run.targets
    heroku = replace(heroku, peak_memory_mib=600.0, version={**heroku.version, "versions": {"torch": "2.14.1+cu130"}})
    report = build_report(replace(run, targets=[heroku]), samples, load_price_list())
    assert report["targets"]["heroku"]["memory"]["fits"] is False
    assert terminal_table(report)[1].endswith("n/a")
