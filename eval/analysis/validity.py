"""What stands between a run and believing it: why its targets cannot be compared, and what a reader must know first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Self

import numpy as np

from eval.analysis.drift import DriftByScenario, drift_warnings
from eval.analysis.findings import Finding, FindingCode, invalid, warning
from eval.analysis.latency import RateSearchReport
from eval.analysis.predictions.same_model import MIN_ACCURACY, MIN_IMAGES
from eval.analysis.recommendation import MAX_ERROR_RATE
from eval.analysis.report_model import AccuracyPair, TargetReport
from eval.analysis.verdict_facts import VerdictFacts
from eval.cost.price_list import STALE_AFTER_DAYS, Price, PriceList, stale_prices, unconfirmed_prices
from eval.plan.config import BURST, OVERLOAD_SCENARIOS
from eval.samples.columns import NONE, Samples
from eval.samples.model import REFERENCE, Run, Sample
from eval.stats.intervals import nearest_rank
from infra.targets import INT8_UNITS, PROMISED_INT8_UNITS, TARGETS

# The client is saturated where the p99 of its send delay is above both: a fraction of the median latency, in a rate
# search of the latency objective, and so much.
MAX_SEND_DELAY_FRACTION, MIN_SEND_DELAY_MS = 0.05, 5.0
MAX_OVERLOAD_DELAY_FRACTION = 0.5  # at a rate of a search that did not keep the objective
ON_TIME_SEND_DELAY_MS = 0.5  # an open loop whose send delay has a larger p99 is marked
INT8 = "int8"  # the precision of an onnx engine that does not say
ACCURACY_ALPHA = 0.05  # of the test whether an engine is less accurate

Targets = Mapping[str, TargetReport]
SamplesByTarget = Mapping[str, Sequence[Sample]]  # target -> its measured samples


@dataclass(frozen=True)
class _Stream:
    """How late requests of one rate were sent."""

    p99_delay_ms: float
    saturated_above_ms: float
    overload: bool

    @classmethod
    def of(cls, samples: Sequence[Sample], saturated_above_ms: float, overload: bool = False) -> Self:
        delays_ms = np.nan_to_num(Samples.of(samples).array("send_delay_ms"))
        p99_ms = nearest_rank(np.sort(delays_ms), 0.99)
        return cls(p99_ms, max(saturated_above_ms, MIN_SEND_DELAY_MS), overload)

    @property
    def is_saturated(self) -> bool:
        return self.p99_delay_ms > self.saturated_above_ms


def invalid_reasons(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    """Why this is no comparison of targets: they ran different models, or the client was too slow."""
    return [
        *_mixed_model_versions(run, samples_by_target, targets),
        *_client_saturation(run, samples_by_target, targets),
    ]


def run_findings(
    run: Run,
    samples_by_target: SamplesByTarget,
    facts: VerdictFacts,
    prices: PriceList,
    prices_used: Iterable[Price],
    excluded: int = 0,
) -> list[Finding]:
    """What a reader must know of the run, the gravest first.

    excluded: samples that are in no figure, because the client stood still meanwhile.
    """
    findings = [] if facts.complete else [warning(FindingCode.RUN_INCOMPLETE, note=facts.note)]
    n_sent = sum(target_report.all_requests for target_report in facts.targets.values())
    if n_sent < run.planned_requests:
        findings.append(
            warning(FindingCode.REQUESTS_DROPPED, dropped=run.planned_requests - n_sent, planned=run.planned_requests)
        )
    findings += facts.invalid
    findings += _client_pauses(run, excluded)
    findings += _senders(run)
    for name, target_report in facts.targets.items():
        findings += _target_warnings(name, target_report)
    findings += _cpu_contention(run, facts.targets)
    findings += _units_not_promised(run, facts.targets)
    findings += _late_send_warnings(run, samples_by_target, facts.targets)
    findings += drift_warnings(
        _drift_by_target(facts.targets), {name: report.title for name, report in facts.targets.items()}
    )
    cached_titles = [report.title for report in facts.targets.values() if report.cache.suspected]
    if cached_titles:
        findings.append(warning(FindingCode.CACHE_SUSPECTED, titles=cached_titles))
    findings += [
        warning(
            FindingCode.PREDICTIONS_DIFFER,
            titles=[facts.title(a), facts.title(b)],
            disagreements=agreement.disagreements,
            n=agreement.n,
            max_agreement=facts.same_models[f"{a}|{b}"].max_agreement if facts.engines_differ(a, b) else None,
        )
        for a, b, agreement in facts.disagreements()
    ]
    findings += _undecided_models(facts)
    findings += _accuracy_regressions(facts)
    if not facts.has_reference and facts.measured_targets:
        findings.append(warning(FindingCode.NO_REFERENCE))
    return findings + _price_warnings(run, prices, prices_used)


def _client_pauses(run: Run, excluded: int) -> list[Finding]:
    seconds_by_cause: dict[str, float] = defaultdict(float)
    for pause in run.pauses:
        seconds_by_cause[pause.cause] += pause.duration_s
    if not seconds_by_cause:
        return []
    values = {"pauses": len(run.pauses), "seconds_by_cause": dict(seconds_by_cause), "excluded": excluded}
    return [warning(FindingCode.CLIENT_PAUSED, **values)]


def _senders(run: Run) -> list[Finding]:
    """That other machines have sent the open loops."""
    workers = {sender.name: sender.workers for sender in run.senders if sender.clocks}
    if not workers:
        return []
    uncertainty_ms = max(clock.uncertainty_ms for sender in run.senders for clock in sender.clocks)
    values = {"machines": list(workers), "processes": sum(workers.values()), "uncertainty_ms": uncertainty_ms}
    return [warning(FindingCode.SENT_ELSEWHERE, **values)]


def _undecided_models(facts: VerdictFacts) -> list[Finding]:
    """Engines whose predictions differ often, on images that do not show whether their models differ.

    Of several targets the pair with the most images.
    """
    undecided = [(result.n, pair) for pair, result in facts.same_models.items() if result.undecided]
    if not undecided:
        return []
    pair = max(undecided)[1]
    result, titles = facts.same_models[pair], [facts.title(name) for name in pair.rsplit("|", 1)]
    limits = {"min_n": MIN_IMAGES, "min_accuracy": MIN_ACCURACY}
    code = FindingCode.SAME_MODEL_UNDECIDED
    return [warning(code, titles=titles, n=result.n, accuracy=result.accuracy, **limits)]


def _accuracy_regressions(facts: VerdictFacts) -> list[Finding]:
    """Engines that are less accurate than the reference's, by more than chance: of each the largest drop."""
    drops: list[tuple[float, str, AccuracyPair]] = []
    for comparison in facts.engine_comparisons:
        accuracy = comparison.accuracy
        change, p = accuracy.difference.value, accuracy.mcnemar and accuracy.mcnemar.p_holm
        if change is not None and isinstance(p, float) and change < 0 and p < ACCURACY_ALPHA:
            drops.append((-change, comparison.engines.b, accuracy))
    largest_drops = {engine: (drop, accuracy) for drop, engine, accuracy in sorted(drops, key=lambda drop: drop[0])}
    return [
        warning(
            FindingCode.LESS_ACCURATE,
            engine=engine,
            reference_engine=facts.reference_engine,
            max_drop=drop,
            alpha=ACCURACY_ALPHA,
            decision=accuracy.decision,
            margin=accuracy.margin,
        )
        for engine, (drop, accuracy) in largest_drops.items()
    ]


