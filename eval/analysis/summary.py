"""A run, its samples and a price list to the contents of report.json. Pure: nothing is read, asked or written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from eval.analysis.accuracy import Prediction, Predictions, classification_metrics, prediction_agreement
from eval.analysis.cold_starts import cold_start_metrics, expected_labels, startup_s_for_billing
from eval.analysis.drift import detect_drift
from eval.analysis.engine_comparison import compare_engines
from eval.analysis.latency import baseline_rtt, cache_test, max_rate, normal_load, scenario_report
from eval.analysis.mcnemar import discordant_pairs, mcnemar_tests
from eval.analysis.validity import invalid_reasons, model_versions, run_date, run_findings
from eval.analysis.verdict_facts import VerdictFacts, verdict_report
from eval.cost.billing import MAX_RPS, MIN_RPS, SECONDS_PER_MONTH
from eval.cost.break_even import compare_bills
from eval.cost.cost_model import CostModel, build_cost_model, cost_to_report, rps_per_instance
from eval.cost.price_list import STALE_AFTER_DAYS, PriceList
from eval.plan.config import MAX_RATE, SCENARIOS, SINGLE, config_from_json
from eval.samples.model import REFERENCE, Run, Sample, TargetRun
from eval.samples.processors import target_processor
from eval.statements import ReasonCode, Statement, unavailable
from eval.targets.engines import engine_of
from infra.targets import TARGETS, Target
from service.engines.names import PLAIN_ENGINE, titled, twin_name

REPORT_SCHEMA_VERSION = 2
CUDA_BUILD = "+cu"  # in the version of PyPI's torch for Linux, whose libraries fill memory that no cloud needs


@dataclass(frozen=True)
class RunAnalysis:
    """What a run's samples say."""

    report: dict[str, Any]  # report.json, but for its sentences
    facts: VerdictFacts  # what the verdict's sentence is made of


def analyse_run(run: Run, samples: Iterable[Sample], prices: PriceList) -> RunAnalysis:
    """Everything that report.json holds but for its sentences. The warm-up is left out of all of it."""
    samples_by_target: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        samples_by_target[sample.target].append(sample)
    measured = {name: [s for s in of if s.phase == "measure"] for name, of in samples_by_target.items()}
    measured |= {name: [] for name in (*(t.name for t in run.targets), REFERENCE) if name not in measured}
    slo_ms = config_from_json(run.config).slo_ms
    drift_by_target = detect_drift(s for t in run.targets for s in measured[t.name])
    scenarios_by_target = {
        t.name: build_scenario_reports(run, measured[t.name], drift_by_target.get(t.name, {}), slo_ms)
        for t in run.targets
    }
    cold_starts = {
        t.name: _cold_start_metrics(run, t, samples_by_target[t.name], measured[REFERENCE]) for t in run.targets
    }
    cost_models = {
        t.name: _target_cost_model(t, measured[t.name], scenarios_by_target[t.name], cold_starts[t.name], prices)
        for t in run.targets
    }
    targets = {
        t.name: build_target_report(
            run, t, measured[t.name], scenarios_by_target[t.name], cold_starts[t.name], cost_models[t.name]
        )
        for t in run.targets
    }
    titles = {name: target_report["title"] for name, target_report in targets.items()}
    predictions = {t.name: first_predictions(normal_load(measured[t.name])) for t in run.targets}
    agreements = pairwise_agreement(run, measured)
    engine_comparisons = compare_engines(run, measured, predictions, targets, agreements)
    twins = any(t.twin for t in run.targets)
    facts = VerdictFacts(
        targets,
        agreements,
        run.complete,
        run.note,
        invalid_reasons(run, measured, targets),
        twins,
        slo_ms,
        engine_comparisons=engine_comparisons,
    )
    prices_used = {
        p.id: p for model in cost_models.values() if isinstance(model, CostModel) for p in model.prices.values()
    }
    report = {
        "schema_version": REPORT_SCHEMA_VERSION,
        "run": {
            **run_metadata(run, prices),
            "twins": twins,
            "findings": run_findings(run, facts, prices, list(prices_used.values())),
        },
        "verdict": verdict_report(facts),
        "targets": targets,
        "parity": agreements,
        "engines": engine_comparisons,
        "break_even": break_even_points(cost_models, titles),
    }
    return RunAnalysis(report, facts)


