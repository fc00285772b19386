"""Which target is to be taken at a traffic, which is left out, and on what that depends."""

import math
from dataclasses import replace

import pytest

from eval.analysis.recommendation import bills_tied, evaluate, evaluate_all, recommend, recommend_engine
from eval.analysis.report_model import Candidate, SlowdownLimit, Traffic
from eval.analysis.summary import analyse_run
from eval.codes import ReasonCode, reason
from eval.cost.billing import Bill, ResourceDemand, prices_for, round_up_billed_s
from eval.cost.price_list import load_price_list
from eval.samples.sizes import sized_target
from infra.targets import TARGETS
from tests.helpers.synthetic_run import FOUR, make_run, make_sample

PRICES = load_price_list()
DAYTIME = Traffic(1.0, 8.0)
DEMAND = ResourceDemand(
    service_s=0.02, billed_s=0.1, cpu_s=0.02, instance_rps=50.0, startup_s=2.0, egress_bytes=900.0
)  # fmt: skip


def candidate(name, p95_ms=20.0, **changes):
    """A target whose requests take 20 ms on this machine, and in proportion on a slower one."""
    target = TARGETS[name]
    demands = {
        n: replace(
            DEMAND,
            service_s=0.02 * n,
            billed_s=round_up_billed_s(0.02 * n),
            cpu_s=0.02 * n,
            instance_rps=50.0 / n,
            startup_s=2.0 * n,
        )
        for n in (1, 2, 4, 8)
    }
    tail_ms = () if p95_ms is None else tuple(p95_ms + step for step in range(11))
    unit_prices = {role: price.amount for role, price in prices_for(target, PRICES).items()}
    too_few = None if tail_ms else reason(ReasonCode.TOO_FEW_SAMPLES, needed=72, n=50)
    known = Candidate(
        title=target.title, target=target, engine="torch", unit_prices=unit_prices, demand_by_slowdown=demands,
        startup_measured=True, tail_ms=tail_ms, p95_reason=too_few, p50_low_ms=18.0, fits_memory=True,
        fails=False,
    )  # fmt: skip
    return replace(known, **changes)


def four(**changed):
    return {name: changed.get(name, candidate(name)) for name in FOUR}


def test_free_requests_are_cheapest_where_traffic_is_light():
    found = recommend(four(), DAYTIME, 200.0)
    assert found.ranked == ["gcp_function", "gcp_cloudrun", "heroku", "aws_ec2"]
    assert [round(found.options[name].bill.net_usd, 2) for name in found.ranked] == [0.0, 0.0, 7.0, 20.11]


def test_a_dyno_is_cheapest_where_requests_would_cost_more():
    assert recommend(four(), Traffic(10.0, 24.0), 200.0).target == "heroku"


def test_p95_is_a_cold_start_where_one_request_in_20_meets_one():
    hourly = Traffic(1 / 3600, 24.0)
    cold = evaluate(candidate("gcp_cloudrun"), hourly, 200.0)
    assert cold.cold_start_fraction == pytest.approx(0.7788, abs=1e-4)  # exp(-900 / 3600)
    assert cold.p95_ms == 2000.0
    assert cold.excluded == reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=2000.0)
    found = recommend(four(), hourly, 200.0)
    assert found.target == "heroku"
    assert found.options["heroku"].cold_start_fraction == 0.0
    assert recommend(four(), hourly, 5000.0).target == "gcp_function"


def test_an_instance_is_always_warm_where_cold_starts_break_p95():
    # At one an hour the requests are free, but p95 is a start. Idle for all but 73 s of 2,628,000: $13.14.
    hourly = Traffic(1 / 3600, 24.0)
    found = recommend({name: candidate(name) for name in ("gcp_cloudrun", "gcp_function", "aws_ec2")}, hourly, 200.0)
    assert found.ranked == ["gcp_cloudrun", "gcp_function", "aws_ec2"]
    warm = found.options["gcp_cloudrun"]
    assert (warm.min_instances, warm.p95_ms, warm.cold_start_fraction) == (1, 20.0, 0.0)
    assert warm.bill.net_usd == warm.always_warm_usd == pytest.approx(13.14, abs=0.005)
    assert found.options["aws_ec2"].always_warm_usd is None


def test_an_instance_is_not_kept_warm_where_less_keeps_p95():
    # Busy for 876,000 x (1 - e^-0.1) = 83,362 s of the 2,628,000: the others cost $0.000005 each.
    option = recommend(four(), DAYTIME, 200.0).options["gcp_cloudrun"]
    assert (option.min_instances, option.bill.net_usd) == (0, 0.0)
    assert option.always_warm_usd == pytest.approx(12.72, abs=0.005)