def _drift_by_target(targets: Targets) -> dict[str, DriftByScenario]:
    return {
        name: {
            scenario: scenario_report.drift
            for scenario, scenario_report in target_report.scenarios.items()
            if scenario_report.drift
        }
        for name, target_report in targets.items()
    }


def model_versions(samples: Iterable[Sample]) -> list[str]:
    """Every version in the responses."""
    return sorted(filter(None, Samples.of(samples).counts("model_version")))


def run_date(run: Run) -> date:
    """The day on which the run was made, of which the age of prices is counted."""
    return date.fromisoformat(run.started_at[:10])


def _target_warnings(name: str, target_report: TargetReport) -> list[Finding]:
    title, sent, memory = target_report.title, target_report.sent, target_report.memory
    findings = []
    if target_report.failure:
        failure = target_report.failure.splitlines()[0]
        findings.append(warning(FindingCode.TARGET_FAILED, name, title=title, failure=failure))
    errors = target_report.errors
    failed = sum(errors.values())
    only_overload = target_report.scenarios.keys() <= set(OVERLOAD_SCENARIOS)  # whose failures are of the load
    if failed > MAX_ERROR_RATE * sent and not only_overload:
        findings.append(warning(FindingCode.MANY_FAILURES, name, title=title, failed=failed, sent=sent, errors=errors))
    if memory.fits is False:
        values = {"peak_mib": memory.peak_mib, "limit_mib": memory.limit_mib, "cuda_build": memory.cuda_build}
        findings.append(warning(FindingCode.MEMORY_EXCEEDED, name, title=title, **values))
    return findings


