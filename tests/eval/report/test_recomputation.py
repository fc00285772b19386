"""The example's report computed again from its samples, by code that shares nothing with eval/.

It reads the lines of samples.jsonl.gz as they are, in the words of their schema, and takes numpy and scipy alone. Its
money too, by rules of its own; examples worked out by hand are in tests/eval/cost.
"""

import gzip
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import yaml

EXAMPLE = Path(__file__).parents[3] / "reports" / "example"
NAMES = json.loads((EXAMPLE / "run.json").read_text())["classes"]
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@pytest.fixture(scope="module")
def report():
    return json.loads((EXAMPLE / "report.json").read_text())


@pytest.fixture(scope="module")
def labels():
    return [image["label"] for image in json.loads((EXAMPLE / "run.json").read_text())["image_manifest"]]


@pytest.fixture(scope="module")
def samples():
    """(target, scenario) -> the measured lines, in the order of sending."""
    grouped = defaultdict(list)
    with gzip.open(EXAMPLE / "samples.jsonl.gz", "rt") as lines:
        for line in map(json.loads, lines):
            if line["phase"] == "measure":
                grouped[line["target"], line["scenario"]].append(line)
    for group in grouped.values():
        group.sort(key=lambda line: line["scheduled_s"])
    return grouped


@pytest.fixture(scope="module")
def answers(samples, report):
    """Target -> class ids and probabilities of the images, in the order of the manifest."""
    found = {}
    for target in [*report["targets"], "reference"]:
        lines = samples[target, "reference" if target == "reference" else "single"]
        by_image = {line["image_index"]: line for line in lines}
        ordered = [by_image[image] for image in sorted(by_image)]
        labels, probabilities = zip(
            *((line["predicted_class"], line["probabilities"]) for line in ordered), strict=True
        )
        found[target] = np.array(labels), np.array(probabilities)
    return found


def quantile(values, p):
    """The smallest value that a fraction p of all does not exceed."""
    return np.sort(values, axis=None)[math.ceil(round(p * np.size(values), 9)) - 1]


