"""From a run, its samples and a price list to the report. Pure: nothing is read, sent or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np

from eval.analysis.cold_starts import ColdStartReport, cold_start_metrics, expected_labels, startup_s_for_billing
from eval.analysis.drift import DriftByScenario, detect_drift
from eval.analysis.engine_comparison import compare_engines
from eval.analysis.findings import Finding
from eval.analysis.instances import instance_report
from eval.analysis.latency import (
    RateSearchReport,
    ScenarioReport,
    at_rate,
    baseline_rtt,
    billed_samples,
    cache_test,
    errors_by_kind,
    max_rate,
    network_ms,
    normal_load,
    scenario_report,
)
from eval.analysis.predictions.accuracy import (
    Agreement,
    Prediction,
    Predictions,
    classification_metrics,
    metrics_of_golden_set,
    prediction_agreement,
)
from eval.analysis.predictions.mcnemar import mcnemar_tests
from eval.analysis.predictions.same_model import SameModel, compare_models
from eval.analysis.recommendation import DEFAULT_BUSY_RPS, build_candidates, recommend_engine
from eval.analysis.report_model import (
    ArtifactSize,
    BreakEven,
    ImageManifest,
    Memory,
    PriceListVersion,
    Report,
    RunMetadata,
    TargetReport,
    Traffic,
)
from eval.analysis.validity import invalid_reasons, model_versions, run_date, run_findings
from eval.analysis.verdict_facts import VerdictFacts, compare_with_fastest, verdict_report
from eval.codes import Reason, ReasonCode, Unavailable, reason, unavailable
from eval.cost.billing import MAX_RPS, MIN_RPS, REQUESTS_PER_MONTH, SECONDS_PER_MONTH
from eval.cost.break_even import CostOrder, compare_bills, crossing_ranges
from eval.cost.cost_model import CostModel, build_cost_model, cost_report, rps_per_instance
from eval.cost.price_list import STALE_AFTER_DAYS, PriceList
from eval.dataset.golden import is_golden
from eval.plan.config import MAX_RATE, SCENARIOS, SINGLE, config_from_json
from eval.samples.columns import Samples
from eval.samples.model import MEASURE, PAUSED, REFERENCE, Run, Sample, TargetRun
from eval.samples.processors import target_processor
from eval.samples.sizes import priced_target
from eval.targets.engines import engine_of, engines_differ, matching_engine_pairs
from infra.targets import Target
from service.engines.names import PLAIN_ENGINE, titled, twin_name

REPORT_SCHEMA_VERSION = 4
MAX_PAIRED_TARGETS = 12  # of which every pair is compared
CUDA_BUILD = "+cu"  # in the version of PyPI's torch for Linux, whose libraries fill memory that no cloud needs


@dataclass(frozen=True)
class RunAnalysis:
    """What a run's samples say."""

    report: Report  # without its sentences
    facts: VerdictFacts  # what the verdict's sentence is made of


def analyse_run(run: Run, samples: Iterable[Sample], prices: PriceList) -> RunAnalysis:
    """The whole report except its sentences. Warm-up, and what a pause has touched, are left out of all of it."""
    samples, names = Samples.of(samples), [t.name for t in run.targets]
    samples_by_target = dict.fromkeys((*names, REFERENCE), Samples.of(())) | samples.by("target")
    measured = {name: of_target.with_("phase", MEASURE) for name, of_target in samples_by_target.items()}
    excluded = len(samples.with_("phase", PAUSED))
    config = config_from_json(run.config)
    slo_ms, peak = config.slo_ms, config.peak
    drift_by_target = detect_drift(samples.with_("target", *names))
    scenarios_by_target = {
        t.name: build_scenario_reports(run, measured[t.name], drift_by_target.get(t.name, {}), slo_ms)
        for t in run.targets
    }
    cold_starts = {
        t.name: _cold_start_metrics(run, t, samples_by_target[t.name], measured[REFERENCE]) for t in run.targets
    }
    cost_models = {
        t.name: _target_cost_model(t, measured[t.name], scenarios_by_target[t.name], cold_starts[t.name], prices, peak)
        for t in run.targets
    }
    predictions = {t.name: first_predictions(normal_load(measured[t.name])) for t in run.targets}
    reference = first_predictions(measured[REFERENCE])
    targets = {
        t.name: build_target_report(
            run,
            t,
            measured[t.name],
            predictions[t.name],
            scenarios_by_target[t.name],
            cold_starts[t.name],
            cost_models[t.name],
        )
        for t in run.targets
    }
    asked = {name: of for name, of in predictions.items() if normal_load(measured[name])}
    agreement = pairwise_agreement(run, asked, reference)
    candidates = build_candidates(cost_models, targets, measured)
    traffic = Traffic(DEFAULT_BUSY_RPS, 24 / peak)
    engine, recommendation = recommend_engine(candidates, traffic, slo_ms)
    facts = VerdictFacts(
        targets,
        agreement,
        run.complete,
        run.incomplete_reason,
        invalid_reasons(run, measured, targets),
        any(t.twin for t in run.targets),
        recommendation,
        candidates,
        engine,
        traffic,
        slo_ms,
        reference_engine=run.reference_engine,
        engine_comparisons=compare_engines(run, measured, predictions, targets, agreement),
        vs_fastest=compare_with_fastest(targets, measured),
        same_models=_same_models(run, {**predictions, REFERENCE: reference}, agreement),
    )
    prices_used = {
        p.id: p for model in cost_models.values() if isinstance(model, CostModel) for p in model.prices.values()
    }
    report = Report(
        schema_version=REPORT_SCHEMA_VERSION,
        run=run_metadata(run, prices, run_findings(run, measured, facts, prices, list(prices_used.values()), excluded)),
        verdict=verdict_report(facts),
        candidates=candidates,
        targets=targets,
        agreement=agreement,
        engine_comparisons=list(facts.engine_comparisons),
        break_even=break_even_points(cost_models, {name: report.title for name, report in targets.items()}),
    )
    return RunAnalysis(report, facts)