def run_metadata(run: Run, prices: PriceList) -> dict[str, Any]:
    """Who, what and when."""
    age = (run_date(run) - prices.date).days
    return {
        "id": run.id,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "complete": run.complete,
        "note": run.incomplete_reason,
        "command": run.command,
        "seed": run.seed,
        "config": run.config,
        "resumed": run.resumed_at,
        "spent": run.cost,
        "scenarios": run.scenarios,
        "images": {"source": run.images_source, "sha256": run.images_sha256, "n": len(run.image_manifest)},
        "prices": {
            "sha256": prices.sha256,
            "date": prices.date.isoformat(),
            "stale_days": age if age > STALE_AFTER_DAYS else None,
        },
        "machine": run.client_environment,
        "versions": run.versions,
    }


def build_scenario_reports(
    run: Run, samples: Sequence[Sample], drift_by_scenario: Mapping[str, Any], slo_ms: float
) -> dict[str, Any]:
    """Every scenario in which the target was asked, in the order of the schedule."""
    scenario_reports = {}
    for name in (name for name in SCENARIOS if name in run.scenarios):
        if scenario_samples := [s for s in samples if s.scenario == name]:
            scenario_reports[name] = scenario_report(name, scenario_samples, slo_ms) | {
                "drift": drift_by_scenario.get(name)
            }
    return scenario_reports


def build_target_report(
    run: Run,
    target_run: TargetRun,
    samples: Sequence[Sample],
    scenarios: Mapping[str, Any],
    cold_start: Mapping[str, Any],
    cost: CostModel | Statement,
) -> dict[str, Any]:
    """One target: what it is, what it answered, how fast, at what price."""
    target = TARGETS.get(target_run.target or "")
    normal_samples = normal_load(samples)
    succeeded = _succeeded(normal_samples)
    true_labels = {s.image_index: run.image_manifest[s.image_index].label for s in normal_samples}
    model = target_run.version.get("model") or {}
    return {
        "title": _title(target_run, target),
        "kind": target and target.kind,
        "size": target and target.size,
        "region": target and target.region,
        "vcpus": target and target.vcpus,
        "memory_mib": target and target.memory_mib,
        "twin": target_run.twin,
        "url": target_run.url,
        "behind": target_run.reverse_proxy,
        "cpus": target_run.cpus,
        "processor": asdict(target_processor(run, target_run)),
        "failure": target_run.failure,
        "asked": len(samples),  # of every kind; what follows is of the target at its usual work
        "sent": len(normal_samples),
        "n": len(succeeded),
        "errors": dict(sorted(Counter(s.error for s in normal_samples if s.error).items())),
        **classification_metrics(true_labels, first_predictions(normal_samples), run.classes),
        "scenarios": scenarios,
        "floor_ms": baseline_rtt(samples),
        "cache": cache_test(samples),
        "cold_start_ms": cold_start,
        "startup_ms": target_run.startup_ms
        if target_run.startup_ms is not None
        else unavailable(ReasonCode.ONLY_TWIN_START_OBSERVED),
        "startup_phases_ms": target_run.version.get("startup_ms") or {},
        "memory": _memory(target_run, target and target.memory_mib),
        "cost": cost_to_report(cost),
        "model_version": ", ".join(model_versions(succeeded)) or model.get("version"),
        "engine": engine_of(target_run),
        "shipped": _artifact_size(target_run),
        "instance_ids": len({s.instance_id for s in succeeded if s.instance_id}),
    }


def first_predictions(samples: Iterable[Sample]) -> Predictions:
    """What was said of each image, the first time that it was asked."""
    first_samples: dict[int, Sample] = {}
    for sample in samples:
        first_samples.setdefault(sample.image_index, sample)
    return {
        image: Prediction(s.predicted_class, s.probabilities)
        for image, s in first_samples.items()
        if s.error is None and s.predicted_class is not None
    }  # fmt: skip


