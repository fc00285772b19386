"""What stands between a run and believing it: why its targets cannot be compared, and what a reader must know first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from statistics import median
from typing import Any

from eval.analysis.drift import drift_warnings
from eval.analysis.findings import Findings
from eval.analysis.slo import MAX_ERROR_RATE
from eval.cost.price_list import STALE_AFTER_DAYS, Price, PriceList, stale_prices, unconfirmed_prices
from eval.formatting import count, disagreement_text, join_words, mib, percent, percentage_points, plural, value_of
from eval.plan.config import BURST
from eval.samples.model import REFERENCE, Run, Sample
from eval.stats.intervals import nearest_rank
from eval.targets.engines import REFERENCE_ENGINE
from service.engines.names import engine_title

MAX_SEND_DELAY_FRACTION, MIN_SEND_DELAY_MS = (
    0.05,
    5.0,
)  # of the median latency, and at least; a p99 of lateness above both measured the client
ACCURACY_ALPHA = 0.05  # of the test whether an engine is right less often
ENGINES_TOO_DIFFERENT = "engines may round differently, but not so often: they cannot run the same model"

SamplesByTarget = Mapping[str, Sequence[Sample]]  # target -> its measured samples


def invalid_reasons(run: Run, samples_by_target: SamplesByTarget, targets: Mapping[str, Any]) -> list[str]:
    """Why this is no comparison of targets: they ran different models, or the client was too slow."""
    return [*_mixed_model_versions(samples_by_target, targets), *_client_saturation(run, samples_by_target, targets)]


def run_warnings(run: Run, findings: Findings, prices: PriceList, prices_used: Iterable[Price]) -> list[str]:
    """The run's warnings, the gravest first."""
    lines = [f"the run is not complete: {findings.note}"] if findings.note else []
    n_sent = sum(target_report["asked"] for target_report in findings.targets.values())
    if n_sent < run.planned_requests:
        lines.append(
            f"{count(run.planned_requests - n_sent)} of {count(run.planned_requests)} planned requests were never sent"
        )
    lines += [f"not a valid comparison: {reason}" for reason in findings.invalid]
    lines += [line for target_report in findings.targets.values() for line in _target_warnings(target_report)]
    lines += _cpu_contention(run, findings.targets)
    titles = {name: target_report["title"] for name, target_report in findings.targets.items()}
    lines += drift_warnings(_drift_by_target(findings.targets), titles)
    cached_titles = [
        target_report["title"] for target_report in findings.targets.values() if target_report["cache"]["suspected"]
    ]
    if cached_titles:
        lines.append(
            f"{join_words(cached_titles)}: the same picture again is answered faster than new ones; something caches"
        )
    for a, b, agreement in findings.disagreements():
        pair_titles = f"{findings.title(a)} and {findings.title(b)}"
        explanation = (
            ENGINES_TOO_DIFFERENT if findings.engines_differ(a, b) else "the same model must answer alike everywhere"
        )
        lines.append(f"{pair_titles} differ on {disagreement_text(agreement)}; {explanation}")
    lines += _accuracy_regressions(findings)
    if not findings.has_reference and findings.measured_targets:
        lines.append("the model's own answers could not be had, so the targets are compared with each other only")
    return lines + _price_warnings(run, prices, prices_used)


def _accuracy_regressions(findings: Findings) -> list[str]:
    """Switches of the engine that surely cost accuracy."""
    drops_by_engine: dict[str, list[float]] = defaultdict(list)
    for comparison in findings.engine_comparisons:
        change, p = (
            value_of(comparison["accuracy"]["difference"]),
            value_of(comparison["accuracy"]["mcnemar"]["p_holm"]),
        )
        if change is not None and p is not None and change < 0 and p < ACCURACY_ALPHA:
            drops_by_engine[comparison["engines"]["b"]].append(-change)
    return [
        f"{engine_title(engine)} is right less often than {engine_title(REFERENCE_ENGINE)}, by up to "
        f"{percentage_points(max(drops)).removeprefix('+')}; that is not chance (McNemar's test, p below "
        f"{ACCURACY_ALPHA:g} after Holm)"
        for engine, drops in drops_by_engine.items()
    ]


def _drift_by_target(targets: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            scenario: scenario_report["drift"]
            for scenario, scenario_report in target_report["scenarios"].items()
            if scenario_report["drift"]
        }
        for name, target_report in targets.items()
    }


def model_versions(samples: Iterable[Sample]) -> list[str]:
    """Every version that answered."""
    return sorted({s.model_version for s in samples if s.model_version})


def run_date(run: Run) -> date:
    """The day on which the run was made, which prices are held against."""
    return date.fromisoformat(run.started_at[:10])