def run_metadata(run: Run, prices: PriceList, findings: list[Finding]) -> RunMetadata:
    """Who, what and when."""
    age_days = (run_date(run) - prices.date).days
    return RunMetadata(
        id=run.id,
        started_at=run.started_at,
        ended_at=run.ended_at,
        complete=run.complete,
        incomplete_reason=run.incomplete_reason,
        command=run.command,
        seed=run.seed,
        config=run.config,
        resumed_at=run.resumed_at,
        cost=run.cost,
        scenarios=run.scenarios,
        images=ImageManifest(
            run.images_source, run.images_sha256, len(run.image_manifest), is_golden(run.images_source)
        ),
        prices=PriceListVersion(
            prices.sha256, prices.date.isoformat(), age_days if age_days > STALE_AFTER_DAYS else None
        ),
        client_environment=run.client_environment,
        versions=run.versions,
        twins=any(t.twin for t in run.targets),
        findings=findings,
    )


def build_scenario_reports(
    run: Run, samples: Samples, drift_by_scenario: DriftByScenario, slo_ms: float
) -> dict[str, RateSearchReport | ScenarioReport]:
    """Every scenario in which the target was sent a request, in the order of the schedule."""
    scenario_reports = {}
    for name in (name for name in SCENARIOS if name in run.scenarios):
        if scenario_samples := samples.with_("scenario", name):
            scenario_reports[name] = scenario_report(name, scenario_samples, slo_ms, drift_by_scenario.get(name))
    return scenario_reports


def build_target_report(
    run: Run,
    target_run: TargetRun,
    samples: Samples,
    predictions: Predictions,
    scenarios: dict[str, RateSearchReport | ScenarioReport],
    cold_starts: ColdStartReport,
    cost: CostModel | Reason,
) -> TargetReport:
    """One target: what it is, what it predicted, how fast, at what price."""
    target = priced_target(target_run)
    normal_samples = normal_load(samples)
    succeeded = normal_samples.succeeded
    images = np.unique(normal_samples.array("image_index")).tolist()
    true_labels = {image: run.image_manifest[image].label for image in images}
    model = target_run.version.get("model") or {}
    startup_ms = target_run.startup_ms
    return TargetReport(
        title=_title(target_run, target, run.reference_engine),
        kind=target and target.kind,
        size=target and target.size,
        region=target and target.region,
        vcpus=target and target.vcpus,
        memory_mib=target and target.memory_mib,
        twin=target_run.twin,
        url=target_run.url,
        reverse_proxy=target_run.reverse_proxy,
        cpus=target_run.cpus,
        processor=target_processor(run, target_run),
        failure=target_run.failure or _common_failure(normal_samples, succeeded),
        all_requests=len(samples),
        sent=len(normal_samples),
        succeeded=len(succeeded),
        errors=errors_by_kind(normal_samples),
        **(
            metrics_of_golden_set()
            if is_golden(run.images_source)
            else classification_metrics(true_labels, predictions, run.classes)
        ),
        scenarios=scenarios,
        baseline_rtt_ms=baseline_rtt(samples),
        cache=cache_test(samples),
        cold_starts=cold_starts,
        startup_ms=unavailable(ReasonCode.ONLY_TWIN_START_OBSERVED) if startup_ms is None else startup_ms,
        startup_phases_ms=target_run.version.get("startup_ms") or {},
        memory=_memory(target_run, target and target.memory_mib),
        cost=cost_report(cost),
        model_version=", ".join(model_versions(succeeded)) or model.get("version"),
        engine=engine_of(target_run),
        artifact_size=_artifact_size(target_run),
        instances=instance_report(succeeded),
    )


