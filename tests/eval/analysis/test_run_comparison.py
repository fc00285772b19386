"""Two made-up runs, of which it is known what differs."""

import dataclasses
import hashlib
import json
import math

import pytest

from eval.__main__ import main
from eval.analysis.comparability import incompatibilities, processor_notices
from eval.analysis.findings import FindingCode, Severity
from eval.analysis.latency import max_rate
from eval.analysis.run_comparison import MIN_JUDGED_BLOCKS, RunData, Thresholds, compare_runs, machine_findings
from eval.analysis.summary import analyse_run
from eval.codes import ReasonCode, reason
from eval.cost import price_list as price_module
from eval.cost.price_list import PRICE_LIST_PATH, load_price_list
from eval.dataset.golden import GOLDEN_SOURCE
from eval.samples.model import SenderRecord
from eval.samples.store import append_sample, write_run
from eval.stats.comparison import Decision
from tests.helpers.synthetic_run import make_run
from tests.helpers.synthetic_scenarios import make_full_run

pytestmark = pytest.mark.integration

NAMES = ("heroku", "gcp_cloudrun")
FOUR = ("aws_ec2", "heroku", "gcp_cloudrun", "gcp_function")
LIMITS = Thresholds()
ELSEWHERE = SenderRecord("10.0.0.2", 1, 2, {}, {}, "0" * 64)


def a_run(instances=7, **options):
    """Of as many instances of each target, one after the other."""
    run, samples = make_run(**{"names": NAMES, "n_images": 500} | options)
    n_blocks = max(s.block for s in samples) + 1
    return run, [
        dataclasses.replace(s, instance_id=s.instance_id and f"{s.target}-{s.block * instances // n_blocks}")
        for s in samples
        if s.phase == "measure"
    ]


def slowed(samples, factor, target="heroku"):
    """The same run with one target slower, or all of them (None), the service too."""
    return [
        dataclasses.replace(s, latency_ms=s.latency_ms * factor, service_time_ms=s.service_time_ms * factor,
                            server_timing_ms={part: ms * factor for part, ms in s.server_timing_ms.items()})
        if target in (s.target, None) else s
        for s in samples
    ]  # fmt: skip


def failing(samples, every, target="heroku"):
    """The same run with every so-manieth request to one target failed."""
    return [
        dataclasses.replace(s, error="http_5xx", predicted_class=None, probabilities=None, server_timing_ms={})
        if s.target == target and s.image_index % every == 0 else s
        for s in samples
    ]  # fmt: skip


def words(capsys):
    """What was printed, on one line: lines end at 80 columns."""
    return " ".join(capsys.readouterr().out.split())


def side(run, samples, prices=None):
    return RunData("a folder", run, samples, prices or load_price_list())


def compared(a, b, limits=LIMITS):
    found = compare_runs(side(*a), side(*b), limits)
    return {(d.target, d.metric): d for d in found}


def written(folder, run, samples):
    folder.mkdir()
    write_run(folder, run)
    with (folder / "samples.jsonl").open("w") as file:
        for sample in samples:
            append_sample(file, sample)
    return str(folder)


@pytest.fixture
def pair(tmp_path):
    """Writes two runs and gives their folders."""

    def write(a, b):
        return written(tmp_path / "before", *a), written(tmp_path / "after", *b)

    return write


# What is found


def test_a_run_is_no_worse_than_itself():
    found = compared(a_run(), a_run())
    assert {figure for _, figure in found} == {"p50", "p95", "p99", "failed", "accuracy", "cost"}
    for d in found.values():
        assert (d.change, d.regressed, d.reason, d.p_holm) == (0, False, None, 1.0)


def test_another_run_of_the_same_is_no_worse():
    found = compared(a_run(seed=1), a_run(seed=2, wrong=35))
    assert not any(d.regressed for d in found.values())


def test_a_slower_target_is_worse_and_the_others_are_not():
    run, samples = a_run()
    other, again = a_run(seed=3)
    found = compared((run, samples), (other, slowed(again, 1.25)))
    assert [key for key, d in found.items() if d.regressed] == [("heroku", "p95")]
    d = found["heroku", "p95"]
    assert d.low < 0.25 < d.high and d.low > 0.1
    assert (d.n_a, d.n_b, d.decision) == (475, 475, Decision.DIFFERENT)  # the first of each block is apart
    assert found["heroku", "p50"].significant and not found["heroku", "p50"].regressed  # shown, not judged


