"""The example's report computed again from its samples, by code that shares nothing with eval/.

It reads the lines of samples.jsonl.gz as they are, in the words of their schema, and takes numpy and scipy alone. The
money is worked out by hand in tests/eval/cost.
"""

import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.stats

EXAMPLE = Path(__file__).parents[3] / "reports" / "example"
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
T_OVER_NORMAL = scipy.stats.t.ppf(0.975, 6) / scipy.stats.norm.ppf(0.975)


@pytest.fixture(scope="module")
def report():
    return json.loads((EXAMPLE / "report.json").read_text())


@pytest.fixture(scope="module")
def labels():
    return [image["label"] for image in json.loads((EXAMPLE / "run.json").read_text())["images"]]


@pytest.fixture(scope="module")
def samples():
    """(target, scenario) -> the measured lines, in the order of sending."""
    grouped = defaultdict(list)
    with gzip.open(EXAMPLE / "samples.jsonl.gz", "rt") as lines:
        for line in map(json.loads, lines):
            if line["phase"] == "measure":
                grouped[line["target"], line["scenario"]].append(line)
    for group in grouped.values():
        group.sort(key=lambda line: line["started_s"])
    return grouped


@pytest.fixture(scope="module")
def answers(samples, report):
    """Target -> class ids and probabilities of the images, in the order of the manifest."""
    found = {}
    for target in [*report["targets"], "reference"]:
        lines = samples[target, "reference" if target == "reference" else "single"]
        by_image = {line["image"]: line for line in lines}
        ordered = [by_image[image] for image in sorted(by_image)]
        found[target] = np.array([line["label"] for line in ordered]), np.array([p["probabilities"] for p in ordered])
    return found


def quantile(values, p):
    """The smallest value that a fraction p of all does not exceed."""
    return np.sort(values, axis=None)[math.ceil(round(p * np.size(values), 9)) - 1]


def variance_of_mean(series, n_cosines):
    projections = scipy.fft.dct(series - np.mean(series))[1 : n_cosines + 1]
    return np.mean(projections**2) / (2 * len(series) ** 2)


def interval(values, p):
    """Clopper and Pearson's for as many independent samples as the fraction above the percentile is worth."""
    values, n = np.asarray(values), len(values)
    above = values > quantile(values, p)
    fraction = above.mean()
    effective_n = n * 4
    if (variance := variance_of_mean(above, 6)) * 4 > fraction * (1 - fraction) / n:
        effective_n = max(1.0, fraction * (1 - fraction) / variance)
    effective_n /= T_OVER_NORMAL**2
    low = scipy.stats.beta.ppf(0.025, effective_n * p, effective_n * (1 - p) + 1)
    high = scipy.stats.beta.ppf(0.975, effective_n * p + 1, effective_n * (1 - p))
    ordered = np.sort(values)
    return ordered[max(0, math.ceil(low * n) - 1)], ordered[min(n - 1, math.ceil(high * n))]


def assert_percentiles(found, values):
    for name, estimate in found.items():
        if estimate["value"] is not None:
            p = PERCENTILES[name]
            assert estimate["value"] == pytest.approx(quantile(values, p))
            assert (estimate["low"], estimate["high"]) == pytest.approx(interval(values, p)), name


def test_every_percentile_and_its_interval(report, samples):
    checked = 0
    for target, facts in report["targets"].items():
        for scenario in ("single", "poisson"):
            found, lines = facts["scenarios"][scenario], samples[target, scenario]
            assert (found["sent"], found["succeeded"]) == (len(lines), sum("error" not in line for line in lines))
            for figure, key in {
                "latency_ms": "latency_ms",
                "service_time_ms": "service_ms",
                "time_to_first_byte_ms": "first_byte_ms",
                "send_delay_ms": "lateness_ms",
            }.items():
                assert_percentiles(found[figure], [line[key] for line in lines])
                checked += 1
            for part in ("decode", "queue", "inference", "total"):
                assert_percentiles(found["server_timing_ms"][part], [line["server_ms"][part] for line in lines])
                checked += 1
    assert checked == 8 * 2 * 8