def _target_warnings(target_report: Mapping[str, Any]) -> list[str]:
    lines = []
    if target_report["failure"]:
        lines.append(f"{target_report['title']}: {target_report['failure'].splitlines()[0]}")
    failed = sum(target_report["errors"].values())
    if failed > MAX_ERROR_RATE * target_report["sent"]:
        kinds = ", ".join(f"{kind} {count(number)}" for kind, number in target_report["errors"].items())
        failure_text = (
            f"{count(failed)} of {plural(target_report['sent'], 'request')} failed "
            f"({percent(failed / target_report['sent'])})"
        )
        lines.append(f"{target_report['title']}: {failure_text}: {kinds}")
    if target_report["memory"]["fits"] is False:
        peak, limit = mib(target_report["memory"]["peak_mib"]), mib(target_report["memory"]["limit_mib"])
        cuda_text = "; PyTorch's CUDA build ran here, the clouds install the much smaller CPU build"
        build_note = cuda_text if target_report["memory"]["cuda_build"] else ""
        lines.append(f"{target_report['title']}: took {peak} of memory, the target has {limit}{build_note}")
    return lines


def _cpu_contention(run: Run, targets: Mapping[str, Any]) -> list[str]:
    """Twins that were given every core, so that the client takes some of their time and some of their rank."""
    cores = run.client_environment.get("cores")
    contending = [f["title"] for f in targets.values() if f["twin"] and f["n"] and cores and (f["cpus"] or 0) >= cores]
    if not contending:
        return []
    return [
        f"{join_words(contending)}: as many cores as this machine has ({cores}), shared with the client that measures; "
        "the latency holds that rivalry, in the slow tail most, and the rank by it may not be the cloud's"
    ]


def _price_warnings(run: Run, prices: PriceList, prices_used: Iterable[Price]) -> list[str]:
    lines = []
    if run.prices_sha256 != prices.sha256:
        lines.append(f"the price list has changed since the run; costs are by the list of {prices.date}")
    if outdated := stale_prices(prices_used, run_date(run)):
        outdated_text = join_words([f"{price.id} ({price.date})" for price in outdated])
        lines.append(f"prices older than {STALE_AFTER_DAYS} days when the run was made: {outdated_text}")
    if not_confirmed := unconfirmed_prices(prices_used):
        lines.append(f"prices from memory, or not confirmed: {join_words([price.id for price in not_confirmed])}")
    return lines


def _mixed_model_versions(samples_by_target: SamplesByTarget, targets: Mapping[str, Any]) -> list[str]:
    """Different weights in different places, or in one. Each engine has a file of its own, so they are told apart."""
    titles_by_engine_version: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, target_report in targets.items():
        versions = model_versions(samples_by_target.get(name, ())) or [target_report["model_version"]]
        for version in filter(None, versions):
            titles_by_engine_version[target_report["engine"] or REFERENCE_ENGINE][version].append(
                target_report["title"]
            )
    for version in model_versions(samples_by_target.get(REFERENCE, ())):
        titles_by_engine_version[REFERENCE_ENGINE][version].append("the reference")
    return [
        "the models differ "
        f"({'; '.join(f'{version}: {join_words(titles)}' for version, titles in titles_by_version.items())})"
        for titles_by_version in titles_by_engine_version.values()
        if len(titles_by_version) > 1
    ]


def _client_saturation(run: Run, samples_by_target: SamplesByTarget, targets: Mapping[str, Any]) -> list[str]:
    """Where requests left so late that the client, not the target, was measured."""
    max_delay_by_title: dict[str, float] = {}
    for name, target_report in targets.items():
        for scenario in run.scenarios:
            if scenario == BURST:  # one process cannot send all of a burst in the same moment
                continue
            scenario_samples = [s for s in samples_by_target.get(name, ()) if s.scenario == scenario]
            latencies_ms = [s.latency_ms for s in scenario_samples if s.error is None]
            p99_delay_ms = (
                nearest_rank(sorted(s.send_delay_ms for s in scenario_samples), 0.99) if scenario_samples else 0.0
            )
            if latencies_ms and p99_delay_ms > max(MAX_SEND_DELAY_FRACTION * median(latencies_ms), MIN_SEND_DELAY_MS):
                max_delay_by_title[target_report["title"]] = max(
                    p99_delay_ms, max_delay_by_title.get(target_report["title"], 0.0)
                )
    if not max_delay_by_title:
        return []
    remedy = "send from a machine with free cores, at a lower --rate, or with more --workers"
    return [
        f"the client sent late to {join_words(list(max_delay_by_title))} (p99 up to "
        f"{max(max_delay_by_title.values()):.1f} ms): {remedy}"
    ]