def _cpu_contention(run: Run, targets: Targets) -> list[Finding]:
    """Twins that have every core, so that the client competes with them for CPU."""
    cores = run.client_environment.get("cores")
    titles = [
        report.title
        for report in targets.values()
        if report.twin and report.succeeded and cores and (report.cpus or 0) >= cores
    ]
    return [warning(FindingCode.CPU_CONTENTION, titles=titles, cores=cores)] if titles else []


def _units_not_promised(run: Run, targets: Targets) -> list[Finding]:
    """Twins whose int8 network used what their target's processor may lack: ONNX Runtime has no setting against it."""
    units_by_title = {}
    for target_run in run.targets:
        report, target = targets[target_run.name], TARGETS.get(target_run.target or "")
        is_int8 = report.engine == "onnx" and target_run.version.get("precision", INT8) == INT8
        if target and report.twin and report.succeeded and is_int8:
            promised = PROMISED_INT8_UNITS[target.cpu_isa]
            units = [u for u in report.processor.instruction_sets or () if u in INT8_UNITS and u not in promised]
            if units:
                units_by_title[report.title] = units
    return [warning(FindingCode.UNITS_NOT_PROMISED, units_by_title=units_by_title)] if units_by_title else []


def _price_warnings(run: Run, prices: PriceList, prices_used: Iterable[Price]) -> list[Finding]:
    findings = []
    if run.prices_sha256 != prices.sha256:
        findings.append(warning(FindingCode.PRICE_LIST_CHANGED, date=prices.date.isoformat()))
    if stale := stale_prices(prices_used, run_date(run)):
        date_by_price = {price.id: price.date.isoformat() for price in stale}
        findings.append(warning(FindingCode.PRICES_STALE, max_age_days=STALE_AFTER_DAYS, date_by_price=date_by_price))
    if unconfirmed := unconfirmed_prices(prices_used):
        findings.append(warning(FindingCode.PRICES_UNCONFIRMED, price_ids=[price.id for price in unconfirmed]))
    return findings