def test_every_figure_of_accuracy(report, answers, labels):
    true = np.array(labels)
    for target, facts in report["targets"].items():
        label, probabilities = answers[target]
        right = label == true
        exact = scipy.stats.binomtest(int(right.sum()), len(true)).proportion_ci(0.95, method="wilson")
        estimate = facts["accuracy"]
        assert (estimate["value"], estimate["low"], estimate["high"]) == pytest.approx((right.mean(), *exact))
        f1, auc = [], []
        for c in range(10):
            hits = (right & (true == c)).sum()
            f1.append(2 * hits / ((true == c).sum() + (label == c).sum()))
            score = probabilities[:, c] / probabilities.sum(axis=1)
            statistic = scipy.stats.mannwhitneyu(score[true == c], score[true != c]).statistic
            auc.append(statistic / ((true == c).sum() * (true != c).sum()))
        assert facts["f1_macro"] == pytest.approx(np.mean(f1))
        assert facts["roc_auc"] == pytest.approx(np.mean(auc))
        confidence = probabilities.max(axis=1)
        bins = np.ceil(confidence * 15)
        gaps = [abs((confidence - right)[bins == b].sum()) for b in np.unique(bins)]
        assert facts["ece"] == pytest.approx(sum(gaps) / len(true))


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
    """Latencies of the single scenario: a row for each round, an image in each column."""
    lines = sorted(samples[target, "single"], key=lambda line: (line["block"], line["place"]))
    return np.array([line["latency_ms"] for line in lines]).reshape(-1, 25)


def paired_t(a, b, p):
    """Of equal p-quantiles: the difference of the fractions above the common one, round by round."""
    limit = quantile(np.concatenate([a.ravel(), b.ravel()]), p)
    above_a, above_b = ((x > limit) + (x == limit) / 2 for x in (a, b))
    series = (above_b - above_a).mean(axis=1)
    return abs(series.mean()) - 1 / a.size, math.sqrt(variance_of_mean(series, 6)) * scipy.stats.t.ppf(0.975, 6)


def contradicted(a, b, p, ratio):
    difference, limit = paired_t(a * ratio, b, p)
    return difference > limit


def test_who_is_as_fast_as_the_fastest(report, samples):
    verdict = report["verdict"]
    p95 = {name: quantile(rounds(samples, name), 0.95) for name in report["targets"]}
    assert verdict["fastest"] == min(p95, key=p95.get)
    fastest = rounds(samples, verdict["fastest"])
    assert set(verdict["vs_fastest"]) == set(p95) - {verdict["fastest"]}
    for name, decision in verdict["vs_fastest"].items():
        other = rounds(samples, name)
        equal, margins = contradicted(fastest, other, 0.95, 1), (1 / 1.05, 1.05)
        within = all(contradicted(fastest, other, 0.95, margin) for margin in margins) and margins[0] < (
            p95[name] / p95[verdict["fastest"]]
        ) < margins[1]  # fmt: skip
        assert decision == ("equivalent" if within else "different" if equal else "undecided"), name


def test_how_many_times_as_fast_an_engine_is(report, samples):
    assert len(report["engine_comparisons"]) == 4
    for found in report["engine_comparisons"]:
        a, b = rounds(samples, found["a"]), rounds(samples, found["b"])
        for name in ("p50", "p95"):
            speedup, p = found["latency_ms"][name]["speedup"], PERCENTILES[name]
            assert speedup["value"] == pytest.approx(quantile(a, p) / quantile(b, p))
            for end, away in ((speedup["low"], 0.995), (speedup["high"], 1.005)):  # the end of what is not contradicted
                assert not contradicted(a, b, p, 1 / (end / away)), (found["a"], name)
                assert contradicted(a, b, p, 1 / (end * away)), (found["a"], name)


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
        starts = [line for line in samples[name, "cold"] if line["ordinal"] == 1]
        found = facts["cold_starts"]["forced"]
        assert found["latency_ms"]["p50"]["value"] == pytest.approx(quantile([s["latency_ms"] for s in starts], 0.5))
        whole = [start["startup_ms"]["create"] for start in starts]
        assert found["time_to_first_prediction_ms"]["p50"]["value"] == pytest.approx(quantile(whole, 0.5))
