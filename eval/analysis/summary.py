"""A run, its samples and a price list to the contents of report.json. Pure: nothing is read, asked or written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from eval.analysis.accuracy import Answer, Answers, parity, quality
from eval.analysis.cold_starts import boot_s, cold_start_json, known_answers
from eval.analysis.drift import drift
from eval.analysis.engine_comparison import engines_json
from eval.analysis.findings import Findings
from eval.analysis.latency import at_work, cache_json, floor_json, max_rate, scenario_json
from eval.analysis.mcnemar import discordance, mcnemar
from eval.analysis.validity import caveats, invalid, model_versions, run_day
from eval.cost.billing import HIGH_RPS, LOW_RPS, MONTH_S
from eval.cost.break_even import compare
from eval.cost.cost_model import Costing, cost_json, costing, one_instance_rps
from eval.cost.price_list import STALE_DAYS, Prices
from eval.formatting import count
from eval.plan.config import MAX_RATE, SCENARIOS, SINGLE, config_from_json
from eval.report.verdict import verdict
from eval.samples.model import REFERENCE, Run, Sample, TargetRun
from eval.samples.processors import target_of
from eval.targets.engines import engine_of
from infra.local.names import PLAIN_ENGINE, titled, twin_name
from infra.targets import TARGETS, Target

REPORT_SCHEMA_VERSION = 1
CUDA_BUILD = "+cu"  # in the version of PyPI's torch for Linux, whose libraries fill memory that no cloud needs


def summarise(run: Run, samples: Iterable[Sample], prices: Prices) -> dict[str, Any]:
    """Everything that report.json holds. The warm-up is left out of all of it."""
    everything: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        everything[sample.target].append(sample)
    taken = {name: [s for s in of if s.phase == "measure"] for name, of in everything.items()}
    taken |= {name: [] for name in (*(t.name for t in run.targets), REFERENCE) if name not in taken}
    slo_ms = config_from_json(run.config).slo_ms
    drifts = drift(s for t in run.targets for s in taken[t.name])
    scenarios = {t.name: scenarios_json(run, taken[t.name], drifts.get(t.name, {}), slo_ms) for t in run.targets}
    colds = {t.name: _cold_start(run, t, everything[t.name], taken[REFERENCE]) for t in run.targets}
    costings = {t.name: _costing(t, taken[t.name], scenarios[t.name], colds[t.name], prices) for t in run.targets}
    targets = {
        t.name: target_json(run, t, taken[t.name], scenarios[t.name], colds[t.name], costings[t.name])
        for t in run.targets
    }
    titles = {name: facts["title"] for name, facts in targets.items()}
    said = {t.name: answers(at_work(taken[t.name])) for t in run.targets}
    pairs = parity_json(run, taken)
    switches = engines_json(run, taken, said, targets, pairs)
    twins = any(t.twin for t in run.targets)
    note = None if run.complete else run.note or "interrupted, or still running"
    found = Findings(targets, pairs, note, invalid(run, taken, targets), twins, slo_ms, switches=switches)
    used = {p.id: p for c in costings.values() if isinstance(c, Costing) for p in c.prices.values()}
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "run": {**run_json(run, prices), "twins": twins, "warnings": caveats(run, found, prices, list(used.values()))},
        "verdict": verdict(found),
        "targets": targets,
        "parity": pairs,
        "engines": switches,
        "break_even": break_even_json(costings, titles),
    }


def run_json(run: Run, prices: Prices) -> dict[str, Any]:
    """Who, what and when."""
    age = (run_day(run) - prices.date).days
    return {
        "id": run.id,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "complete": run.complete,
        "note": run.note,
        "command": run.command,
        "seed": run.seed,
        "config": run.config,
        "resumed": run.resumed,
        "spent": run.spent,
        "scenarios": run.scenarios,
        "images": {"source": run.images_source, "sha256": run.images_sha256, "n": len(run.images)},
        "prices": {
            "sha256": prices.sha256,
            "date": prices.date.isoformat(),
            "stale_days": age if age > STALE_DAYS else None,
        },
        "machine": run.machine,
        "versions": run.versions,
    }


def scenarios_json(run: Run, samples: Sequence[Sample], drifts: Mapping[str, Any], slo_ms: float) -> dict[str, Any]:
    """Every scenario in which the target was asked, in the order of the schedule."""
    found = {}
    for name in (name for name in SCENARIOS if name in run.scenarios):
        if of := [s for s in samples if s.scenario == name]:
            found[name] = scenario_json(name, of, slo_ms) | {"drift": drifts.get(name)}
    return found


def target_json(
    run: Run,
    it: TargetRun,
    samples: Sequence[Sample],
    scenarios: Mapping[str, Any],
    cold_start: Mapping[str, Any],
    cost: Costing | str,
) -> dict[str, Any]:
    """One target: what it is, what it answered, how fast, at what price."""
    target = TARGETS.get(it.target or "")
    asked = at_work(samples)
    answered = _answered(asked)
    truth = {s.image: run.images[s.image].label for s in asked}
    model = it.version.get("model") or {}
    return {
        "title": _title(it, target),
        "kind": target and target.kind,
        "size": target and target.size,
        "region": target and target.region,
        "vcpus": target and target.vcpus,
        "memory_mib": target and target.memory_mib,
        "twin": it.twin,
        "url": it.url,
        "behind": it.behind,
        "cpus": it.cpus,
        "processor": asdict(target_of(run, it)),
        "failure": it.failure,
        "asked": len(samples),  # of every kind; what follows is of the target at its usual work
        "sent": len(asked),
        "n": len(answered),
        "errors": dict(sorted(Counter(s.error for s in asked if s.error).items())),
        **quality(truth, answers(asked), run.classes),
        "scenarios": scenarios,
        "floor_ms": floor_json(samples),
        "cache": cache_json(samples),
        "cold_start_ms": cold_start,
        "startup_ms": it.startup_ms if it.startup_ms is not None else _none("only the start of a twin is seen"),
        "startup_phases_ms": it.version.get("startup_ms") or {},
        "memory": _memory(it, target and target.memory_mib),
        "cost": cost_json(cost),
        "model_version": ", ".join(model_versions(answered)) or model.get("version"),
        "engine": engine_of(it),
        "shipped": _shipped(it),
        "instance_ids": len({s.instance_id for s in answered if s.instance_id}),
    }


def answers(samples: Iterable[Sample]) -> Answers:
    """What was said of each image, the first time that it was asked."""
    first: dict[int, Sample] = {}
    for sample in samples:
        first.setdefault(sample.image, sample)
    return {
        image: Answer(s.label, s.probabilities)
        for image, s in first.items()
        if s.error is None and s.label is not None
    }  # fmt: skip


def parity_json(run: Run, taken: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Every pair of targets that were asked, then each with the reference where there is one."""
    of = {t.name: answers(asked) for t in run.targets if (asked := at_work(taken[t.name]))}
    couples = list(combinations(of, 2))
    if reference := answers(taken[REFERENCE]):
        couples += [(name, REFERENCE) for name in of]
        of[REFERENCE] = reference
    truth = {number: image.label for number, image in enumerate(run.images)}
    tests = mcnemar({f"{a}|{b}": discordance(truth, of[a], of[b]) for a, b in couples})
    return {f"{a}|{b}": parity(of[a], of[b]) | {"mcnemar": tests[f"{a}|{b}"]} for a, b in couples}


