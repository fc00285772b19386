"""What stands between a run and believing it: why its targets cannot be compared, and what a reader must know first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date

from eval.analysis.client.send_delay import SamplesByTarget, Targets, client_saturation, late_send_warnings
from eval.analysis.drift import DriftByScenario, drift_warnings
from eval.analysis.findings import Finding, FindingCode, invalid, warning
from eval.analysis.predictions.same_model import MIN_ACCURACY, MIN_IMAGES
from eval.analysis.recommendation import MAX_ERROR_RATE
from eval.analysis.report_model import AccuracyPair, TargetReport
from eval.analysis.verdict_facts import VerdictFacts
from eval.cost.price_list import STALE_AFTER_DAYS, Price, PriceList, stale_prices, unconfirmed_prices
from eval.plan.config import OVERLOAD_SCENARIOS
from eval.samples.columns import NONE, Samples
from eval.samples.model import REFERENCE, Run, Sample
from infra.targets import INT8_UNITS, PROMISED_INT8_UNITS, TARGETS

INT8 = "int8"  # the precision of an onnx engine that does not say
ACCURACY_ALPHA = 0.05  # of the test whether an engine is less accurate


def invalid_reasons(run: Run, samples_by_target: SamplesByTarget, targets: Targets) -> list[Finding]:
    """Why this is no comparison of targets: they ran different models, or the client was too slow."""
    return [
        *_mixed_model_versions(run, samples_by_target, targets),
        *client_saturation(run, samples_by_target, targets),
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
    if unknown := max(0, run.planned_requests - n_sent):
        dropped = warning(FindingCode.REQUESTS_DROPPED, dropped=unknown, planned=run.planned_requests)
        missing = warning(FindingCode.REQUESTS_MISSING, missing=unknown, planned=run.planned_requests)
        findings.append(dropped if facts.complete else missing)
    findings += facts.invalid
    findings += _client_pauses(run, excluded)
    findings += _senders(run)
    for name, target_report in facts.targets.items():
        findings += _target_warnings(name, target_report)
    findings += _cpu_contention(run, facts.targets)
    findings += _units_not_promised(run, facts.targets)
    findings += late_send_warnings(run, samples_by_target, facts.targets)
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
    if not facts.has_reference and _serves_the_model(run, facts):
        findings.append(warning(FindingCode.NO_REFERENCE))
    return findings + _price_warnings(run, prices, prices_used)


def _serves_the_model(run: Run, facts: VerdictFacts) -> bool:
    """Whether a target that answered serves a model of models/, and not one of its own."""
    adapters = {target.name: target.adapter for target in run.targets}
    return run.model is not None and any(not adapters[name] for name in facts.measured_targets)


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
