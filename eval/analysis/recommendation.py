"""Which target to take at a traffic: the cheapest that meets the latency objective, fits and can serve it. Pure.

The report's page answers for other traffic too, with the same rules: answer.js, held against these by a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.analysis.latency import RateSearchReport, ScenarioReport, at_rate
from eval.analysis.report_model import Candidate, Memory, Option, SlowdownLimit, TargetReport, Traffic
from eval.codes import Reason, ReasonCode, reason
from eval.cost import billing
from eval.cost.billing import Bill
from eval.cost.cost_model import CostModel
from eval.plan.config import MAX_RATE, POISSON, SCENARIOS, SINGLE
from eval.samples.columns import Samples
from eval.samples.model import Sample
from eval.samples.rounds import split_after_pause
from eval.stats.intervals import Estimate, nearest_rank
from infra.targets import Target
from service.engines.names import PLAIN_ENGINE, twin_name

DEFAULT_SLO_MS = 200.0  # latency objective for p95, in ms
DEFAULT_BUSY_RPS = 1.0  # requests a second in the busy hours
MAX_ERROR_RATE = 0.01  # of the requests sent; a target above it gets a warning, and is not recommended
SLO_SCENARIOS = (POISSON, SINGLE, MAX_RATE)  # whose p95 is compared with the objective: many users say more than one
SLO_QUANTILE = 0.95
INFINITE_CODES = (ReasonCode.INFINITE, ReasonCode.UPPER_BOUND_INFINITE)  # why a p95 of enough requests has no value
P95_TAIL = 0.05  # of all requests; as many failures or cold starts make p95 one of theirs
TAIL_STEP = 0.005  # between the quantiles of `Candidate.tail_ms`
ALWAYS_WARM = 1  # instances that are kept running so that no request meets a cold start


@dataclass(frozen=True)
class Recommendation:
    """What to take at one traffic."""

    ranked: list[str]  # those that may be taken, the cheapest first
    options: dict[str, Option]  # every target with a price
    slowdown_limit: SlowdownLimit | None  # None: not known

    @property
    def target(self) -> str | None:
        return self.ranked[0] if self.ranked else None

    @property
    def runner_up(self) -> str | None:
        return self.ranked[1] if len(self.ranked) > 1 else None

    @property
    def tied(self) -> bool:
        """Whether the first two have no order: their bills differ by less than is known of the billing rules."""
        return len(self.ranked) > 1 and bills_tied(*(self.options[name].bill for name in self.ranked[:2]))


def recommend(candidates: Mapping[str, Candidate], traffic: Traffic, slo_ms: float) -> Recommendation:
    """Weigh the candidates, which should be of one engine."""
    options = evaluate_all(candidates, traffic, slo_ms)
    ranked = rank(options)
    return Recommendation(ranked, options, _slowdown_limit(candidates, traffic, slo_ms, options, ranked))


def recommend_engine(
    candidates: Mapping[str, Candidate], traffic: Traffic, slo_ms: float
) -> tuple[str | None, Recommendation]:
    """The engine whose recommended target is cheapest, or else has the lower p95; and its recommendation.

    A service whose engine is not known stands beside the targets of each.
    """
    engines = [engine for engine in dict.fromkeys(each.engine for each in candidates.values()) if engine]
    by_engine = {
        engine: {name: each for name, each in candidates.items() if each.engine in (engine, None)}
        for engine in engines or [None]
    }
    recommendations = {engine: recommend(group, traffic, slo_ms) for engine, group in by_engine.items()}

    def merit(engine: str | None) -> tuple[bool, float, float]:
        recommendation = recommendations[engine]
        if recommendation.target is None:
            return True, math.inf, math.inf
        option = recommendation.options[recommendation.target]
        return False, round(option.bill.net_usd, 2), option.p95_ms or math.inf

    engine = min(recommendations, key=merit)
    return engine, recommendations[engine]


def evaluate_all(
    candidates: Mapping[str, Candidate], traffic: Traffic, slo_ms: float, slowdown: int = 1
) -> dict[str, Option]:
    """Each candidate. One whose p95 is not known is left out, unless that is so of all: then the bill decides between
    those whose median is not above the objective.

    What is billed by request may have one instance always running. It is an option where it is the cheaper of the two
    that may be taken: with its cold starts the target may miss the objective.
    """
    options = {
        name: [evaluate(candidate, traffic, slo_ms, slowdown, n) for n in _min_instances(candidate)]
        for name, candidate in candidates.items()
    }
    if any(_p95_known(candidates[name], option) for name, pair in options.items() for option in pair):
        unknown = reason(ReasonCode.P95_UNKNOWN)
        options = {
            name: [
                replace(option, excluded=option.excluded or (unknown if option.within_objective is None else None))
                for option in pair
            ]
            for name, pair in options.items()
        }
    return {name: _choose(pair) for name, pair in options.items()}


def _p95_known(candidate: Candidate, option: Option) -> bool:
    """Of one that fails it says nothing: its p95 is of however few requests."""
    return option.p95_ms is not None and not candidate.fails


def _min_instances(candidate: Candidate) -> tuple[int, ...]:
    return (0, ALWAYS_WARM) if candidate.target.billing == "request" else (0,)


def _choose(options: Sequence[Option]) -> Option:
    """The cheapest that may be taken, or else the first; it says what the one that is always warm costs."""
    allowed = [option for option in options if option.excluded is None]
    chosen = min(allowed, key=lambda option: round(option.bill.net_usd, 2), default=options[0])
    warm_usd = next((option.bill.net_usd for option in options if option.min_instances), None)
    return replace(chosen, always_warm_usd=warm_usd)


def rank(options: Mapping[str, Option]) -> list[str]:
    """Those that may be taken, the cheapest first."""
    return sorted(
        (name for name, option in options.items() if option.excluded is None),
        key=lambda name: (round(options[name].bill.net_usd, 2), options[name].bill.gross_usd),
    )


def evaluate(
    candidate: Candidate, traffic: Traffic, slo_ms: float, slowdown: int = 1, min_instances: int = 0
) -> Option:
    """One candidate at that traffic, on a processor that is `slowdown` times slower; what is deployed has its own."""
    slowdown = slowdown if slowdown in candidate.demand_by_slowdown else 1
    requests, target = traffic.requests_per_month, replace(candidate.target, min_instances=min_instances)
    demand = candidate.demand_by_slowdown[slowdown]
    bill = billing.monthly_bill(requests, demand, target, candidate.unit_prices, traffic.peak)
    idle_timeout_s = idle_timeout(target, bill, min_instances)
    cold_starts = billing.cold_starts_per_month(requests, traffic.peak, idle_timeout_s) if idle_timeout_s else 0.0
    cold_fraction = cold_starts / requests
    p95_ms = _p95_ms(candidate, cold_fraction, slowdown)
    p50_low_ms = None if candidate.p50_low_ms is None else candidate.p50_low_ms * slowdown
    option = Option(
        bill=bill,
        min_instances=min_instances,
        always_warm_usd=None,
        p95_ms=p95_ms if p95_ms is None or math.isfinite(p95_ms) else None,
        cold_start_fraction=cold_fraction,
        within_objective=_within_objective(p95_ms, p50_low_ms, slo_ms),
        excluded=None,
    )
    return replace(option, excluded=_exclusion_reason(candidate, option, p95_ms, p50_low_ms))


def idle_timeout(target: Target, bill: Bill, min_instances: int) -> int | None:
    """Seconds without a request after which the next one meets a cold start; None: it never does.

    Several of a dyno that sleeps are of a size that does not.
    """
    if min_instances:
        return None
    if target.sleeps_after_s:
        return target.sleeps_after_s if bill.instances == 1 else None
    return billing.IDLE_TIMEOUT_S if target.scales_to_zero else None


def _within_objective(p95_ms: float | None, p50_low_ms: float | None, slo_ms: float) -> bool | None:
    """Of a p95 that is not known the median can say that it is too long, never that it is short enough."""
    if p95_ms is None:
        return False if p50_low_ms is not None and p50_low_ms > slo_ms else None
    return p95_ms <= slo_ms


def _p95_ms(candidate: Candidate, cold_fraction: float, slowdown: int) -> float | None:
    """p95 of all requests, of which some meet a cold start, which is slower than any other; infinite with failures."""
    tail_ms = [math.inf if value is None else value * slowdown for value in candidate.tail_ms]
    if not tail_ms:
        return None
    if cold_fraction >= P95_TAIL:
        startup_s = candidate.demand_by_slowdown[slowdown].startup_s
        return max(startup_s * 1000, tail_ms[0]) if candidate.startup_measured else None
    quantile = SLO_QUANTILE / (1 - cold_fraction)
    return tail_ms[math.ceil(round((quantile - SLO_QUANTILE) / TAIL_STEP, 6))]


def _exclusion_reason(
    candidate: Candidate, option: Option, p95_ms: float | None, p50_low_ms: float | None
) -> Reason | None:
    """Why a target is not to be taken; None when it may be."""
    if candidate.fails:
        return reason(ReasonCode.TOO_MANY_FAILURES)
    if candidate.fits_memory is False:
        return reason(ReasonCode.EXCEEDS_MEMORY, limit_mib=candidate.target.memory_mib)
    if p95_ms == math.inf:  # a failure more than p95 allows
        return reason(ReasonCode.TOO_MANY_FAILURES)
    if option.within_objective is False and p95_ms is None:
        return reason(ReasonCode.P50_OVER_OBJECTIVE, p50_low_ms=p50_low_ms)
    if option.within_objective is False:
        return reason(ReasonCode.P95_OVER_OBJECTIVE, p95_ms=p95_ms)
    if option.bill.exceeds_max_instances:
        return reason(ReasonCode.TOO_MANY_INSTANCES, instances=option.bill.instances)
    return None


def _slowdown_limit(
    candidates: Mapping[str, Candidate],
    traffic: Traffic,
    slo_ms: float,
    options_now: Mapping[str, Option],
    ranked: Sequence[str],
) -> SlowdownLimit | None:
    """The largest slowdown of the processor up to which the first stays the first, or costs the same.

    One that needs an instance always running there is another answer. None where its p95 is not known: nobody knows how
    slow it may become.
    """
    if not ranked or options_now[ranked[0]].within_objective is None:
        return None
    limit = None
    for slowdown in list(candidates[ranked[0]].demand_by_slowdown)[1:]:
        options = evaluate_all(candidates, traffic, slo_ms, slowdown)
        first = next(iter(rank(options)), None)
        own = options[ranked[0]]
        is_another = own.excluded or own.min_instances != options_now[ranked[0]].min_instances
        if first is None or is_another or round(options[first].bill.net_usd, 2) < round(own.bill.net_usd, 2):
            return limit or SlowdownLimit(1, round(options_now[ranked[0]].bill.net_usd, 2))
        limit = SlowdownLimit(slowdown, round(own.bill.net_usd, 2))
    return limit


def build_candidates(
    cost_models: Mapping[str, CostModel | Reason],
    targets: Mapping[str, TargetReport],
    samples_by_target: Mapping[str, Sequence[Sample]],
) -> dict[str, Candidate]:
    """Every target with a price."""
    scenario = main_scenario(targets)
    tails_ms = {name: _tail_ms(targets[name], scenario, samples_by_target[name]) for name in cost_models}
    return {
        name: Candidate(
            title=_title(name, model.target, targets[name].engine),
            target=model.target,
            engine=targets[name].engine,
            unit_prices={role: price.amount for role, price in model.prices.items()},
            demand_by_slowdown={1: model.demand, **model.demand_if_slower},
            startup_measured=model.startup_measured,
            tail_ms=tails_ms[name],
            p95_reason=None if tails_ms[name] else _p95_reason(targets[name], scenario),
            p50_low_ms=_slo_percentile(targets[name], scenario, "p50").low,
            fits_memory=_fits_memory(targets[name].memory),
            fails=_fails(targets[name], scenario),
        )
        for name, model in cost_models.items()
        if isinstance(model, CostModel)
    }


def _title(name: str, target: Target, engine: str | None) -> str:
    """The target's title; with the name of an endpoint that is not called as its target is."""
    is_plain = name in (target.name, twin_name(target.name, engine or PLAIN_ENGINE))
    return target.title if is_plain else f"{target.title} ({name})"