def break_even_json(costings: Mapping[str, Costing | str], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Where each pair's net bills cross, over all the traffic that is looked at; or why they do not.

    As if there could be any number of instances; `beyond_limit` names those that may not have as many.
    """
    priced = [(name, c) for name, c in costings.items() if isinstance(c, Costing)]
    found = []
    for (a, first), (b, second) in combinations(priced, 2):
        order = compare(lambda n, c=first: c.bill(n).net, lambda n, c=second: c.bill(n).net)
        for crossing in order.crossings:
            below, above = (a, b) if crossing.first_below else (b, a)
            requests, rps = round(crossing.requests), float(f"{crossing.requests / MONTH_S:.6g}")
            beyond = [name for name, c in ((a, first), (b, second)) if c.bill(requests).beyond_limit]
            found.append(_break_even(a, b, requests, rps, below, above, beyond))
        if not order.crossings:
            cheaper = None if order.first_is_cheaper is None else a if order.first_is_cheaper else b
            who = f"{titles[cheaper]} is never" if cheaper else "neither is"
            none = _none(f"{who} dearer, from {LOW_RPS:g} to {count(HIGH_RPS)} requests a second")
            found.append(_break_even(a, b, none, none, cheaper, cheaper, []))
    return found


def _break_even(
    a: str, b: str, requests: Any, rps: Any, below: str | None, above: str | None, beyond: list[str]
) -> dict[str, Any]:
    return {
        "a": a, "b": b, "requests_per_month": requests, "rps": rps, "cheaper_below": below, "cheaper_above": above,
        "beyond_limit": beyond,
    }  # fmt: skip


def _memory(it: TargetRun, limit_mib: int | None) -> dict[str, Any]:
    peak = it.peak_memory_mib
    return {
        "peak_mib": _none("only a twin's memory is seen") if peak is None else peak,
        "limit_mib": limit_mib,
        "fits": None if peak is None or limit_mib is None else peak <= limit_mib,
        "cuda_build": CUDA_BUILD in str((it.version.get("versions") or {}).get("torch")),
    }


def _shipped(it: TargetRun) -> dict[str, Any]:
    """Bytes of what was deployed, and of the libraries that its requirements install; only of a twin they are known."""
    files, installed = it.shipped.get("files_bytes"), it.shipped.get("installed_bytes")
    unseen = "only of a twin it is known what was shipped"
    return {
        "files_bytes": _none(unseen) if files is None else files,
        "installed_bytes": _none(it.shipped.get("reason") or unseen) if installed is None else installed,
    }


def _answered(samples: Iterable[Sample]) -> list[Sample]:
    return [s for s in samples if s.error is None]


def _cold_start(run: Run, it: TargetRun, samples: Sequence[Sample], reference: Iterable[Sample]) -> dict[str, Any]:
    known = known_answers([image.label for image in run.images], samples, reference)
    return cold_start_json(it, samples, known)


def _costing(
    it: TargetRun,
    samples: Sequence[Sample],
    scenarios: Mapping[str, Any],
    cold_start: Mapping[str, Any],
    prices: Prices,
) -> Costing | str:
    """Priced by one request at a time, which no queue has lengthened; by the first scenario where there is none."""
    basis = SINGLE if SINGLE in scenarios else next(iter(scenarios), None)
    answered = [s for s in samples if s.scenario == basis and s.error is None]
    rate_rps = max_rate(scenarios)
    held = [s for s in samples if s.scenario == MAX_RATE and s.rate_rps == rate_rps and s.error is None]
    return costing(it, answered, prices, one_instance_rps(rate_rps, held), boot_s(cold_start))


def _title(it: TargetRun, target: Target | None) -> str:
    if target is None:
        return it.name
    engine = engine_of(it) or PLAIN_ENGINE
    if it.name in (target.name, twin_name(target.name, engine)):
        return titled(target.title, engine)
    return f"{target.title} ({it.name})"


def _none(reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason}