def _mixed_model_versions(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    """Different weights in different places, or in one. Each engine has weights of its own, so they are kept apart."""
    titles_by_engine_version: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, target_report in targets.items():
        samples = Samples.of(samples_by_target.get(name, ()))
        predictions = samples.where(samples.array("predicted_class") != NONE)
        if not predictions:  # without an answer there is no model to differ
            continue
        versions = model_versions(predictions) or [target_report.model_version]
        for version in filter(None, versions):
            engine = target_report.engine or run.reference_engine
            titles_by_engine_version[engine][version].append(target_report.title)
    for version in model_versions(samples_by_target.get(REFERENCE, ())):
        titles_by_engine_version[run.reference_engine][version].append("the reference")
    return [
        invalid(FindingCode.MODEL_VERSIONS_DIFFER, titles_by_version=dict(titles_by_version))
        for titles_by_version in titles_by_engine_version.values()
        if len(titles_by_version) > 1
    ]


def _client_saturation(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    saturated_ms = _late_sends(run, samples_by_target, targets).saturated_ms
    if not saturated_ms:
        return []
    max_delay_ms = max(saturated_ms.values())
    return [invalid(FindingCode.CLIENT_SATURATED, titles=list(saturated_ms), max_p99_delay_ms=max_delay_ms)]


def _late_send_warnings(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    late, findings = _late_sends(run, samples_by_target, targets), []
    if late.late_ms:
        limit_ms = ON_TIME_SEND_DELAY_MS
        findings.append(warning(FindingCode.SENT_LATE, p99_delay_ms_by_title=late.late_ms, limit_ms=limit_ms))
    if late.search_ms:
        findings.append(warning(FindingCode.SEARCH_LIMITED_BY_CLIENT, p99_delay_ms_by_title=late.search_ms))
    return findings


@dataclass(frozen=True)
class _LateSends:
    """Titles of targets to which open loops sent late, with the largest p99 of their send delay in ms."""

    saturated_ms: dict[str, float] = field(default_factory=dict)  # so late that the client was measured, not the target
    late_ms: dict[str, float] = field(default_factory=dict)  # of the others
    search_ms: dict[str, float] = field(default_factory=dict)  # saturated in a rate search


def _late_sends(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> _LateSends:
    """What each open loop's send delay says of it.

    A closed loop has no schedule, so nothing of it is late. A rate search counts the delay as latency, and so finds a
    lower rate than the target could take, never a higher one; its steps of too high a rate are to overload the target,
    and where both share cores the client too.
    """
    late = _LateSends()

    def add(found_ms: dict[str, float], title: str, stream: _Stream) -> None:
        found_ms[title] = max(stream.p99_delay_ms, found_ms.get(title, 0.0))

    for name, report in targets.items():
        for scenario in run.scenarios:
            if scenario == BURST:  # one process cannot send all of a burst in the same moment
                continue
            samples = Samples.of(samples_by_target.get(name, ())).with_("scenario", scenario)
            scenario_report = report.scenarios.get(scenario)
            if isinstance(scenario_report, RateSearchReport):
                streams, saturated_ms = list(_steps(samples, scenario_report)), late.search_ms
            else:
                streams, saturated_ms = [stream] if (stream := _stream(samples)) else [], late.saturated_ms
            for stream in streams:
                if stream.is_saturated:
                    add(saturated_ms, report.title, stream)
                elif stream.p99_delay_ms > ON_TIME_SEND_DELAY_MS and not stream.overload:
                    add(late.late_ms, report.title, stream)
    for title in late.saturated_ms:
        late.late_ms.pop(title, None)
    return late


def _stream(samples: Samples) -> _Stream | None:
    """An open loop of one rate; None of a closed one."""
    latencies_ms = samples.succeeded.array("latency_ms")
    if not len(latencies_ms) or samples[0].send_delay_ms is None:
        return None
    return _Stream.of(samples, MAX_SEND_DELAY_FRACTION * float(np.median(latencies_ms)))


def _steps(samples: Samples, report: RateSearchReport) -> Iterator[_Stream]:
    """The steps of a rate search. In one that was to overload the target the client's delay alone must not do it."""
    rates = np.nan_to_num(samples.array("rate_rps"))
    for rate_rps in dict.fromkeys(rates.tolist()):
        step_samples = samples.where(rates == rate_rps)
        overload = rate_rps > (report.max_rate_rps.value or 0.0)
        fraction = MAX_OVERLOAD_DELAY_FRACTION if overload else MAX_SEND_DELAY_FRACTION
        yield _Stream.of(step_samples, fraction * report.slo_ms, overload)