def main_scenario(targets: Mapping[str, TargetReport]) -> str | None:
    """The one scenario of the answer, of the results and of the plots: an open stream, or else single requests.

    One that is too short for p95 only where none is long enough. Of a search for the highest rate, its times are those
    of that rate.
    """
    sent = {name for target in targets.values() for name, report in target.scenarios.items() if report.sent}
    long_enough = (name for name in SLO_SCENARIOS if any(_decides_p95(target, name) for target in targets.values()))
    return next((name for name in (*long_enough, *SLO_SCENARIOS, *SCENARIOS) if name in sent), None)


def _decides_p95(target_report: TargetReport, scenario: str) -> bool:
    """Whether the scenario gives p95, be it infinite."""
    p95 = slo_p95(target_report, scenario)
    return p95.value is not None or (p95.reason is not None and p95.reason.code in INFINITE_CODES)


def slo_report(target_report: TargetReport, scenario: str | None) -> ScenarioReport | None:
    return target_report.scenarios.get(scenario) if scenario in SLO_SCENARIOS else None


def slo_p95(target_report: TargetReport, scenario: str | None) -> Estimate:
    """Of the warm service, with failures as infinite latency."""
    return _slo_percentile(target_report, scenario, "p95")


def _slo_percentile(target_report: TargetReport, scenario: str | None, name: str) -> Estimate:
    report = slo_report(target_report, scenario)
    return report.latency_with_failures_ms[name] if report else Estimate(None)