def _common_failure(samples: Sequence[Sample], succeeded: Sequence[Sample]) -> str | None:
    """The most frequent error of a target that answered no request."""
    details = Counter[str | None]() if succeeded else Counter(s.detail or s.error for s in samples if s.error)
    return details.most_common(1)[0][0] if details else None


def first_predictions(samples: Iterable[Sample]) -> Predictions:
    """What was predicted of each image, the first time that it was sent."""
    samples = Samples.of(samples)
    _, first = np.unique(samples.array("image_index"), return_index=True)
    return {
        s.image_index: Prediction(s.predicted_class, s.probabilities)
        for s in samples.where(np.sort(first)).succeeded
        if s.predicted_class is not None
    }


def pairwise_agreement(
    run: Run, predictions: Mapping[str, Predictions], reference: Predictions
) -> dict[str, Agreement]:
    """Every pair of targets, then each with the reference where there is one.

    Of many targets only the pairs that say something new: with the reference, or else with one target, and those of
    two engines.
    """
    pairs = list(combinations(predictions, 2))
    if len(predictions) > MAX_PAIRED_TARGETS:
        engine_pairs = [(pair.plain, pair.alternative) for pair in matching_engine_pairs(run.targets)]
        pairs = [pair for pair in engine_pairs if set(pair) <= predictions.keys()]
        if not reference:
            first = max(predictions, key=lambda name: len(predictions[name]))  # that answered most images
            pairs = list(dict.fromkeys([*((first, name) for name in predictions if name != first), *pairs]))
    if reference:
        pairs += [(name, REFERENCE) for name in predictions]
        predictions = {**predictions, REFERENCE: reference}
    predictions = _share_equal(predictions)
    true_labels = {number: image.label for number, image in enumerate(run.image_manifest)}
    found: dict[tuple[int, int], Agreement] = {}
    for a, b in pairs:
        if (key := (id(predictions[a]), id(predictions[b]))) not in found:
            found[key] = prediction_agreement(predictions[a], predictions[b])
    mcnemar_by_pair = {} if is_golden(run.images_source) else mcnemar_tests(true_labels, predictions, pairs)
    return {
        f"{a}|{b}": replace(found[id(predictions[a]), id(predictions[b])], mcnemar=mcnemar_by_pair.get((a, b)))
        for a, b in pairs
    }