def variance_of_mean(series, instances):
    """And its degrees of freedom. Of five instances or more, each after the other, it is that of their sums."""
    names = list(dict.fromkeys(instances))
    degrees_of_freedom, deviations = min(6, max(1, len(series) // 3)), series - np.mean(series)
    if len(names) >= 5:
        numbers = np.array([names.index(instance) for instance in instances])
        deviations = np.array([deviations[numbers == i].sum() for i in range(len(names))]) * len(names) / len(series)
        degrees_of_freedom = min(6, len(names) - 1)
    projections = scipy.fft.dct(deviations)[1 : degrees_of_freedom + 1]
    return np.mean(projections**2) / (2 * len(deviations) ** 2), degrees_of_freedom


def interval(values, p, instances):
    """Clopper and Pearson's for as many independent samples as the fraction above the percentile is worth."""
    values, n = np.asarray(values), len(values)
    above = values > quantile(values, p)
    fraction = above.mean()
    effective_n, (variance, degrees_of_freedom) = n * 4, variance_of_mean(above, instances)
    if variance * 4 > fraction * (1 - fraction) / n:
        effective_n = max(1.0, fraction * (1 - fraction) / variance)
    effective_n *= (scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, degrees_of_freedom)) ** 2
    low = scipy.stats.beta.ppf(0.025, effective_n * p, effective_n * (1 - p) + 1)
    high = scipy.stats.beta.ppf(0.975, effective_n * p + 1, effective_n * (1 - p))
    ordered = np.sort(values)
    return ordered[max(0, math.ceil(low * n) - 1)], ordered[min(n - 1, math.ceil(high * n))]


def assert_percentiles(found, values, instances):
    for name, estimate in found.items():
        if estimate["value"] is not None:
            p = PERCENTILES[name]
            assert estimate["value"] == pytest.approx(quantile(values, p))
            assert (estimate["low"], estimate["high"]) == pytest.approx(interval(values, p, instances)), name


CLOSED_LOOP = {  # nothing is scheduled, so latency is the service time
    "latency_ms": "service_time_ms",
    "service_time_ms": "service_time_ms",
    "time_to_first_byte_ms": "time_to_first_byte_ms",
}
OPEN_LOOP = CLOSED_LOOP | {"latency_ms": "latency_ms", "send_delay_ms": "send_delay_ms"}


def test_every_percentile_and_its_interval(report, samples):
    checked = 0
    for target, facts in report["targets"].items():
        for scenario, figures in (("single", CLOSED_LOOP), ("poisson", OPEN_LOOP)):
            found, lines = facts["scenarios"][scenario], samples[target, scenario]
            assert (found["sent"], found["succeeded"]) == (len(lines), sum("error" not in line for line in lines))
            if scenario == "single":
                assert found["send_delay_ms"] is None
                after_pause = [s["service_time_ms"] for s in lines if not s["index_in_block"]]
                assert_percentiles({"p50": found["after_pause_ms"]}, after_pause, [""] * len(after_pause))
                lines = [line for line in lines if line["index_in_block"]]
            instances = [line["instance_id"] for line in lines]
            for figure, key in figures.items():
                of = instances if figure != "send_delay_ms" else [""] * len(lines)  # it is the client's
                assert_percentiles(found[figure], [line[key] for line in lines], of)
                checked += 1
            for part in ("decode", "queue", "inference", "total"):
                assert_percentiles(
                    found["server_timing_ms"][part], [line["server_timing_ms"][part] for line in lines], instances
                )
                checked += 1
    assert checked == len(report["targets"]) * (7 + 8) == 10 * 15


def average_precision(is_class, score):
    """Mean over the class's images of the fraction of the class among what ranks as high."""
    return np.mean([is_class[score >= limit].mean() for limit in score[is_class]])


def test_every_figure_of_accuracy(report, answers, labels):
    true = np.array(labels)
    for target, facts in report["targets"].items():
        label, probabilities = answers[target]
        right = label == true
        exact = scipy.stats.binomtest(int(right.sum()), len(true)).proportion_ci(0.95, method="wilson")
        estimate = facts["accuracy"]
        assert (estimate["value"], estimate["low"], estimate["high"]) == pytest.approx((right.mean(), *exact))
        f1, auc, precision, ranked, images = [], [], [], [], np.bincount(true, minlength=10)
        for c in range(10):
            hits = (right & (true == c)).sum()
            f1.append(2 * hits / ((true == c).sum() + (label == c).sum()))
            precision.append(hits / (label == c).sum())
            ranked.append(average_precision(true == c, probabilities[:, c]))
            assert facts["per_class"][c]["average_precision"] == pytest.approx(ranked[-1])
            score = probabilities[:, c] / probabilities.sum(axis=1)
            statistic = scipy.stats.mannwhitneyu(score[true == c], score[true != c]).statistic
            auc.append(statistic / ((true == c).sum() * (true != c).sum()))
        assert facts["f1_macro"]["value"] == pytest.approx(np.mean(f1))
        assert facts["f1_weighted"]["value"] == pytest.approx(np.average(f1, weights=images))
        assert facts["precision_macro"]["value"] == pytest.approx(np.mean(precision))
        assert facts["precision_weighted"]["value"] == pytest.approx(np.average(precision, weights=images))
        assert facts["average_precision"]["value"] == pytest.approx(np.mean(ranked))
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        hits = (best == true[:, None]).any(axis=1)
        exact = scipy.stats.binomtest(int(hits.sum()), len(true)).proportion_ci(0.95, method="wilson")
        estimate = facts["top5_accuracy"]
        assert (estimate["value"], estimate["low"], estimate["high"]) == pytest.approx((hits.mean(), *exact))
        wrong = Counter(zip(true[~right].tolist(), label[~right].tolist(), strict=True))
        for pair in facts["most_confused"]:
            cell = NAMES.index(pair["label"]), NAMES.index(pair["predicted"])
            assert pair["images"] == wrong[cell] == facts["confusion"][cell[0]][cell[1]]
        assert [p["images"] for p in facts["most_confused"]] == sorted(wrong.values(), reverse=True)[:20]
        assert facts["roc_auc"]["value"] == pytest.approx(np.mean(auc))
        confidence = probabilities.max(axis=1)
        bins = np.ceil(confidence * 15)
        gaps = [abs((confidence - right)[bins == b].sum()) for b in np.unique(bins)]
        assert facts["ece"]["value"] == pytest.approx(sum(gaps) / len(true))


def test_every_pair_agrees_as_said(report, answers, labels):
    true, p_values = np.array(labels), {}
    for pair, found in report["agreement"].items():
        a, b = (answers[name] for name in pair.split("|"))
        assert found["disagreements"] == (a[0] != b[0]).sum()
        assert found["max_abs_prob_diff"] == pytest.approx(np.abs(a[1] - b[1]).max(), abs=1e-8)
        only_a, only_b = int(((a[0] == true) & (b[0] != true)).sum()), int(((b[0] == true) & (a[0] != true)).sum())
        assert (found["mcnemar"]["only_a_correct"], found["mcnemar"]["only_b_correct"]) == (only_a, only_b)
        p = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        assert found["mcnemar"]["p"] == pytest.approx(p)
        if (a[0] != b[0]).any():
            p_values[a[0].tobytes(), b[0].tobytes()] = p
            assert found["mcnemar"]["p_holm"] == pytest.approx(p)  # two networks, two sets of answers: one hypothesis
    assert len({frozenset(key) for key in p_values}) == 1


def rounds(samples, target):
    """Latencies of the single scenario: a row for each round, a request in each column, without the first one."""
    return np.array([line["service_time_ms"] for line in in_rounds(samples, target)]).reshape(-1, 25)[:, 1:]


def in_rounds(samples, target, scenario="single"):
    return sorted(samples[target, scenario], key=lambda line: (line["block"], line["index_in_block"]))


def stream(samples, target):
    """Latencies of the open stream, an array for each of its blocks; and who answered first in each."""
    blocks = [list(block) for _, block in groupby(in_rounds(samples, target, "poisson"), itemgetter("block"))]
    return [np.array([line["latency_ms"] for line in block]) for block in blocks], [b[0]["instance_id"] for b in blocks]


def instances_of(samples, *targets):
    """The instances of the targets in each round, which change together or not."""
    return list(zip(*([line["instance_id"] for line in in_rounds(samples, t)[::25]] for t in targets), strict=True))


def paired_t(a, b, p, instances):
    """Of equal p-quantiles: the difference of the fractions above the common one, round by round."""
    limit = quantile(np.concatenate([*a, *b]), p)

    def above(rounds):  # relative to the mean size of a round
        return np.array([((x > limit) + (x == limit) / 2).sum() for x in rounds]) * len(rounds) / sum(map(len, rounds))

    series = above(b) - above(a)
    variance, degrees_of_freedom = variance_of_mean(series, instances)
    tolerance = 1 / min(sum(map(len, a)), sum(map(len, b)))
    return abs(series.mean()) - tolerance, math.sqrt(variance) * scipy.stats.t.ppf(0.975, degrees_of_freedom)


def contradicted(a, b, p, ratio, instances):
    difference, limit = paired_t([x * ratio for x in a], b, p, instances)
    return difference > limit


def test_who_is_as_fast_as_the_fastest(report, samples):
    verdict = report["verdict"]
    assert verdict["scenario"] == "poisson"
    p95 = {name: quantile(np.concatenate(stream(samples, name)[0]), 0.95) for name in report["targets"]}
    first = min(p95, key=p95.get)
    assert verdict["fastest"] is None  # of twins none is called so
    fastest, fastest_instances = stream(samples, first)
    assert set(verdict["vs_fastest"]) == set(p95) - {first}
    for name, decision in verdict["vs_fastest"].items():
        other, other_instances = stream(samples, name)
        instances = list(zip(fastest_instances, other_instances, strict=True))
        equal, margins = contradicted(fastest, other, 0.95, 1, instances), (1 / 1.05, 1.05)
        within = all(contradicted(fastest, other, 0.95, margin, instances) for margin in margins) and margins[0] < (
            p95[name] / p95[first]
        ) < margins[1]  # fmt: skip
        assert decision == ("equivalent" if within else "different" if equal else "undecided"), name


def test_how_many_times_as_fast_an_engine_is(report, samples):
    assert len(report["engine_comparisons"]) == 5
    for found in report["engine_comparisons"]:
        a, b = rounds(samples, found["a"]), rounds(samples, found["b"])
        instances = instances_of(samples, found["a"], found["b"])
        for name in ("p50", "p95"):
            speedup, p = found["latency_ms"][name]["speedup"], PERCENTILES[name]
            assert speedup["value"] == pytest.approx(quantile(a, p) / quantile(b, p))
            for end, away in ((speedup["low"], 0.995), (speedup["high"], 1.005)):  # the end of what is not contradicted
                assert not contradicted(a, b, p, 1 / (end / away), instances), (found["a"], name)
                assert contradicted(a, b, p, 1 / (end * away), instances), (found["a"], name)


def test_drift_is_a_trend_beyond_what_blocks_vary_by(report, samples):
    medians = {name: np.log(np.median(rounds(samples, name), axis=1)) for name in report["targets"]}
    shared = np.median(list(medians.values()), axis=0)

    def p_of_no_trend(series):
        trend = scipy.fft.dct(series - series.mean())[1]
        line = np.polyval(np.polyfit(np.arange(len(series)), series, 1), np.arange(len(series)))
        noise = scipy.fft.dct(series - line)[2:8]
        return 2 * scipy.stats.t.sf(abs(trend) / math.sqrt(np.mean(np.square(noise))), 6)

    for name, facts in report["targets"].items():
        drift = facts["scenarios"]["single"]["drift"]
        assert drift["blocks"] == 400
        assert drift["p"] == pytest.approx(p_of_no_trend(medians[name] - shared))
        first, last = (np.median(part) for part in (np.exp(medians[name][:133]), np.exp(medians[name][-133:])))
        assert (drift["first_ms"], drift["last_ms"]) == pytest.approx((first, last))
        own = (medians[name] - shared)[:133], (medians[name] - shared)[-133:]
        assert drift["own_change"] == pytest.approx(math.expm1(np.median(own[1]) - np.median(own[0])), abs=1e-6)


def test_cold_starts_are_those_of_new_instances(report, samples):
    for name, facts in report["targets"].items():
        starts = [line for line in samples[name, "cold"] if line["instance_request_number"] == 1]
        found = facts["cold_starts"]["forced"]
        first_ms = [start["service_time_ms"] for start in starts]
        assert found["latency_ms"]["p50"]["value"] == pytest.approx(quantile(first_ms, 0.5))
        whole = [start["startup_ms"]["time_to_first_prediction"] for start in starts]
        assert found["time_to_first_prediction_ms"]["p50"]["value"] == pytest.approx(quantile(whole, 0.5))


# Money. Prices are read from the list as plain YAML; the rules are written here from the providers' price pages.

MONTH_S = 730 * 3600
HIGHEST_OVER_MEAN = 3
PRICE_LIST = yaml.safe_load((Path(__file__).parents[3] / "eval" / "cost" / "prices.yaml").read_text())
LISTED = {entry["id"]: entry["amount"] for entry in [*PRICE_LIST["prices"], *PRICE_LIST["allowances"]]}


@dataclass(frozen=True)
class Work:
    """What a request takes: means over the measured requests of the single scenario."""

    inside_s: float
    billed_s: float  # each rounded up to 100 ms
    cpu_s: float
    highest_rps: float  # within the objective
    start_s: float
    answer_bytes: float
    image_gib: float  # that a registry stores


STORED_TARGETS = {target["name"]: target for target in json.loads((EXAMPLE / "run.json").read_text())["targets"]}
LIBRARIES_MB = {"torch": (995, 265), "onnx": (179, 59)}  # installed, and packed by gzip


def image_gib(target):
    """A base of 50 MB, what is shipped, and the libraries as gzip packs them; where they are not known, as listed."""
    record = STORED_TARGETS[target]
    shipped = record.get("artifact") or record["shipped"]
    installed_mb, packed_mb = LIBRARIES_MB[record["engine"]]
    here_mb = installed_mb if shipped["installed_bytes"] is None else shipped["installed_bytes"] / 1e6
    return (50e6 + shipped["files_bytes"] + here_mb / installed_mb * packed_mb * 1e6) / 1024**3


def work_of(samples, target, times_slower=1):
    lines = samples[target, "single"]
    inside_s = np.array([line["server_timing_ms"]["total"] for line in lines]) * times_slower / 1000
    network_s = np.array([line["server_timing_ms"]["inference"] for line in lines]) * times_slower / 1000
    busy_cores = 2 if target.startswith("aws_ec2") else 1  # in the network's forward pass
    measured_ms = [line["cpu_ms"] for line in lines if "cpu_ms" in line]  # of all the twin's processes
    assumed_s = (inside_s + (busy_cores - 1) * network_s).mean()
    cpu_s = np.mean(measured_ms) * times_slower / 1000 if measured_ms else assumed_s
    starts_s = [
        line["startup_ms"]["time_to_first_prediction"] / 1000
        for line in samples[target, "cold"]
        if line["instance_request_number"] == 1
    ]
    return Work(
        inside_s=inside_s.mean(),
        billed_s=(np.ceil(np.round(inside_s * 10, 8)) / 10).mean(),
        cpu_s=cpu_s,
        highest_rps=highest_rps(samples[target, "max_rate"]) / times_slower,
        start_s=quantile(starts_s, 0.5) * times_slower,
        answer_bytes=np.mean([line["response_bytes"] for line in lines]) + 500,  # and its headers
        image_gib=image_gib(target),
    )


def highest_rps(lines, objective_ms=200):
    """The highest of the rates that were tried whose p95 was within the objective; a failure is never in time.

    A rate may have been tried twice: once within it is enough.
    """
    steps = defaultdict(list)
    for line in lines:
        steps[line["rate_rps"], line["block"]].append(math.inf if "error" in line else line["latency_ms"])
    return max(rate for (rate, _), latency_ms in steps.items() if quantile(latency_ms, 0.95) <= objective_ms)


def machines(rate, work):
    """Machines or dynos, each at its highest rate at most."""
    return max(1, math.ceil(round(rate / work.highest_rps, 9)))


def ec2_bills(n, work, peak):
    """A t3.small with an address and 16 GB of gp3; CPU beyond 0.4 vCPUs of each; 100 GB sent are free."""
    count = machines(n / MONTH_S * peak, work)
    hours = 730 * count
    machine = hours * (LISTED["aws_ec2_t3_small_hour"] + LISTED["aws_public_ipv4_hour"])
    machine += count * 16 * LISTED["aws_ebs_gp3_gb_month"]
    surplus = max(0.0, n * work.cpu_s / 3600 - 0.4 * hours) * LISTED["aws_ec2_t3_surplus_vcpu_hour"]
    sent_gb = n * work.answer_bytes / 1e9
    gross = machine + surplus + sent_gb * LISTED["aws_egress_gb"]
    net = machine + surplus + max(0.0, sent_gb - LISTED["aws_free_egress_gb"]) * LISTED["aws_egress_gb"]
    return (gross,) * 3, (net,) * 3, count


def heroku_bills(n, work, peak):
    """One Basic dyno; it does not scale, so several are Standard-1X."""
    count = machines(n / MONTH_S * peak, work)
    usd = LISTED["heroku_basic_month"] if count == 1 else count * LISTED["heroku_standard_1x_month"]
    return (usd,) * 3, (usd,) * 3, count


def google_bills(n, work, peak, name, at_once, boost, warm=0):
    """1 vCPU and 1 GiB while a request is inside: the model's bill, and its bounds.

    Requests come in 24 / peak hours of a day. An idle instance is kept 15 minutes, at the upper bound one. Instances
    take 60% of their CPU and of `at_once`, and no two requests one CPU at a time. With `boost` a starting instance has
    a second vCPU. `warm` instances never end: nothing starts, and their idle time has a price of its own, that no
    allowance covers.
    """

    def instances(rate):
        return max(1, math.ceil(round(rate * max(work.cpu_s, work.inside_s / at_once) / 0.6, 9)))

    rate, busy_s, day_s = n / MONTH_S * peak, MONTH_S / peak, 86400 / peak
    count = instances(rate)
    mornings = 730 / 24 * (1 - math.exp(-rate * day_s)) if peak > 1 else 0.0  # days whose first request finds nothing
    starts_s, most_starts_s = (
        (mornings + (n - mornings) * math.exp(-rate * idle_s)) * work.start_s * (not warm) for idle_s in (900, 60)
    )
    share = rate / count  # a Poisson stream is absent from an instance for exp(-rate x time) of the busy hours
    some_inside_s, none_rounded_s = (
        max(n * min(time_s, work.cpu_s), count * busy_s * (1 - math.exp(-share * time_s)))
        for time_s in (work.billed_s, work.inside_s)
    )
    sent_gib = n * work.answer_bytes / 1024**3
    gross, net = [], []
    for inside_s, start_s in (
        (some_inside_s, starts_s),
        (none_rounded_s, starts_s),
        (n * work.billed_s, most_starts_s),
    ):
        used = {
            f"{name}_vcpu_second": (inside_s + start_s * (2 if boost else 1), LISTED["gcp_cloudrun_free_vcpu_seconds"]),
            f"{name}_gib_second": (inside_s + start_s, LISTED["gcp_cloudrun_free_gib_seconds"]),
            f"{name}_million_requests": (n / 1e6, LISTED["gcp_cloudrun_free_requests"] / 1e6),
            "gcp_egress_gib": (sent_gib, LISTED["gcp_free_egress_gib"]),
            "gcp_artifact_registry_gib_month": (work.image_gib, LISTED["gcp_artifact_registry_free_gib"]),
        }
        if warm:
            idle_s = warm * (MONTH_S - min(MONTH_S, inside_s / max(count, warm)))
            used |= {f"{name}_idle_{unit}_second": (idle_s, 0.0) for unit in ("vcpu", "gib")}
        gross.append(sum(amount * LISTED[price] for price, (amount, _) in used.items()))
        net.append(sum(max(0.0, amount - free) * LISTED[price] for price, (amount, free) in used.items()))
    return tuple(gross), tuple(net), count


def sagemaker_bills(n, work, peak):
    """One ml.m5.large for ever, others while they are needed and the quarter of an hour after; each GB in and out."""
    count = machines(n / MONTH_S * peak, work)
    busy_hours = min(730, 730 / peak + 730 / 24 / 4)
    hours = 730 + (count - 1) * busy_hours
    sent_gb = n * work.answer_bytes / 1e9
    usd = hours * LISTED["aws_sagemaker_ml_m5_large_hour"] + work.image_gib * LISTED["aws_ecr_gb_month"]
    usd += (n * 3000 / 1e9 + sent_gb) * LISTED["aws_sagemaker_processed_gb"]
    gross = usd + sent_gb * LISTED["aws_egress_gb"]
    net = usd + max(0.0, sent_gb - LISTED["aws_free_egress_gb"]) * LISTED["aws_egress_gb"]
    return (gross,) * 3, (net,) * 3, count


BILLS = {
    "aws_sagemaker": sagemaker_bills,
    "aws_ec2": ec2_bills,
    "heroku": heroku_bills,
    "gcp_cloudrun": partial(google_bills, name="gcp_cloudrun", at_once=4, boost=True),
    "gcp_function": partial(google_bills, name="gcp_function", at_once=1, boost=False),
}
MOST_INSTANCES = {"aws_sagemaker": 3, "aws_ec2": 1, "heroku": 3, "gcp_cloudrun": 3, "gcp_function": 3}


def bills(target, n, work, peak=HIGHEST_OVER_MEAN):
    return BILLS[target.partition("-")[0]](n, work, peak)


@pytest.fixture(scope="module")
def work(report, samples):
    return {target: work_of(samples, target) for target in report["targets"]}


def assert_bill(found, target, n, work, peak=HIGHEST_OVER_MEAN):
    gross, net, count = bills(target, n, work, peak)
    for kind, expected in (("gross", gross), ("net", net)):
        names = (f"{kind}_usd", f"{kind}_low_usd", f"{kind}_high_usd")
        assert [found[name] for name in names] == pytest.approx(expected, rel=1e-6, abs=2e-6), (target, n)
    assert found["instances"] == count, (target, n)
    assert found["exceeds_max_instances"] == (count > MOST_INSTANCES[target.partition("-")[0]])


def test_every_bill_and_every_point_of_the_curve(report, work):
    for target, facts in report["targets"].items():
        cost = facts["cost"]
        assert sorted(map(int, cost["monthly_usd"])) == [10_000, 1_000_000, 100_000_000]
        for n, found in cost["monthly_usd"].items():
            assert_bill(found, target, int(n), work[target])
        rates = np.logspace(-3, 4, 141)
        for rate, found in zip(rates, cost["curve"], strict=True):
            assert found["rps"] == pytest.approx(rate, rel=1e-5)
            assert_bill(found, target, rate * MONTH_S, work[target])
        for rate, found in cost["per_million"].items():
            n = int(rate) * MONTH_S
            assert found["gross_usd"] == pytest.approx(bills(target, n, work[target])[0][0] / n * 1e6, abs=2e-6)
    busy = MONTH_S / HIGHEST_OVER_MEAN  # requests a month at 1 a second while busy
    nets = {target: bills(target, busy, work[target])[1][0] for target in work}
    assert nets[report["verdict"]["recommended"]] == pytest.approx(min(nets.values()))
    for target, option in report["verdict"]["options"].items():
        bills_of = BILLS[target.partition("-")[0]]
        if getattr(bills_of, "func", None) is not google_bills:
            assert option["always_warm_usd"] is None
        else:
            _, (warm_usd, *_), _ = bills_of(busy, work[target], HIGHEST_OVER_MEAN, warm=1)
            assert option["always_warm_usd"] == pytest.approx(warm_usd)


def test_every_bill_where_an_assumption_is_another(report, samples, work):
    for target, facts in report["targets"].items():
        what_if = facts["cost"]["what_if"]
        tls = replace(work[target], answer_bytes=work[target].answer_bytes + 4500)
        others = {"constant_rate": (work[target], 1), "new_connections": (tls, HIGHEST_OVER_MEAN)}
        for n in (2, 3, 4):
            others[f"processor_{n}x_slower"] = work_of(samples, target, times_slower=n), HIGHEST_OVER_MEAN
        assert what_if.keys() == others.keys()
        for name, (other_work, peak) in others.items():
            for n, found in what_if[name].items():
                assert_bill(found, target, int(n), other_work, peak)


def lasting_changes(nets_a, nets_b, traffic):
    """Where a becomes dearer or cheaper for good: (1 or -1, places in the grid before and after). traffic: of a change.

    Bills within half a cent or half a percent are tied. Of changes that last for less than twice the traffic the
    shortest is no change, again and again.
    """
    difference = nets_a - nets_b
    clear = np.flatnonzero(np.abs(difference) > np.maximum(0.005, 0.005 * np.maximum(nets_a, nets_b)))
    changes = [
        (np.sign(difference[j]), i, j) for i, j in pairwise(clear) if np.sign(difference[i]) != np.sign(difference[j])
    ]
    while len(changes) > 1:
        spans = [traffic(after) / traffic(before) for before, after in pairwise(changes)]
        if min(spans) >= 2:
            break
        shortest = int(np.argmin(spans))
        del changes[shortest : shortest + 2]
    return changes


def test_every_break_even_point_and_its_range(report, work):
    grid = np.geomspace(1e-3 * MONTH_S, 1e4 * MONTH_S, 701)
    nets = {target: np.array([bills(target, n, work[target])[1] for n in grid]) for target in work}

    def traffic(a, b, bound, change):
        sign, i, j = change
        low, high = grid[i], grid[j]
        for _ in range(60):
            middle = (low + high) / 2
            dearer = bills(a, middle, work[a])[1][bound] - bills(b, middle, work[b])[1][bound]
            low, high = (low, middle) if sign * dearer > 0 else (middle, high)
        return low

    listed = defaultdict(list)
    for point in report["break_even"]:
        listed[point["a"], point["b"]].append(point)
    assert len(listed) == math.comb(len(work), 2) == 45
    for (a, b), points in listed.items():
        expected, *at_bounds = (
            lasting_changes(nets[a][:, bound], nets[b][:, bound], cache(partial(traffic, a, b, bound)))
            for bound in range(3)
        )
        points = [point for point in points if isinstance(point["requests_per_month"], int)]
        for change, point in zip(expected, points, strict=True):
            assert (point["cheaper_below"], point["cheaper_above"]) == ((a, b) if change[0] > 0 else (b, a))
            at = traffic(a, b, 0, change)
            found = [at]
            for bound, changes in enumerate(at_bounds, 1):
                alike = [traffic(a, b, bound, other) for other in changes if other[0] == change[0]]
                found += [min(alike, key=lambda n, at=at: abs(math.log(n / at)))] if alike else []
            assert point["may_be_absent"] == (len(found) < 3)
            ends = point["requests_per_month_low"], point["requests_per_month"], point["requests_per_month_high"]
            assert ends == pytest.approx((min(found), at, max(found)), rel=1e-6, abs=2), (a, b)