def pairwise_agreement(run: Run, samples_by_target: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Every pair of targets that were asked, then each with the reference where there is one."""
    predictions = {
        t.name: first_predictions(normal_samples)
        for t in run.targets
        if (normal_samples := normal_load(samples_by_target[t.name]))
    }
    pairs = list(combinations(predictions, 2))
    if reference := first_predictions(samples_by_target[REFERENCE]):
        pairs += [(name, REFERENCE) for name in predictions]
        predictions[REFERENCE] = reference
    true_labels = {number: image.label for number, image in enumerate(run.image_manifest)}
    mcnemar_by_pair = mcnemar_tests(
        {f"{a}|{b}": discordant_pairs(true_labels, predictions[a], predictions[b]) for a, b in pairs}
    )
    return {
        f"{a}|{b}": prediction_agreement(predictions[a], predictions[b]) | {"mcnemar": mcnemar_by_pair[f"{a}|{b}"]}
        for a, b in pairs
    }


def break_even_points(
    cost_models: Mapping[str, CostModel | Statement], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Where each pair's net bills cross, over all the traffic that is looked at; or why they do not.

    As if there could be any number of instances; `beyond_limit` names those that may not have as many.
    """
    priced = [(name, model) for name, model in cost_models.items() if isinstance(model, CostModel)]
    points = []
    for (a, model_a), (b, model_b) in combinations(priced, 2):
        cost_order = compare_bills(
            lambda n, model=model_a: model.bill(n).net_usd, lambda n, model=model_b: model.bill(n).net_usd
        )
        for crossing in cost_order.crossings:
            below, above = (a, b) if crossing.first_below else (b, a)
            requests, rps = round(crossing.requests), float(f"{crossing.requests / SECONDS_PER_MONTH:.6g}")
            over_limit = [name for name, c in ((a, model_a), (b, model_b)) if c.bill(requests).exceeds_max_instances]
            points.append(_break_even_point(a, b, requests, rps, below, above, over_limit))
        if not cost_order.crossings:
            cheaper = None if cost_order.first_is_cheaper is None else a if cost_order.first_is_cheaper else b
            rates = {"min_rps": MIN_RPS, "max_rps": MAX_RPS}
            no_crossing = (
                unavailable(ReasonCode.ALWAYS_CHEAPER, title=titles[cheaper], **rates)
                if cheaper
                else unavailable(ReasonCode.NEVER_DIFFERENT, **rates)
            )
            points.append(_break_even_point(a, b, no_crossing, no_crossing, cheaper, cheaper, []))
    return points


def _break_even_point(
    a: str, b: str, requests: Any, rps: Any, below: str | None, above: str | None, over_limit: list[str]
) -> dict[str, Any]:
    return {
        "a": a, "b": b, "requests_per_month": requests, "rps": rps, "cheaper_below": below, "cheaper_above": above,
        "beyond_limit": over_limit,
    }  # fmt: skip


def _memory(target_run: TargetRun, limit_mib: int | None) -> dict[str, Any]:
    peak = target_run.peak_memory_mib
    return {
        "peak_mib": unavailable(ReasonCode.ONLY_TWIN_MEMORY_OBSERVED) if peak is None else peak,
        "limit_mib": limit_mib,
        "fits": None if peak is None or limit_mib is None else peak <= limit_mib,
        "cuda_build": CUDA_BUILD in str((target_run.version.get("versions") or {}).get("torch")),
    }


def _artifact_size(target_run: TargetRun) -> dict[str, Any]:
    """Bytes of what was deployed, and of the libraries that its requirements install; only of a twin they are known."""
    files, installed = target_run.shipped.get("files_bytes"), target_run.shipped.get("installed_bytes")
    not_observed = unavailable(ReasonCode.ONLY_TWIN_ARTIFACT_OBSERVED)
    if installed is None and (detail := target_run.shipped.get("reason")):
        installed = unavailable(ReasonCode.LIBRARIES_NOT_MEASURED, detail=detail)
    return {
        "files_bytes": not_observed if files is None else files,
        "installed_bytes": not_observed if installed is None else installed,
    }


def _succeeded(samples: Iterable[Sample]) -> list[Sample]:
    return [s for s in samples if s.error is None]


def _cold_start_metrics(
    run: Run, target_run: TargetRun, samples: Sequence[Sample], reference: Iterable[Sample]
) -> dict[str, Any]:
    expected = expected_labels([image.label for image in run.image_manifest], samples, reference)
    return cold_start_metrics(target_run, samples, expected)


def _target_cost_model(
    target_run: TargetRun,
    samples: Sequence[Sample],
    scenarios: Mapping[str, Any],
    cold_start: Mapping[str, Any],
    prices: PriceList,
) -> CostModel | Statement:
    """Priced by one request at a time, which no queue has lengthened; by the first scenario where there is none."""
    cost_scenario = SINGLE if SINGLE in scenarios else next(iter(scenarios), None)
    succeeded = [s for s in samples if s.scenario == cost_scenario and s.error is None]
    rate_rps = max_rate(scenarios)
    max_rate_samples = [s for s in samples if s.scenario == MAX_RATE and s.rate_rps == rate_rps and s.error is None]
    return build_cost_model(
        target_run, succeeded, prices, rps_per_instance(rate_rps, max_rate_samples), startup_s_for_billing(cold_start)
    )


def _title(target_run: TargetRun, target: Target | None) -> str:
    if target is None:
        return target_run.name
    engine = engine_of(target_run) or PLAIN_ENGINE
    if target_run.name in (target.name, twin_name(target.name, engine)):
        return titled(target.title, engine)
    return f"{target.title} ({target_run.name})"