@pytest.mark.parametrize("changes", [{"fits_memory": False}, {"p95_ms": 300.0}], ids=["memory", "slow"])
def test_a_warm_instance_cures_neither_memory_nor_slow_requests(changes):
    found = recommend({"gcp_cloudrun": candidate("gcp_cloudrun", **changes)}, Traffic(1 / 3600, 24.0), 200.0)
    assert found.options["gcp_cloudrun"].excluded is not None
    assert found.options["gcp_cloudrun"].min_instances == 0


def test_an_answer_that_would_need_a_warm_instance_does_not_hold():
    # 12.96 an hour: 3.9% meet a start, so p95 is the warm p99, 28 ms; at a quarter of the speed it is above 100 ms.
    run = {"gcp_cloudrun": candidate("gcp_cloudrun")}
    sparse = Traffic(12.96 / 3600, 24.0)
    assert recommend(run, sparse, 100.0).slowdown_limit == SlowdownLimit(2, 0.0)
    slow = evaluate_all(run, sparse, 100.0, slowdown=4)["gcp_cloudrun"]
    assert (slow.min_instances, slow.excluded) == (1, None)


def test_first_request_of_a_day_meets_a_cold_start():
    # 1,000 an hour never leave a gap of 15 minutes by chance; the night does, 30.4 times a month.
    busy = recommend(four(), Traffic(1000 / 3600, 8.0), 200.0).options["gcp_cloudrun"].cold_start_fraction
    assert busy == pytest.approx(30.42 / (1000 * 8 * 30.42), rel=1e-3)
    assert recommend(four(), Traffic(1000 / 3600, 24.0), 200.0).options["gcp_cloudrun"].cold_start_fraction < 1e-90


def test_an_eco_dyno_sleeps_after_half_an_hour():
    # At one an hour exp(-1800 / 3600) = 61% of requests follow as long a silence.
    eco, basic = (candidate("heroku", target=sized_target("heroku", size)) for size in ("eco", "basic"))
    hourly = Traffic(1 / 3600, 24.0)
    option = evaluate(eco, hourly, 200.0)
    assert option.cold_start_fraction == pytest.approx(math.exp(-0.5))
    assert (option.p95_ms, option.excluded) == (2000.0, reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=2000.0))
    assert evaluate(basic, hourly, 200.0).cold_start_fraction == 0.0
    # Where one is not enough all are Standard-1X, which does not sleep: 42 a second need two.
    assert evaluate(eco, Traffic(30.0, 8.0), 200.0).cold_start_fraction > 0
    assert evaluate(eco, Traffic(42.0, 8.0), 200.0).cold_start_fraction == 0.0


def test_some_cold_starts_push_p95_up_among_the_warm_requests():
    # At 14.4 an hour exp(-14.4 x 900 / 3600) = 2.7% meet a start: p95 of all is the warm p97.6, the next step is p98.
    option = recommend(four(), Traffic(14.4 / 3600, 24.0), 200.0).options["gcp_cloudrun"]
    assert option.cold_start_fraction == pytest.approx(0.0273, abs=1e-4)
    assert option.p95_ms == 26.0


def test_a_target_that_misses_the_objective_is_left_out():
    found = recommend(four(heroku=candidate("heroku", p95_ms=312.4)), Traffic(10.0, 24.0), 200.0)
    assert found.options["heroku"].excluded == reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=312.4)
    assert found.target == "aws_ec2"
    assert recommend(four(heroku=candidate("heroku", p95_ms=312.4)), Traffic(10.0, 24.0), 400.0).target == "heroku"


@pytest.mark.parametrize(
    ("changes", "excluded"),
    [
        ({"fails": True}, reason(ReasonCode.TOO_MANY_FAILURES)),
        ({"fits_memory": False}, reason(ReasonCode.EXCEEDS_MEMORY, limit_mib=512)),
        ({"tail_ms": ()}, reason(ReasonCode.P95_UNKNOWN)),
    ],
    ids=["fails", "memory", "too short"],
)
def test_a_target_with_a_fault_is_left_out(changes, excluded):
    found = recommend(four(heroku=candidate("heroku", **changes)), Traffic(10.0, 24.0), 200.0)
    assert found.options["heroku"].excluded == excluded
    assert "heroku" not in found.ranked


def test_a_target_that_may_not_have_enough_instances_is_left_out():
    found = recommend(four(), Traffic(200.0, 24.0), 200.0)
    assert found.options["aws_ec2"].excluded == reason(ReasonCode.TOO_MANY_INSTANCES, instances=6)
    assert found.ranked == []


