"""Who is called cheapest, who is left out, and how that reads."""

from types import SimpleNamespace

import pytest

from eval.analysis.predictions.accuracy import Agreement
from eval.analysis.report_model import Slo, Traffic
from eval.analysis.verdict_facts import VerdictFacts, verdict_report
from eval.codes import ReasonCode, reason
from eval.cost.billing import Bill
from eval.report.verdict import verdict_sentence
from eval.stats.intervals import Estimate


def scenario(p95, sent=400, failed=0, low=None, high=None):
    """p95 with failures; None: not known."""
    latency_ms = {"p50": Estimate(5.0, 5.0, 5.0), "p95": Estimate(p95, low or p95, high or p95)}
    return SimpleNamespace(sent=sent, succeeded=sent - failed, latency_with_failures_ms=latency_ms)


def bill(gross, net=None, low=None, high=None, instances=1, exceeds_max_instances=False):
    net = gross if net is None else net
    return Bill(
        gross, net, instances, exceeds_max_instances,
        gross_low_usd=gross if low is None else low, gross_high_usd=gross if high is None else high,
        net_low_usd=net if low is None else min(net, low), net_high_usd=net if high is None else max(net, high),
    )  # fmt: skip


def facts(title, cost, **scenarios):
    """The part of a TargetReport of which a verdict is made."""
    sent = sum(report.sent for report in scenarios.values())
    failed = sent - sum(report.succeeded for report in scenarios.values())
    return SimpleNamespace(
        title=title, sent=sent, succeeded=sent - failed, errors={"timeout": failed} if failed else {}, engine=None,
        accuracy=Estimate(0.95), scenarios=scenarios, cost=SimpleNamespace(monthly_usd={"1000000": cost}),
    )  # fmt: skip


def judged(slo_ms=200.0, requests=1_000_000, **targets):
    agreement = {"a|reference": Agreement(400, Estimate(1.0), disagreements=0, max_abs_prob_diff=0.0)}
    verdict_facts = VerdictFacts(targets, agreement, True, None, [], False, slo_ms, requests)
    return vars(verdict_report(verdict_facts)) | {"sentence": verdict_sentence(verdict_facts)}


def quick(title, cost):
    return facts(title, cost, single=scenario(20.0))


def test_the_cheapest_is_the_one_that_keeps_the_objective():
    found = judged(
        a=facts("Slow", bill(5.0), single=scenario(312.4)), b=quick("Middling", bill(7.0)), c=quick("Dear", bill(20.0))
    )
    assert (found["cheapest"], found["runner_up"]) == ("b", "c")
    excluded = {"a": reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=312.4)}
    assert found["slo"] == Slo(200.0, meets={"a": False, "b": True, "c": True}, uncertain=[], excluded=excluded)
    assert (
        "with p95 within 200 ms, Middling is cheapest at 1,000,000 requests a month ($7.00), ahead of Dear ($20.00); "
        "left out: Slow (p95 312 ms);"
    ) in found["sentence"]


def test_the_objective_is_the_users():
    targets = {"a": facts("Slow", bill(5.0), single=scenario(312.4)), "b": quick("Quick", bill(7.0))}
    assert judged(**targets, slo_ms=400.0)["cheapest"] == "a"
    assert judged(**targets, slo_ms=10.0)["cheapest"] is None


def test_many_users_at_once_count_more_than_one_after_the_other():
    crowded = facts("Crowded", bill(5.0), single=scenario(20.0), poisson=scenario(900.0))
    found = judged(a=crowded, b=facts("Calm", bill(7.0), single=scenario(300.0), poisson=scenario(30.0)))
    assert found["slo"].meets == {"a": False, "b": True}
    assert found["cheapest"] == "b"


def test_who_fails_too_often_is_left_out_however_quick():
    found = judged(a=facts("Flaky", bill(5.0), single=scenario(20.0, failed=5)), b=quick("Sound", bill(7.0)))
    assert found["cheapest"] == "b"
    assert found["slo"].excluded == {"a": reason(ReasonCode.TOO_MANY_FAILURES)}
    assert (
        judged(a=facts("Flaky", bill(5.0), single=scenario(20.0, failed=4)), b=quick("Sound", bill(7.0)))["cheapest"]
        == "a"
    )


def test_too_many_failures_miss_the_slo_though_p95_is_missing():
    found = judged(a=facts("Broken", bill(5.0), single=scenario(None, failed=21)), b=quick("Sound", bill(7.0)))
    assert found["slo"].meets == {"a": False, "b": True}