def bills_tied(first: Bill, second: Bill) -> bool:
    """Whether the ranges of the two net bills touch, in cents; a bill without a range is known exactly."""
    ranges = [(round(bill.net_low_usd, 2), round(bill.net_high_usd, 2)) for bill in (first, second)]
    return any(low < high for low, high in ranges) and ranges[0][1] >= ranges[1][0]


def _fits_memory(memory: Memory) -> bool | None:
    """Not known where libraries that no cloud needs may be what did not fit."""
    return None if memory.cuda_build and not memory.fits else memory.fits


def _fails(target_report: TargetReport, scenario: str | None) -> bool:
    """Too many requests of the scenario failed, or of one that it is preferred to for being long enough; of all
    scenarios, where none of these was sent."""
    if scenario not in SLO_SCENARIOS:
        return False
    weighed = SLO_SCENARIOS[: SLO_SCENARIOS.index(scenario) + 1]
    reports = [report for name in weighed if (report := slo_report(target_report, name)) and report.sent]
    return any(r.sent - r.succeeded > MAX_ERROR_RATE * r.sent for r in reports or [target_report])


def _p95_reason(target_report: TargetReport, scenario: str | None) -> Reason:
    not_sent = reason(ReasonCode.SCENARIO_NOT_RUN, scenario=scenario if scenario in SLO_SCENARIOS else SINGLE)
    return slo_p95(target_report, scenario).reason or not_sent


def _tail_ms(target_report: TargetReport, scenario: str | None, samples: Iterable[Sample]) -> tuple[float | None, ...]:
    report = slo_report(target_report, scenario)
    if not report or not report.sent:
        return ()
    if slo_p95(target_report, scenario).value is None and not _fails(target_report, scenario):
        return ()
    of_scenario = Samples.of(samples).with_("scenario", scenario)
    if isinstance(report, RateSearchReport):
        of_scenario = at_rate(of_scenario, report.max_rate_rps.value)
    _, timed = split_after_pause(of_scenario)
    latencies_ms = np.sort(np.where(timed.failed(), math.inf, timed.array("latency_ms")))
    steps = round((1 - SLO_QUANTILE) / TAIL_STEP)
    quantiles_ms = (nearest_rank(latencies_ms, SLO_QUANTILE + TAIL_STEP * step) for step in range(steps + 1))
    return tuple(value if math.isfinite(value) else None for value in quantiles_ms)