def test_within_the_limit_slower_is_no_worse_however_sure():
    run, samples = a_run(spread=0.05)
    d = compared((run, samples), (run, slowed(samples, 1.08)))["heroku", "p95"]
    assert d.significant and not d.regressed
    tight = dataclasses.replace(LIMITS, max_p95_increase=0.05)
    assert compared((run, samples), (run, slowed(samples, 1.08)), tight)["heroku", "p95"].regressed


def test_beyond_the_limit_but_by_chance_is_no_worse():
    a, b = a_run(n_images=200, spread=0.8, seed=1), a_run(n_images=200, spread=0.8, seed=5)
    loose = dataclasses.replace(LIMITS, max_p95_increase=0.0)
    beyond = [d for d in compared(a, b, loose).values() if d.metric == "p95" and d.change > 0]
    assert beyond and not any(d.regressed for d in beyond)


def test_a_target_that_fails_more_often_is_worse():
    run, samples = a_run()
    found = compared((run, samples), (run, failing(samples, 10)))
    assert found["heroku", "failed"].regressed and found["heroku", "failed"].change == pytest.approx(0.1)
    assert found["heroku", "p95"].regressed and found["heroku", "p95"].b == math.inf
    assert not found["gcp_cloudrun", "failed"].regressed


def test_one_outage_is_told_and_proves_no_rate_of_failures():
    found = compared(a_run(), a_run(failures={"heroku": 40}))  # two blocks of 20
    failed = found["heroku", "failed"]
    assert (failed.b, failed.details["failing_blocks_b"], failed.significant) == (0.08, 2, False)
    assert found["heroku", "p95"].b == math.inf and not found["heroku", "p95"].significant


def test_a_target_that_ended_early_is_worse():
    run, samples = a_run()
    ended = [dataclasses.replace(t, failure="its process ended" if t.name == "heroku" else None) for t in run.targets]
    found = compared((run, samples), (dataclasses.replace(run, targets=ended), samples))
    assert found["heroku", "measured"].regressed
    assert found["heroku", "measured"].reason == reason(ReasonCode.ENDED_EARLY, run="B", failure="its process ended")
    back = compared((dataclasses.replace(run, targets=ended), samples), (run, samples))
    assert not back["heroku", "measured"].regressed


def test_a_target_that_answers_nothing_is_worse():
    run, samples = a_run(n_images=100)  # four blocks: too few to judge a rate of failures
    dead = failing(samples, 1)
    found = compared((run, samples), (run, dead))
    assert found["heroku", "measured"].regressed
    unanswered = reason(ReasonCode.NOT_MEASURED, runs=["B"], failure="no request was answered")
    assert found["heroku", "measured"].reason == unanswered
    assert ("gcp_cloudrun", "measured") not in found and ("heroku", "measured") not in compared(
        (run, dead), (run, dead)
    )


def test_of_two_models_a_golden_set_tells_no_accuracy():
    golden = [
        (dataclasses.replace(run, images_source=GOLDEN_SOURCE), samples)
        for run, samples in (
            a_run(wrong=0), a_run(wrong=0, disagreements={"heroku": 60}),
            a_run(wrong=0, disagreements={"heroku": 60}, model_versions={"heroku": "ffff"}),
        )
    ]  # fmt: skip
    assert compared(*golden[:2])["heroku", "accuracy"].regressed  # the same model: its deployment is at fault
    d = compared(golden[0], golden[2])["heroku", "accuracy"]
    assert (d.regressed, d.threshold, d.reason) == (False, None, reason(ReasonCode.GOLDEN_SET))


def test_rounds_keep_their_numbers_where_one_failed_as_a_whole():
    run, samples = a_run()
    first = min(s.block for s in samples if s.target == "heroku" and s.phase == "measure" and s.block >= 0)
    cut = [dataclasses.replace(s, error="timeout") if (s.target, s.block) == ("heroku", first) else s for s in samples]
    whole, lacking = (side(run, each).service_times("heroku", "single") for each in (samples, cut))
    assert set(whole) - set(lacking) == {0} and all(lacking[n] == whole[n] for n in lacking)


def test_accuracy_is_compared_on_the_same_images():
    found = compared(a_run(wrong=20), a_run(wrong=20, disagreements={"heroku": 30}))
    d = found["heroku", "accuracy"]
    assert d.regressed and d.details == {"only_a_correct": 30, "only_b_correct": 0}
    assert (d.a, d.b, d.change) == (0.96, 0.9, pytest.approx(-0.06))
    assert not found["gcp_cloudrun", "accuracy"].regressed


