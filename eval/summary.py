"""A run, its samples and a price list to the contents of report.json. Pure: nothing is read, asked or written."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from eval.break_even import HIGH, LOW, compare
from eval.caveats import caveats, invalid, model_versions, run_day
from eval.cost import MONTH_S
from eval.costing import Costing, cost_json, costing
from eval.formatting import short_count
from eval.metrics import Answer, Answers, parity, quality
from eval.prices import STALE_DAYS, Prices
from eval.samples import Run, Sample, TargetRun
from eval.stats import percentile, percentiles
from eval.verdict import REFERENCE, Findings, verdict
from infra.targets import TARGETS, Target
from service.schema import SERVER_TIMING_PARTS

REPORT_SCHEMA_VERSION = 1
CUDA_BUILD = "+cu"  # in the version of PyPI's torch for Linux, whose libraries fill memory that no cloud needs


def summarise(run: Run, samples: Iterable[Sample], prices: Prices) -> dict[str, Any]:
    """Everything that report.json holds. The warm-up is left out of all of it."""
    taken: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.phase == "measure":
            taken[sample.target].append(sample)
    costings = {
        t.name: costing(t, _answered(_of_scenario(taken[t.name], run.scenarios[0])), prices) for t in run.targets
    }
    targets = {t.name: target_json(run, t, taken[t.name], costings[t.name]) for t in run.targets}
    titles = {name: facts["title"] for name, facts in targets.items()}
    pairs = parity_json(run, taken)
    twins = any(t.twin for t in run.targets)
    note = None if run.complete else run.note or "interrupted, or still running"
    found = Findings(targets, pairs, note, invalid(run, taken, targets), twins)
    used = {p.id: p for c in costings.values() if isinstance(c, Costing) for p in c.prices.values()}
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "run": {**run_json(run, prices), "twins": twins, "warnings": caveats(run, found, prices, list(used.values()))},
        "verdict": verdict(found),
        "targets": targets,
        "parity": pairs,
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


def target_json(run: Run, it: TargetRun, samples: Sequence[Sample], cost: Costing | str) -> dict[str, Any]:
    """One target: what it is, what it answered, how fast, at what price."""
    target = TARGETS.get(it.target or "")
    answered = _answered(samples)
    truth = {s.image: run.images[s.image].label for s in samples}
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
        "failure": it.failure,
        "sent": len(samples),
        "n": len(answered),
        "errors": dict(sorted(Counter(s.error for s in samples if s.error).items())),
        **quality(truth, answers(samples), run.classes),
        "scenarios": {name: scenario_json(of) for name in run.scenarios if (of := _of_scenario(samples, name))},
        "startup_ms": it.startup_ms if it.startup_ms is not None else _none("only the start of a twin is seen"),
        "startup_phases_ms": it.version.get("startup_ms") or {},
        "memory": _memory(it, target and target.memory_mib),
        "cost": cost_json(cost),
        "model_version": ", ".join(model_versions(answered)) or model.get("version"),
        "engine": it.version.get("engine") or model.get("engine"),
        "instance_ids": len({s.instance_id for s in answered if s.instance_id}),
    }


def scenario_json(samples: Sequence[Sample]) -> dict[str, Any]:
    """Times of one scenario. A failure counts as a latency without end, and its time as busy time."""
    answered = _answered(samples)
    latency = [s.latency_ms for s in answered]
    busy_s = sum(s.latency_ms for s in samples) / 1000
    parts = {part: [s.server_ms[part] for s in answered if part in s.server_ms] for part in SERVER_TIMING_PARTS}
    return {
        "n": len(answered),
        "sent": len(samples),
        "latency_ms": percentiles(latency),
        "latency_with_failures_ms": percentiles(latency + [math.inf] * (len(samples) - len(answered))),
        "service_ms": percentiles([s.service_ms for s in answered]),
        "server_ms": {part: percentiles(values) for part, values in parts.items() if values},
        "throughput_rps": len(answered) / busy_s if answered and busy_s else _none("no request was answered"),
        "lateness_ms": {"p99": percentile([s.lateness_ms for s in samples], 0.99).to_json()},
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
    of = {t.name: answers(taken[t.name]) for t in run.targets if taken[t.name]}
    pairs = {f"{a}|{b}": parity(of[a], of[b]) for a, b in combinations(of, 2)}
    if reference := answers(taken[REFERENCE]):
        pairs |= {f"{name}|{REFERENCE}": parity(said, reference) for name, said in of.items()}
    return pairs


def break_even_json(costings: Mapping[str, Costing | str], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Where each pair's net bills cross, as far as both could serve the traffic; or why they do not."""
    priced = [(name, c) for name, c in costings.items() if isinstance(c, Costing)]
    found = []
    for (a, first), (b, second) in combinations(priced, 2):
        high = min(_servable(first), _servable(second))
        order = compare(lambda n, c=first: c.bill(n).net, lambda n, c=second: c.bill(n).net, LOW, high)
        for crossing in order.crossings:
            below, above = (a, b) if crossing.first_below else (b, a)
            requests, rps = round(crossing.requests), round(crossing.requests / MONTH_S, 4)
            found.append(_break_even(a, b, requests, rps, below, above))
        if not order.crossings:
            cheaper = None if order.first_is_cheaper is None else a if order.first_is_cheaper else b
            who = f"{titles[cheaper]} is never" if cheaper else "neither is"
            none = _none(f"{who} dearer, from {short_count(LOW)} to {short_count(high)} requests a month")
            found.append(_break_even(a, b, none, none, cheaper, cheaper))
    return found


def _break_even(a: str, b: str, requests: Any, rps: Any, below: str | None, above: str | None) -> dict[str, Any]:
    return {"a": a, "b": b, "requests_per_month": requests, "rps": rps, "cheaper_below": below, "cheaper_above": above}


def _servable(it: Costing) -> float:
    """The most requests a month that the target's instances can serve, as far as break-even looks."""
    low, high = LOW, HIGH
    if not it.bill(high).beyond_limit:
        return high
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if it.bill(middle).beyond_limit else (middle, high)
    return low


def _memory(it: TargetRun, limit_mib: int | None) -> dict[str, Any]:
    peak = it.peak_memory_mib
    return {
        "peak_mib": _none("only a twin's memory is seen") if peak is None else peak,
        "limit_mib": limit_mib,
        "fits": None if peak is None or limit_mib is None else peak <= limit_mib,
        "cuda_build": CUDA_BUILD in str((it.version.get("versions") or {}).get("torch")),
    }


def _answered(samples: Iterable[Sample]) -> list[Sample]:
    return [s for s in samples if s.error is None]


def _of_scenario(samples: Iterable[Sample], scenario: str) -> list[Sample]:
    return [s for s in samples if s.scenario == scenario]


def _title(it: TargetRun, target: Target | None) -> str:
    if target is None:
        return it.name
    return target.title if it.name == target.name else f"{target.title} ({it.name})"


def _none(reason: str) -> dict[str, Any]:
    return {"value": None, "reason": reason}
