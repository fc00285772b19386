"""What stands between a run and believing it: why its targets cannot be compared, and what a reader must know first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from statistics import median
from typing import Any

from eval.analysis.drift import drift_warnings
from eval.analysis.findings import Findings
from eval.analysis.slo import ERROR_RATE
from eval.cost.price_list import STALE_DAYS, Price, Prices, stale, unconfirmed
from eval.formatting import count, listing, mib, percent, plural, points, value_of
from eval.plan.config import BURST
from eval.report.accuracy_text import differing
from eval.samples.model import REFERENCE, Run, Sample
from eval.stats.intervals import nearest_rank
from eval.targets.engines import REFERENCE_ENGINE
from infra.local.names import engine_title

LATE_SHARE, LATE_MS = 0.05, 5.0  # of the median latency, and at least; a p99 of lateness above both measured the client
LOSS_LEVEL = 0.05  # of the test whether an engine is right less often
APART = "engines may round differently, but not so often: they cannot run the same model"

Taken = Mapping[str, Sequence[Sample]]  # target -> its measured samples


def invalid(run: Run, taken: Taken, targets: Mapping[str, Any]) -> list[str]:
    """Why this is no comparison of targets: they ran different models, or the client was too slow."""
    return [*_mixed_models(taken, targets), *_late(run, taken, targets)]


def caveats(run: Run, found: Findings, prices: Prices, used: Iterable[Price]) -> list[str]:
    """The run's warnings, the gravest first."""
    lines = [f"the run is not complete: {found.note}"] if found.note else []
    sent = sum(facts["asked"] for facts in found.targets.values())
    if sent < run.planned:
        lines.append(f"{count(run.planned - sent)} of {count(run.planned)} planned requests were never sent")
    lines += [f"not a valid comparison: {reason}" for reason in found.invalid]
    lines += [line for facts in found.targets.values() for line in _of_target(facts)]
    lines += _crowded(run, found.targets)
    titles = {name: facts["title"] for name, facts in found.targets.items()}
    lines += drift_warnings(_drifts(found.targets), titles)
    cached = [facts["title"] for facts in found.targets.values() if facts["cache"]["suspected"]]
    if cached:
        lines.append(f"{listing(cached)}: the same picture again is answered faster than new ones; something caches")
    for a, b, both in found.disputes():
        who = f"{found.title(a)} and {found.title(b)}"
        rule = APART if found.engines_differ(a, b) else "the same model must answer alike everywhere"
        lines.append(f"{who} differ on {differing(both)}; {rule}")
    lines += _less_right(found)
    if not found.has_reference and found.answered:
        lines.append("the model's own answers could not be had, so the targets are compared with each other only")
    return lines + _of_prices(run, prices, used)


def _less_right(found: Findings) -> list[str]:
    """Switches of the engine that surely cost accuracy."""
    losses: dict[str, list[float]] = defaultdict(list)
    for one in found.switches:
        change, p = value_of(one["accuracy"]["difference"]), value_of(one["accuracy"]["mcnemar"]["p_holm"])
        if change is not None and p is not None and change < 0 and p < LOSS_LEVEL:
            losses[one["engines"]["b"]].append(-change)
    return [
        f"{engine_title(engine)} is right less often than {engine_title(REFERENCE_ENGINE)}, by up to "
        f"{points(max(of)).removeprefix('+')}; that is not chance (McNemar's test, p below {LOSS_LEVEL:g} after Holm)"
        for engine, of in losses.items()
    ]


def _drifts(targets: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {scenario: of["drift"] for scenario, of in facts["scenarios"].items() if of["drift"]}
        for name, facts in targets.items()
    }


def model_versions(samples: Iterable[Sample]) -> list[str]:
    """Every version that answered."""
    return sorted({s.model_version for s in samples if s.model_version})


def run_day(run: Run) -> date:
    """The day on which the run was made, which prices are held against."""
    return date.fromisoformat(run.started_at[:10])