def test_who_cannot_serve_the_traffic_is_left_out():
    found = judged(a=quick("Small", bill(5.0, instances=11, exceeds_max_instances=True)), b=quick("Large", bill(70.0)))
    assert found["cheapest"] == "b"
    assert "left out: Small (needs 11 instances, more than it may have)" in found["sentence"]
    assert "with p95 within 200 ms, only Large costs $70.00 at 1,000,000 requests a month" in found["sentence"]


def test_a_run_too_short_for_p95_ranks_by_cost_and_says_so():
    short = {
        name: facts(name.upper(), bill(usd), single=scenario(None, sent=40)) for name, usd in (("a", 5.0), ("b", 7.0))
    }
    found = judged(**short)
    assert found["slo"].meets == {"a": None, "b": None}
    assert found["cheapest"] == "a"
    assert (
        "A is cheapest at 1,000,000 requests a month ($5.00), ahead of B ($7.00) (whether p95 is within 200 ms is not "
        "known)" in found["sentence"]
    )
    assert judged(**short, c=quick("Known", bill(9.0)))["cheapest"] == "c"


def test_an_interval_that_reaches_past_the_objective_is_said():
    found = judged(a=facts("Near", bill(5.0), single=scenario(190.0, low=170.0, high=230.0)), b=quick("Far", bill(7.0)))
    assert found["slo"].uncertain == ["a"]
    assert "with p95 probably within 200 ms, Near is cheapest" in found["sentence"]


@pytest.mark.parametrize(
    ("first", "second", "close"),
    [
        pytest.param(bill(5.0, low=4.0, high=6.5), bill(7.0, low=6.0, high=8.0), True, id="bounds touch"),
        pytest.param(bill(5.0, low=4.0, high=5.5), bill(7.0, low=6.0, high=8.0), False, id="bounds apart"),
        pytest.param(bill(3.1, 0.0, low=0.0, high=3.3), bill(3.2, 0.0, low=0.0, high=3.4), True, id="both free"),
        pytest.param(bill(5.0), bill(7.0), False, id="no bounds"),
    ],
)  # fmt: skip
def test_cost_order_within_billing_uncertainty_is_reported(first, second, close):
    found = judged(a=quick("One", first), b=quick("Two", second))
    assert found["cheapest"] == "a"
    assert found["cheapest_tied"] is close
    assert ("may be as cheap" in found["sentence"]) is close


def test_two_that_are_free_cost_the_same():
    free = {"a": quick("Run", bill(3.05, 0.0, low=0.0, high=0.0)), "b": quick("Function", bill(3.1, 0.0))}
    found = judged(**free, d=quick("Dear", bill(9.0)))
    assert found["cheapest_tied"] is False
    assert "($0 after the free tier, list price $3.05), as is Function" in found["sentence"]
    three = judged(**free, c=quick("Other", bill(3.2, 0.0)), d=quick("Dear", bill(9.0)))
    assert "as are Function and Other" in three["sentence"]


def test_range_of_a_bill_is_in_the_sentence():
    found = judged(a=quick("Run", bill(113.0, 107.0, low=62.0, high=310.0)), b=quick("Dear", bill(400.0)))
    assert "$107.00, range $62.00 to $310.00, after the free tier, list price $113.00" in found["sentence"]


def test_two_that_cost_the_same_to_the_cent_are_both_named():
    found = judged(a=quick("Heroku", bill(7.0)), b=quick("Heroku (eu)", bill(7.0)))
    assert found["cheapest_tied"] is False
    assert "Heroku is cheapest at 1,000,000 requests a month ($7.00), as is Heroku (eu)" in found["sentence"]


def test_where_nobody_keeps_the_objective_nobody_is_cheapest():
    found = judged(
        a=facts("Slow", bill(5.0), single=scenario(312.4)), b=facts("Slower", bill(7.0), single=scenario(1200.0))
    )
    assert (found["cheapest"], found["runner_up"]) == (None, None)
    assert (
        "no target can be named cheapest at 1,000,000 requests a month with p95 within 200 ms; "
        "left out: Slow (p95 312 ms) and Slower (p95 1,200 ms)"
    ) in found["sentence"]


def test_the_traffic_is_the_users():
    targets = {name: quick(name, bill(0.0)) for name in "ab"}
    for name, usd in (("a", 90.0), ("b", 80.0)):
        targets[name].cost.monthly_usd["50000000"] = bill(usd)
    found = judged(**targets, requests=50_000_000)
    assert found["cheapest"] == "b"
    assert found["traffic"] == Traffic(50_000_000, rps=pytest.approx(19.0259))
    assert "at 50,000,000 requests a month" in found["sentence"]