def test_a_better_accuracy_is_not_worse():
    found = compared(a_run(disagreements={"heroku": 30}), a_run())
    assert found["heroku", "accuracy"].significant and not found["heroku", "accuracy"].regressed


def test_a_target_that_is_gone_is_worse():
    found = compared(a_run(), a_run(not_started={"heroku": "it would not listen"}))
    assert found["heroku", "measured"].regressed
    not_measured = reason(ReasonCode.NOT_MEASURED, runs=["B"], failure="it would not listen")
    assert found["heroku", "measured"].reason == not_measured


def test_a_twin_that_did_not_start_is_worse_and_not_incompatible(pair, capsys):
    assert main(["compare", *pair(a_run(), a_run(not_started={"heroku": "it would not listen"}))]) == 1
    assert "B is worse than A: heroku was not measured in B: it would not listen" in words(capsys)


def test_too_few_requests_have_a_reason():
    found = compared(a_run(n_images=60), a_run(n_images=60))
    assert found["heroku", "p95"].reason == reason(ReasonCode.TOO_FEW_SAMPLES_IN_BOTH, needed=72, n_a=57, n_b=57)


def test_below_six_blocks_accuracy_and_flat_bills_are_judged():
    run, samples = a_run(n_images=100)  # 5 blocks of 20
    found = compared((run, samples), (run, failing(slowed(samples, 3), 4)))
    too_few = reason(ReasonCode.TOO_FEW_BLOCKS_IN_BOTH, needed=MIN_JUDGED_BLOCKS, n_a=5, n_b=5)
    assert [d.metric for (name, _), d in found.items() if name == "heroku" and d.p is not None] == ["accuracy", "cost"]
    for metric in ("p50", "p95", "failed"):
        d = found["heroku", metric]
        assert d.a is not None and (d.p, d.reason, d.regressed) == (None, too_few, False)


# The machine


def test_what_all_targets_share_is_the_machine_not_the_change():
    a, (run, samples) = a_run(names=FOUR, seed=1), a_run(names=FOUR, seed=2)
    found = compare_runs(side(*a), side(run, slowed(samples, 1.3, None)), LIMITS)
    assert not any(d.regressed or d.improved for d in found)
    assert all(d.machine == pytest.approx(0.3, abs=0.08) for d in found if d.metric in ("p50", "p95"))
    (told,) = machine_findings(found)
    assert told.code == FindingCode.MACHINE_CHANGED and told.values["n_targets"] == 4
    assert told.values["changes_by_scenario"]["single"]["p50"] == pytest.approx(0.3, abs=0.03)


def test_a_change_is_found_on_a_machine_that_changed_too():
    a, (run, samples) = a_run(names=FOUR, seed=1), a_run(names=FOUR, seed=2)
    found = compare_runs(side(*a), side(run, slowed(slowed(samples, 0.7, None), 1.4)), LIMITS)
    worse = {(d.target, d.metric): d for d in found if d.regressed}
    assert worse.keys() == {("heroku", "p95")} and worse["heroku", "p95"].change < 0.05
    assert worse["heroku", "p95"].own == pytest.approx(0.4, abs=0.1)
    assert [finding.code for finding in machine_findings(found)] == [FindingCode.MACHINE_CHANGED_TOO]


def test_a_slower_machine_makes_no_bill_dearer():
    limits = dataclasses.replace(LIMITS, requests_per_month=30_000_000)
    a, (run, samples) = a_run(names=FOUR, seed=1), a_run(names=FOUR, seed=2)
    found = {
        d.target: d for d in compare_runs(side(*a), side(run, slowed(samples, 12, None)), limits) if d.metric == "cost"
    }
    dearer = found["gcp_cloudrun"]
    assert dearer.change > 0.3 and abs(dearer.own) < 0.1 and not dearer.significant
    effects = [value for name, value in dearer.details.items() if name.endswith("effect_usd")]
    assert sum(effects) == pytest.approx(dearer.b - dearer.a) and dearer.details["machine_effect_usd"] > 0