def _share_equal(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Targets that answer alike have one mapping in common, so that two groups are compared once."""
    groups: list[Predictions] = []
    shared = {}
    for name, of_target in predictions.items():
        shared[name] = next((group for group in groups if group == of_target), of_target)
        if shared[name] is of_target:
            groups.append(of_target)
    return shared


def _same_models(run: Run, predictions: Mapping[str, Predictions], pairs: Iterable[str]) -> dict[str, SameModel]:
    """Of the pairs of two engines: whether they can run the same model."""
    engines = {t.name: engine_of(t) for t in run.targets} | {REFERENCE: run.reference_engine}
    return {
        pair: result
        for pair in pairs
        for a, b in [pair.rsplit("|", 1)]
        if engines_differ(engines.get(a), engines.get(b))
        if (result := compare_models(run.image_manifest, predictions.get(a, {}), predictions.get(b, {})))
    }


def break_even_points(cost_models: Mapping[str, CostModel | Reason], titles: Mapping[str, str]) -> list[BreakEven]:
    """Where each pair's net bills cross, over all the traffic that is looked at; or why they do not.

    Of many targets each with the cheapest at the verdict's traffic. At the bounds of the bills too: every target billed
    by request is then at the same end of what is not known. As if there could be any number of
    instances; `exceeds_max_instances` names those that may not have as many.
    """
    bills = {name: cache(model.bill) for name, model in cost_models.items() if isinstance(model, CostModel)}
    pairs = list(combinations(bills, 2))
    if len(bills) > MAX_PAIRED_TARGETS:
        cheapest = min(bills, key=lambda name: bills[name](REQUESTS_PER_MONTH).net_usd)
        pairs = [(cheapest, name) for name in bills if name != cheapest]
    points = []
    for a, b in pairs:
        order, *at_bounds = (
            compare_bills(lambda n: getattr(bills[a](n), net), lambda n: getattr(bills[b](n), net))  # noqa: B023  called at once
            for net in ("net_usd", "net_low_usd", "net_high_usd")
        )
        for found in crossing_ranges(order, at_bounds):
            below, above = (a, b) if found.crossing.first_below else (b, a)
            requests = round(found.crossing.requests)
            over_limit = [name for name in (a, b) if bills[name](requests).exceeds_max_instances]
            points.append(
                BreakEven(
                    a=a,
                    b=b,
                    requests_per_month=requests,
                    requests_per_month_low=round(found.low),
                    requests_per_month_high=round(found.high),
                    may_be_absent=found.may_be_absent,
                    rps=float(f"{found.crossing.requests / SECONDS_PER_MONTH:.6g}"),
                    cheaper_below=below,
                    cheaper_above=above,
                    exceeds_max_instances=over_limit,
                )
            )
        if not order.crossings:
            cheaper = None if order.first_is_cheaper is None else a if order.first_is_cheaper else b
            no_crossing = Unavailable(_no_crossing(order, at_bounds, cheaper and titles[cheaper]))
            points.append(BreakEven(a, b, no_crossing, None, None, False, no_crossing, cheaper, cheaper, []))
    return points


def _no_crossing(order: CostOrder, at_bounds: Sequence[CostOrder], title: str | None) -> Reason:
    """Why the bills of two do not cross. "Always" is said only of the whole curve, at both bounds too."""
    rates = {"min_rps": MIN_RPS, "max_rps": MAX_RPS}
    if title is None:
        return reason(ReasonCode.NEVER_DIFFERENT, **rates)
    if order.exceptions:
        low, high = order.exceptions[0][0], order.exceptions[-1][1]
        return reason(ReasonCode.CHEAPER_WITH_EXCEPTIONS, title=title, low_requests=low, high_requests=high)
    if any(bound.crossings or bound.exceptions for bound in at_bounds):
        return reason(ReasonCode.CHEAPER_WITHIN_RANGE, title=title)
    return reason(ReasonCode.ALWAYS_CHEAPER, title=title, **rates)


def _memory(target_run: TargetRun, limit_mib: int | None) -> Memory:
    peak_mib = target_run.peak_memory_mib
    return Memory(
        peak_mib=unavailable(ReasonCode.ONLY_TWIN_MEMORY_OBSERVED) if peak_mib is None else peak_mib,
        limit_mib=limit_mib,
        fits=None if peak_mib is None or limit_mib is None else peak_mib <= limit_mib,
        cuda_build=CUDA_BUILD in str((target_run.version.get("versions") or {}).get("torch")),
    )


def _artifact_size(target_run: TargetRun) -> ArtifactSize:
    """Only of a twin it is known."""
    files, installed = target_run.artifact.get("files_bytes"), target_run.artifact.get("installed_bytes")
    not_observed = unavailable(ReasonCode.ONLY_TWIN_ARTIFACT_OBSERVED)
    if installed is None and (detail := target_run.artifact.get("reason")):
        installed = unavailable(ReasonCode.LIBRARIES_NOT_MEASURED, detail=detail)
    return ArtifactSize(not_observed if files is None else files, not_observed if installed is None else installed)


def _cold_start_metrics(
    run: Run, target_run: TargetRun, samples: Sequence[Sample], reference: Iterable[Sample]
) -> ColdStartReport:
    expected = expected_labels([image.label for image in run.image_manifest], samples, reference)
    return cold_start_metrics(target_run, samples, expected)


def _target_cost_model(
    target_run: TargetRun,
    samples: Samples,
    scenarios: Mapping[str, ScenarioReport],
    cold_starts: ColdStartReport,
    prices: PriceList,
    peak: float,
) -> CostModel | Reason:
    """Priced by one request at a time; by the first scenario where there is none."""
    cost_scenario = SINGLE if SINGLE in scenarios else next(iter(scenarios), None)
    return build_cost_model(
        target_run,
        billed_samples(samples, cost_scenario),
        prices,
        max_rate_per_instance(samples, max_rate(scenarios)),
        startup_s_for_billing(cold_starts),
        peak,
        network_ms(target_run, samples),
    )


def max_rate_per_instance(samples: Samples, rate_rps: float | None) -> float | None:
    """The highest rate of a target, by the instances that served it."""
    return rps_per_instance(rate_rps, at_rate(samples.with_("scenario", MAX_RATE), rate_rps).succeeded)


def _title(target_run: TargetRun, target: Target | None, plain_engine: str) -> str:
    """As people write it; with its engine, where that is not the model's plain one."""
    if target is None:
        return target_run.name
    engine = engine_of(target_run) or PLAIN_ENGINE
    if target_run.name in (target.name, twin_name(target.name, engine)):
        return target.title if engine == plain_engine else titled(target.title, engine)
    return f"{target.title} ({target_run.name})"