def _of_target(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    if facts["failure"]:
        lines.append(f"{facts['title']}: {facts['failure'].splitlines()[0]}")
    failed = sum(facts["errors"].values())
    if failed > ERROR_RATE * facts["sent"]:
        kinds = ", ".join(f"{kind} {count(number)}" for kind, number in facts["errors"].items())
        of_sent = f"{count(failed)} of {plural(facts['sent'], 'request')} failed ({percent(failed / facts['sent'])})"
        lines.append(f"{facts['title']}: {of_sent}: {kinds}")
    if facts["memory"]["fits"] is False:
        peak, limit = mib(facts["memory"]["peak_mib"]), mib(facts["memory"]["limit_mib"])
        build = "; PyTorch's CUDA build ran here, the clouds install the much smaller CPU build"
        why = build if facts["memory"]["cuda_build"] else ""
        lines.append(f"{facts['title']}: took {peak} of memory, the target has {limit}{why}")
    return lines


def _crowded(run: Run, targets: Mapping[str, Any]) -> list[str]:
    """Twins that were given every core, so that the client takes some of their time and some of their rank."""
    cores = run.machine.get("cores")
    crowded = [f["title"] for f in targets.values() if f["twin"] and f["n"] and cores and (f["cpus"] or 0) >= cores]
    if not crowded:
        return []
    return [
        f"{listing(crowded)}: as many cores as this machine has ({cores}), shared with the client that measures; "
        "the latency holds that rivalry, in the slow tail most, and the rank by it may not be the cloud's"
    ]


def _of_prices(run: Run, prices: Prices, used: Iterable[Price]) -> list[str]:
    lines = []
    if run.prices_sha256 != prices.sha256:
        lines.append(f"the price list has changed since the run; costs are by the list of {prices.date}")
    if old := stale(used, run_day(run)):
        named = listing([f"{price.id} ({price.date})" for price in old])
        lines.append(f"prices older than {STALE_DAYS} days when the run was made: {named}")
    if unsure := unconfirmed(used):
        lines.append(f"prices from memory, or not confirmed: {listing([price.id for price in unsure])}")
    return lines


def _mixed_models(taken: Taken, targets: Mapping[str, Any]) -> list[str]:
    """Different weights in different places, or in one. Each engine has a file of its own, so they are told apart."""
    of_engine: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, facts in targets.items():
        versions = model_versions(taken.get(name, ())) or [facts["model_version"]]
        for version in filter(None, versions):
            of_engine[facts["engine"] or REFERENCE_ENGINE][version].append(facts["title"])
    for version in model_versions(taken.get(REFERENCE, ())):
        of_engine[REFERENCE_ENGINE][version].append("the reference")
    return [
        f"the models differ ({'; '.join(f'{version}: {listing(where)}' for version, where in places.items())})"
        for places in of_engine.values()
        if len(places) > 1
    ]


def _late(run: Run, taken: Taken, targets: Mapping[str, Any]) -> list[str]:
    """Where requests left so late that the client, not the target, was measured."""
    late: dict[str, float] = {}
    for name, facts in targets.items():
        for scenario in run.scenarios:
            if scenario == BURST:  # one process cannot send all of a burst in the same moment
                continue
            of = [s for s in taken.get(name, ()) if s.scenario == scenario]
            answered = [s.latency_ms for s in of if s.error is None]
            p99 = nearest_rank(sorted(s.lateness_ms for s in of), 0.99) if of else 0.0
            if answered and p99 > max(LATE_SHARE * median(answered), LATE_MS):
                late[facts["title"]] = max(p99, late.get(facts["title"], 0.0))
    if not late:
        return []
    cure = "send from a machine with free cores, at a lower --rate, or with more --workers"
    return [f"the client sent late to {listing(list(late))} (p99 up to {max(late.values()):.1f} ms): {cure}"]