def test_memory_that_is_not_known_leaves_nobody_out():
    assert recommend({"heroku": candidate("heroku", fits_memory=None)}, DAYTIME, 200.0).target == "heroku"


def test_failures_beside_cold_starts_may_make_p95_infinite():
    # 12.1 an hour: 4.9% of requests meet a start, and p95 of all is the slowest of the warm ones, which failed.
    failing = candidate("gcp_cloudrun", tail_ms=(*candidate("gcp_cloudrun").tail_ms[:-1], None))
    option = evaluate(failing, Traffic(12.1 / 3600, 24.0), 200.0)
    assert 0.048 < option.cold_start_fraction < 0.05
    assert (option.p95_ms, option.within_objective) == (None, False)
    assert option.excluded == reason(ReasonCode.TOO_MANY_FAILURES)


@pytest.mark.parametrize(
    ("fits", "cuda_build", "expected"),
    [(True, True, True), (False, True, None), (False, False, False), (None, True, None)],
)
def test_memory_of_libraries_no_cloud_needs_leaves_nobody_out(fits, cuda_build, expected):
    run, samples = make_run(names=["heroku"])
    versions = {"torch": "2.14.1+cu130" if cuda_build else "2.14.1+cpu"}
    peak_mib = {True: 300.0, False: 600.0, None: None}[fits]
    (target,) = run.targets
    target = replace(target, peak_memory_mib=peak_mib, version={**target.version, "versions": versions})
    facts = analyse_run(replace(run, targets=[target]), samples, PRICES).facts
    assert facts.candidates["heroku"].fits_memory is expected


def test_a_run_too_short_for_p95_ranks_by_the_bill():
    short = {name: candidate(name, p95_ms=None) for name in ("heroku", "aws_ec2")}
    assert recommend(short, DAYTIME, 200.0).ranked == ["heroku", "aws_ec2"]


def test_a_median_above_the_objective_leaves_out_without_p95():
    short = {name: candidate(name, p95_ms=None) for name in ("heroku", "aws_ec2")}
    short["heroku"] = replace(short["heroku"], p50_low_ms=659.0)
    found = recommend(short, DAYTIME, 200.0)
    assert found.ranked == ["aws_ec2"]
    assert found.options["heroku"].excluded == reason(ReasonCode.P50_OVER_OBJECTIVE, p50_low_ms=659.0)
    assert found.options["heroku"].within_objective is False
    assert recommend(short, DAYTIME, 700.0).ranked == ["heroku", "aws_ec2"]


def test_an_answer_without_p95_names_no_slower_processor():
    short = {"aws_ec2": candidate("aws_ec2", p95_ms=None, p50_low_ms=60.0)}
    found = recommend(short, DAYTIME, 200.0)
    assert (found.target, found.slowdown_limit) == ("aws_ec2", None)


def test_failures_of_one_leave_nobody_else_out():
    run, samples = make_run(n_images=50, failures={"heroku": 1})
    found = analyse_run(run, samples, PRICES).facts.recommendation
    assert found.options["heroku"].excluded == reason(ReasonCode.TOO_MANY_FAILURES)
    assert found.ranked == ["gcp_function", "gcp_cloudrun", "aws_ec2"]


def beside_a_short_stream(single_factor=1.0, failed=0):
    """600 single requests of Heroku beside a stream of 50."""
    run, samples = make_run(n_images=600, names=["heroku"], reference=False)
    slower = [
        replace(s, latency_ms=s.latency_ms * single_factor, service_time_ms=s.service_time_ms * single_factor)
        for s in samples
    ]
    stream = [
        make_sample(image, scenario="poisson", error="timeout" if image < failed else None, block=1000,
                    scheduled_s=1000.0 + image, response_bytes=412)
        for image in range(50)
    ]  # fmt: skip
    return analyse_run(replace(run, scenarios=["single", "poisson"]), [*slower, *stream], PRICES).facts


def test_a_p95_that_is_known_decides_beside_a_stream_too_short():
    facts = beside_a_short_stream(single_factor=45.0)
    assert facts.scenario == "single"
    assert facts.recommendation.target is None
    assert facts.recommendation.options["heroku"].excluded.code == ReasonCode.P95_OVER_OBJECTIVE
    assert facts.recommendation.options["heroku"].p95_ms > 700


def test_failures_of_a_stream_too_short_for_p95_leave_out():
    facts = beside_a_short_stream(failed=3)
    assert facts.scenario == "single"
    assert facts.recommendation.options["heroku"].excluded == reason(ReasonCode.TOO_MANY_FAILURES)