def test_of_one_target_a_change_is_shown_and_not_judged(pair, capsys):
    a, (run, samples) = a_run(names=("heroku",)), a_run(names=("heroku",), seed=9)
    folders = pair(a, (run, slowed(samples, 2)))
    assert main(["compare", *folders]) == 0
    out = words(capsys)
    assert "the machine cannot be told from a change of heroku" in out.lower()
    assert "not judged: p95 of heroku" in out and "p95 single" in out
    assert main(["compare", "--steady-machine", *folders]) == 1
    assert "B is worse than A: heroku's p95 (single)" in words(capsys)


# Cost


def dearer(prices, factor):
    return dataclasses.replace(
        prices, entries=tuple(dataclasses.replace(p, amount=p.amount * factor) if p.currency else p for p in
                              prices.entries))  # fmt: skip


def test_a_difference_in_cost_is_split_into_price_and_speed():
    run, samples = a_run()
    prices = load_price_list()
    limits = dataclasses.replace(LIMITS, requests_per_month=10_000_000)
    found = compare_runs(
        side(run, samples), side(run, slowed(samples, 20, "gcp_cloudrun"), dearer(prices, 1.5)), limits
    )
    cost = next(d for d in found if (d.target, d.metric) == ("gcp_cloudrun", "cost"))
    assert cost.regressed
    assert cost.details["price_effect_usd"] == pytest.approx(0.5 * cost.a)
    assert cost.details["price_effect_usd"] + cost.details["speed_effect_usd"] == pytest.approx(cost.b - cost.a)
    assert cost.details["speed_effect_usd"] > 0


def test_flat_rate_dyno_cost_changes_only_with_its_price():
    run, samples = a_run()
    found = compare_runs(side(run, samples), side(run, slowed(samples, 1.5), dearer(load_price_list(), 1.2)), LIMITS)
    cost = next(d for d in found if (d.target, d.metric) == ("heroku", "cost"))
    assert cost.regressed and (cost.low, cost.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert cost.details["speed_effect_usd"] == 0


def own_service(samples, rtt_ms=2.0):
    """The same run of services that tell no time of their own, with as many round trips as a run has."""
    told = [dataclasses.replace(s, server_timing_ms={}) for s in samples]
    first = {s.target: s for s in told if s.scenario == "single"}
    round_trips = {"scenario": "baseline_rtt", "image_index": -1, "service_time_ms": rtt_ms, "latency_ms": rtt_ms}
    return told + [dataclasses.replace(s, **round_trips, index_in_block=i) for s in first.values() for i in range(50)]


def test_a_service_that_tells_no_time_is_priced_as_in_its_report():
    (run, samples), limits = a_run(names=FOUR, twin=False), dataclasses.replace(LIMITS, requests_per_month=100_000_000)
    own, slower = own_service(samples), own_service(slowed(samples, 3.0, target="gcp_function"))
    found = compared((run, own), (run, slower), limits)
    assert [d.target for d in found.values() if d.metric == "cost" and d.regressed] == ["gcp_function"]
    d = found["gcp_function", "cost"]
    assert 0.5 < d.low <= d.own <= d.high and d.reason is None  # requests and traffic cost what they did
    report = analyse_run(run, own, load_price_list()).facts.targets["gcp_function"].cost
    assert d.a == pytest.approx(report.monthly_usd["100000000"].gross_usd, rel=1e-3)


@pytest.mark.parametrize("scenarios", [("single", "max_rate"), ("max_rate",)])
def test_a_search_by_several_instances_is_priced_as_reported(scenarios):
    name, requests = "aws_sagemaker", 100_000_000
    run, samples = make_full_run(200, names=(name,), scenarios=scenarios, twin=False)
    samples = [s for s in samples if s.phase == "measure"]
    spread = [
        dataclasses.replace(s, instance_id=f"{i % 3}") if s.scenario == "max_rate" else s for i, s in enumerate(samples)
    ]
    report = analyse_run(run, spread, load_price_list()).facts.targets[name]
    data = RunData("a folder", run, spread, load_price_list(), {name: max_rate(report.scenarios)})
    found = compare_runs(data, data, dataclasses.replace(LIMITS, requests_per_month=requests))
    cost = next(d for d in found if d.metric == "cost")
    bill = report.cost.monthly_usd[str(requests)]
    assert cost.a == pytest.approx(bill.gross_usd, rel=1e-3) and cost.details["instances_a"] == bill.instances > 1


def test_without_round_trips_such_a_service_has_no_bill():
    run, samples = a_run(twin=False)
    untold = [dataclasses.replace(s, server_timing_ms={}) for s in samples]
    cost = compared((run, untold), (run, untold))["gcp_cloudrun", "cost"]
    assert cost.a is None and cost.reason == reason(ReasonCode.NO_SERVER_TIMING)


def test_bills_that_differ_by_less_than_a_cent_are_equal():
    run, samples = a_run(n_images=100, names=("aws_ec2",))  # too few blocks for anything but such a bill
    longer = [dataclasses.replace(s, response_bytes=s.response_bytes + 3) for s in samples]
    cost = compared((run, samples), (run, longer))["aws_ec2", "cost"]
    assert 0 < cost.b - cost.a < 0.001
    assert (cost.p, cost.significant, cost.decision) == (1.0, False, Decision.EQUIVALENT)


def test_bills_of_other_instances_have_no_percentage(pair, capsys):
    # Heroku at 100 million a month: 3 dynos, and 4 where requests take 1.6 times as long.
    run, samples = a_run(names=("heroku",))
    arguments = [
        *pair((run, samples), (run, slowed(samples, 1.6))),
        "--requests-per-month",
        "100000000",
        "--steady-machine",
    ]
    assert main(["compare", *arguments]) == 1
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("  cost ")]
    assert "3 → 4 instances" in row and "%" not in row.replace("+0.0%", "")  # of the machine, which is steady
    assert "$75.00 to $100.00, 3 → 4 instances" in " ".join(out.split())
    assert main(["compare", *arguments, "--format", "json"]) == 1
    (cost,) = [d for d in json.loads(capsys.readouterr().out)["differences"] if d["metric"] == "cost"]
    assert (cost["details"]["instances_a"], cost["details"]["instances_b"]) == (3, 4)


def test_each_run_is_priced_by_the_list_that_it_holds(tmp_path, monkeypatch, capsys, pair):
    old = PRICE_LIST_PATH.read_bytes()
    new = old.replace(b"id: heroku_basic_month\n    amount: 7\n", b"id: heroku_basic_month\n    amount: 14\n")
    assert new != old
    listed = tmp_path / "prices.yaml"
    listed.write_bytes(new)
    kept = tmp_path / "prices"
    kept.mkdir()
    (kept / "2026-11-20.yaml").write_bytes(old)
    monkeypatch.setattr(price_module, "PRICE_LIST_PATH", listed)
    monkeypatch.setattr(price_module.load_price_list, "__defaults__", (listed, None))
    run, samples = a_run()
    later = dataclasses.replace(run, prices_sha256=hashlib.sha256(new).hexdigest())
    assert main(["compare", *pair((run, samples), (later, samples)), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (cost,) = [d for d in found["differences"] if d["regressed"]]
    assert (cost["target"], cost["metric"], cost["a"], cost["b"]) == ("heroku", "cost", 7.0, 14.0)


def test_a_list_that_is_not_kept_is_told(pair, capsys):
    run, samples = a_run(n_images=100)
    old = dataclasses.replace(run, prices_sha256="f" * 64)
    assert main(["compare", *pair((old, samples), (run, samples))]) == 0
    assert "A's price list (sha256 ffffffffffff) is not available" in words(capsys)


# The command


def test_no_worse_is_exit_0_and_one_sentence(pair, capsys):
    folders = pair(a_run(), a_run(seed=9))
    assert main(["compare", *folders]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "B is not shown to be worse than A: of" in " ".join(printed)
    assert not [line for line in printed if line.startswith(("heroku", "gcp_cloudrun"))]
    assert [line for line in printed if line.startswith("No change is shown in 12 figures:")]


def test_all_lists_every_figure_with_what_it_stands_on(pair, capsys):
    folders = pair(a_run(), a_run(seed=9))
    assert main(["compare", "--all", *folders]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in NAMES] == list(NAMES)
    rows = [line.split()[0] for line in printed if line.startswith("  ") and line[2] != " "]
    assert rows == ["figure", *["p50", "p95", "p99", "failed", "accuracy", "cost"] * 2]
    assert [line for line in printed if line.startswith("    95% interval ")]
    assert "No change is shown" not in "".join(printed)


@pytest.mark.parametrize("options", [(), ("--all",)], ids=["changed", "all"])
def test_output_fits_80_columns_with_long_names(tmp_path, capsys, options):
    names = tuple(f"{name}-{'a-stage-with-a-long-name-' * 2}" for name in FOUR)
    run, samples = a_run(names=names, foreign=True)
    worse = failing(slowed(samples, 123.4, names[1]), 10, names[2])
    folders = [tmp_path / ("folder-" * 12 + letter) for letter in "ab"]
    for folder, made in zip(folders, [(run, samples), (run, worse)], strict=True):
        written(folder, *made)
    assert main(["compare", *map(str, folders), *options]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert [line for line in printed if line.strip().startswith("p95 single") and line.endswith("worse")]
    shown = {name for name in names if name in printed}
    assert shown == (set(names) if options else set(names[1:3]))


def test_worse_is_exit_1_and_says_what_and_by_how_much(pair, capsys):
    run, samples = a_run()
    folders = pair((run, samples), (run, slowed(samples, 1.5)))
    assert main(["compare", *folders]) == 1
    out = words(capsys)
    assert "B is worse than A: heroku's p95 (single) " in out and "+50.0% (limit +10%)" in out
    assert "different, and without a limit: heroku's p50 (single) " in out and out.endswith("+50.0%.")
    assert main(["compare", "--max-p95-increase", "60%", *folders]) == 0


def test_a_figure_that_could_not_be_judged_is_named(pair, capsys):
    assert main(["compare", *pair(a_run(n_images=60), a_run(n_images=60))]) == 0
    assert "p95 of gcp_cloudrun and p95 of heroku" in words(capsys).partition("not judged: ")[2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images_sha256": "0" * 64}, "the images differ: made-up pictures (500, sha256 "),
        ({"scenarios": ["single", "poisson"]}, "the scenarios differ: single, and single and poisson"),
        ({"client_environment": {"cpu_model": "B", "cores": 2}}, "the client's processor differs: A (instruction "),
        ({"config": {"rate_rps": 5.0, "fresh": True}}, "fresh differs: False, and True"),
        ({"config": {"peak": 24.0, "fresh": False}}, "peak differs: 3, and 24"),
        ({"senders": [ELSEWHERE]}, "cluster differs: none, and 10.0.0.2"),
    ],
    ids=["images", "scenarios", "machine", "connections", "bills", "senders"],
)
def test_incompatible_runs_are_refused_unless_forced(pair, capsys, change, says):
    run, samples = a_run()
    run = dataclasses.replace(
        run, client_environment={"cpu_model": "A", "cores": 2}, config={"rate_rps": 9.0, "fresh": False, "peak": 3.0}
    )
    if "senders" in change:  # of open loops alone
        run = dataclasses.replace(run, scenarios=["single", "burst"])
    folders = pair((run, samples), (dataclasses.replace(run, **change), samples))
    assert main(["compare", *folders]) == 2
    refused = capsys.readouterr()
    assert refused.out == ""
    assert refused.err.splitlines()[0].endswith("--force compares them anyway:")
    assert [line for line in refused.err.splitlines() if line.startswith(f"  {says}")]
    assert len(refused.err.splitlines()) == 2  # a rate that no scenario uses is no difference
    assert main(["compare", "--force", *folders]) == 0
    out = words(capsys)
    assert f"unlike: {says}" in out and out.endswith("; but the runs are unlike.")


ZEN_3 = {"cpu_model": "AMD EPYC", "cpu_generation": "Zen 3", "instruction_sets": ["AVX2"], "instruction_limits": {}}
ZEN_5 = ZEN_3 | {"cpu_generation": "Zen 5", "instruction_sets": ["AVX2", "AVX-512", "AVX-512 BF16"]}
OLD = {"cpu_model": "AMD EPYC"}  # as recorded before instruction sets were
BF16 = {"engine_details": {"form": "bfloat16, channels_last, fused by oneDNN"}}


def on(processor, made=None, version=None):
    """A run on that processor; of deployed targets the client's stays the same."""
    run, samples = made or a_run()
    targets = [dataclasses.replace(t, version=processor | (version or {})) for t in run.targets]
    twins = any(t.twin for t in targets)
    return dataclasses.replace(
        run, client_environment=(processor if twins else ZEN_3) | {"cores": 2}, targets=targets
    ), samples


def test_forced_comparison_across_instruction_sets_omits_latency(pair, capsys):
    run, samples = a_run()
    folders = pair(on(ZEN_5, (run, samples)), on(ZEN_3, (run, slowed(samples, 3))))
    assert main(["compare", *folders]) == 2
    refused = capsys.readouterr().err
    assert (
        "processor differs: AMD EPYC (Zen 5; AVX2, AVX-512, AVX-512 BF16), and AMD EPYC (Zen 3; AVX2); lat" in refused
    )
    assert refused.endswith("latencies, rates and costs of twins cannot be compared, accuracy can\n")
    assert main(["compare", "--force", *folders]) == 0
    out = words(capsys)
    assert "p95 and cost of twins not judged, as the processors differ; but the runs are unlike." in out
    assert f"run {run.id} of 2026-11-21 12:00 UTC, on 2 cores of AMD EPYC (Zen 5; AVX2, AVX" in out


def test_accuracy_is_judged_on_unlike_processors_too(pair, capsys):
    a, (run, samples) = on(ZEN_5), a_run()
    broken = [
        dataclasses.replace(s, predicted_class=(s.predicted_class + 1) % 10) if s.predicted_class is not None else s
        for s in samples
    ]
    assert main(["compare", "--force", *pair(a, on(ZEN_3, (run, broken)))]) == 1
    assert "B is worse than A: heroku's accuracy" in words(capsys)


def test_incomplete_processor_record_is_a_warning(pair, capsys):
    assert main(["compare", *pair(on(OLD), on(ZEN_3))]) == 0
    said = "whether the client ran on like processors is not known: AMD EPYC (instruction sets not recorded), and AMD"
    assert said in words(capsys)
    assert processor_notices(on(ZEN_3)[0], on(ZEN_3)[0]) == []


def test_older_bfloat16_run_differs_from_a_processor_without_it():
    old = on(OLD, version=BF16)[0]
    (finding,) = incompatibilities(old, on(ZEN_3)[0], {}, {})
    assert (finding.code, finding.severity) == (FindingCode.CLIENT_PROCESSOR_DIFFERS, Severity.INVALID)
    assert str(finding.values["a"]) == "AMD EPYC (bfloat16 in hardware, other instruction sets not recorded)"
    assert incompatibilities(old, on(ZEN_5)[0], {}, {}) == []


def test_a_cloud_that_changed_its_processor_is_told_and_judged(pair, capsys):
    run, samples = a_run(twin=False)
    folders = pair(on(ZEN_5, (run, samples)), on(ZEN_3, (run, slowed(samples, 3))))
    assert main(["compare", *folders]) == 1
    out = words(capsys)
    assert "heroku and gcp_cloudrun ran on AMD EPYC (Zen 5; AVX2, AVX-512, AVX-512 BF16), and on AMD EPYC (Zen 3" in out
    assert "that alone may change latencies" in out and "B is worse than A: heroku's p95" in out


def test_other_weights_and_another_place_are_unlike(pair, capsys):
    changed = a_run(model_versions={"heroku": "ffff", "gcp_cloudrun": "ffff"}, reference=False, twin=False)
    assert main(["compare", *pair(a_run(reference=False), changed)]) == 2
    said = capsys.readouterr().err
    assert "heroku is a local twin, and in the cloud" in said
    assert "the model of gcp_cloudrun and heroku differs: 0123456789ab, and ffff" in said


def test_a_run_whose_client_was_late_is_no_basis(pair, capsys):
    late = make_full_run(80, names=NAMES, scenarios=("single", "poisson"), late_ms=50.0)
    assert main(["compare", *pair(a_run(), late)]) == 2
    assert "B is not a valid comparison: the client had too little processor time" in capsys.readouterr().err


def test_runs_without_a_common_target_are_refused_even_if_forced(pair, capsys):
    assert main(["compare", "--force", *pair(a_run(names=("heroku",)), a_run(names=("aws_ec2",)))]) == 2
    assert "have no target in common" in capsys.readouterr().err


# Engines


def test_an_engine_is_compared_with_another_one_across_runs(pair, capsys):
    torch = a_run(names=("heroku", "gcp_cloudrun"))
    run, samples = a_run(names=("heroku-onnx", "gcp_cloudrun"), seed=8)
    folders = pair(torch, (run, slowed(samples, 1.25, None)))
    assert main(["compare", *folders]) == 2
    assert "the targets differ: heroku and gcp_cloudrun, and heroku-onnx and" in capsys.readouterr().err
    code = main(["compare", "--pair", "heroku=heroku-onnx", "--format", "json", *folders])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["pairs"] == {"heroku": "heroku-onnx"}
    p50 = next(d for d in found["differences"] if (d["target"], d["metric"]) == ("heroku", "p50"))
    assert p50["reference"] == "gcp_cloudrun" and p50["machine"] == pytest.approx(0.25, abs=0.04)
    assert p50["own"] == pytest.approx(1 / 5 - 1, abs=0.02) and p50["judgement"] == "different"
    assert main(["compare", "--pair", "heroku=heroku-onnx", *folders]) == 0
    assert "heroku -> heroku-onnx" in capsys.readouterr().out.splitlines()


def test_engines_without_another_target_are_shown_not_judged(pair, capsys):
    folders = pair(a_run(names=("heroku",)), a_run(names=("heroku-onnx",)))
    assert main(["compare", *folders]) == 2
    assert "to compare their engines: --pair heroku=heroku-onnx" in capsys.readouterr().err
    assert main(["compare", "--pair", "heroku=heroku-onnx", *folders]) == 0
    out = words(capsys)
    assert "the machine cannot be told from a change of heroku" in out and "p95 of heroku -> heroku-onnx" in out


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["heroku=mine"], "--pair: run B has no target 'mine'; it has heroku and gcp_cloudrun"),
        (["mine=heroku"], "--pair: run A has no target 'mine'; it has heroku and gcp_cloudrun"),
        (["heroku=heroku", "heroku=gcp_cloudrun"], "--pair: a target of run A is in two pairs; name each once"),
    ],
    ids=["b", "a", "twice"],
)
def test_a_pair_that_the_runs_have_not_is_one_line(pair, capsys, pairs, says):
    made = a_run(n_images=20)
    assert main(["compare", *pair(made, made), *(f"--pair={text}" for text in pairs)]) == 2
    assert capsys.readouterr().err == f"{says}\n"


def test_a_pair_without_its_second_name_is_wrong_usage(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--pair", "heroku", "a", "b"])
    assert "'heroku' is no pair of targets; write it as heroku=heroku-onnx" in " ".join(capsys.readouterr().err.split())


def test_what_is_no_run_is_exit_2(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} is not a run: it has no run.json\n"


@pytest.mark.parametrize("text", ["10", "-1%", "much%", "10pp"])
def test_a_limit_without_its_unit_is_wrong_usage(text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", f"--max-p95-increase={text}", "a", "b"])
    assert stopped.value.code == 2
    assert f"{text!r} is not a limit of 0 or more; write it as 10%" in capsys.readouterr().err


def test_help_teaches_with_examples(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    text = capsys.readouterr().out
    assert "./cloudtrial compare reports/before reports/after" in text
    assert "Exit codes: 0 no regression, 1 regression, 2 incompatible runs or wrong usage" in text
    assert f"With fewer than {MIN_JUDGED_BLOCKS} blocks" in text


def test_json_holds_every_difference_and_no_infinity(pair, capsys):
    run, samples = a_run()
    folders = pair((run, samples), (run, failing(samples, 10)))
    assert main(["compare", "--format", "json", *folders]) == 1
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    p95 = next(d for d in found["differences"] if (d["target"], d["metric"]) == ("heroku", "p95"))
    assert p95["b"] is None and "b" in p95["infinite"] and p95["regressed"]
    assert found["thresholds"]["max_accuracy_drop"] == 0.005 and found["regressed"] is True


def test_markdown_is_the_sentence_and_a_table(pair, capsys):
    assert main(["compare", "--format", "markdown", "--all", *pair(a_run(), a_run())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("**B is not shown to be worse than A")
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1 and len(rows) == 2 + 12


@pytest.mark.parametrize(("n_images", "judgement"), [(60, "not decided"), (400, "equivalent")])
def test_equal_answers_are_equivalent_where_there_are_enough(pair, capsys, n_images, judgement):
    assert main(["compare", "--format", "json", *pair(a_run(n_images=n_images), a_run(n_images=n_images))]) == 0
    judgements = {
        (d["metric"], d["judgement"])
        for d in json.loads(capsys.readouterr().out)["differences"]
        if d["metric"] in ("accuracy", "cost")
    }
    assert judgements == {("accuracy", judgement), ("cost", "equivalent")}


def test_the_same_two_runs_give_the_same_words(pair, capsys):
    folders = pair(a_run(), a_run(seed=9))
    said = {(main(["compare", *folders]), capsys.readouterr().out) for _ in range(2)}
    assert len(said) == 1