def test_a_stream_whose_p95_is_infinite_is_the_one_that_decides():
    run, samples = make_run(n_images=600, names=["heroku"], reference=False)
    stream = [
        replace(s, scenario="poisson", send_delay_ms=0.0, block=s.block + 1000) for s in samples if s.phase == "measure"
    ]
    failed = [make_sample(s.image_index, "timeout", scenario="poisson", block=s.block) for s in stream[:60]]
    facts = analyse_run(replace(run, scenarios=["single", "poisson"]), [*samples, *failed, *stream[60:]], PRICES).facts
    assert facts.scenario == "poisson"
    assert facts.recommendation.options["heroku"].excluded == reason(ReasonCode.TOO_MANY_FAILURES)


def test_slowdown_limit_is_the_last_one_with_the_same_answer():
    # Heroku at 7/s: a dyno serves 35/s here, 17.5 at half the speed, 8.75 at a quarter, each for $7 where Functions
    # cost $8.62 to $9.94; at an eighth it takes two for $50, and Functions cost $22.94.
    found = recommend(four(), Traffic(7.0, 8.0), 1000.0)
    assert (found.target, found.slowdown_limit) == ("heroku", SlowdownLimit(4, 7.0))
    alone = recommend({"heroku": candidate("heroku")}, DAYTIME, 1000.0)
    assert alone.slowdown_limit == SlowdownLimit(8, 7.0)


def test_slowdown_that_breaks_the_objective_ends_the_answer():
    found = recommend({"heroku": candidate("heroku", p95_ms=150.0)}, DAYTIME, 200.0)
    assert found.slowdown_limit == SlowdownLimit(1, 7.0)


def test_of_two_engines_the_cheaper_is_recommended():
    slow = candidate("heroku", demand_by_slowdown={1: replace(DEMAND, instance_rps=5.0)})
    quick = candidate("heroku", engine="onnx")
    engine, found = recommend_engine({"heroku": slow, "heroku-onnx": quick}, Traffic(10.0, 24.0), 200.0)
    assert (engine, found.target, found.runner_up) == ("onnx", "heroku-onnx", None)


def test_a_service_of_unknown_engine_competes_with_each():
    own = candidate("gcp_cloudrun", engine=None)
    twins = {"heroku": candidate("heroku"), "heroku-onnx": candidate("heroku", engine="onnx")}
    engine, found = recommend_engine(twins | {"mine": own}, DAYTIME, 200.0)
    assert engine and (found.target, found.runner_up) == ("mine", "heroku")
    engine, found = recommend_engine({"heroku": candidate("heroku"), "mine": own}, DAYTIME, 200.0)
    assert (engine, found.ranked) == ("torch", ["mine", "heroku"])
    assert recommend_engine({"mine": own}, DAYTIME, 200.0)[0] is None


def test_what_is_deployed_is_no_slower_on_a_slower_processor():
    """Heroku's twin is cheapest until it needs a second dyno; what is deployed costs what it was measured to."""
    deployed = candidate("gcp_cloudrun", demand_by_slowdown={1: DEMAND})
    found = recommend({"heroku": candidate("heroku"), "mine": deployed}, Traffic(7.0, 8.0), 1000.0)
    assert (found.target, found.slowdown_limit) == ("heroku", SlowdownLimit(4, 7.0))
    alone = recommend({"mine": deployed, "aws_ec2": candidate("aws_ec2")}, DAYTIME, 1000.0)
    assert (alone.target, alone.slowdown_limit) == ("mine", None)


def test_of_engines_that_cost_the_same_the_quicker_is_taken():
    pair = {"heroku": candidate("heroku"), "heroku-onnx": candidate("heroku", p95_ms=9.0, engine="onnx")}
    assert recommend_engine(pair, DAYTIME, 200.0)[0] == "onnx"


def bill(net, low=None, high=None):
    low, high = net if low is None else low, net if high is None else high
    return Bill(net, net, 1, False, low, high, low, high)


@pytest.mark.parametrize(
    ("first", "second", "tied"),
    [
        pytest.param(bill(5.0, low=4.0, high=6.5), bill(7.0, low=6.0, high=8.0), True, id="bounds touch"),
        pytest.param(bill(5.0, low=4.0, high=5.5), bill(7.0, low=6.0, high=8.0), False, id="bounds apart"),
        pytest.param(bill(5.0), bill(7.0), False, id="no bounds"),
    ],
)
def test_bills_tie_within_what_billing_rules_leave_open(first, second, tied):
    assert bills_tied(first, second) is tied
