"""The answer of a report in words: which target to take, on what condition, and whether the run can be trusted.

answer.js writes the same words for other traffic; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from eval.analysis.findings import Finding, FindingCode, Severity
from eval.analysis.latency import max_rate
from eval.analysis.predictions.accuracy import Agreement
from eval.analysis.recommendation import Recommendation, idle_timeout, recommend, slo_p95
from eval.analysis.report_model import Candidate, Option, SlowdownLimit, Tile, Traffic
from eval.analysis.verdict_facts import VerdictFacts
from eval.codes import ReasonCode, Unavailable, reason
from eval.cost.cost_model import SLOWDOWNS
from eval.formatting import count, disagreement_text, join_words, ms, per_second, percent, plural, short, usd
from eval.plan.config import MAX_RATE
from eval.report.scenario_sections import SHORT_TITLES
from eval.report.wording import STILL_RUNNING, gathered, incomplete_text, message
from eval.samples.model import REFERENCE
from service.engines.names import PLAIN_ENGINE, engine_title

MAX_FAILURES = 3  # that are named, of targets without an answer
MAX_DISAGREEMENTS = 3  # pairs that are named
MAX_RATES = 2  # of targets that are named
BUSY_RPS = (
    *(n / 3600 for n in (1, 2, 5, 10, 20, 40)),
    *(n * 10**e for e in (-2, -1, 0, 1, 2) for n in (2, 3, 5, 7, 10)),
)  # of the slider, requests a second
BUSY_HOURS = (1, 2, 4, 6, 8, 10, 12, 16, 20, 24)  # of the slider, a day
SLO_MS = (10, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 3000, 5000)  # of the slider
TABLE_BUSY_RPS = (1 / 3600, 0.1, 1.0, 10.0, 100.0)  # rates with a column of their own
MIN_RPS_PER_SECOND = 0.02  # a lower rate is told by the hour
ALWAYS_WARM_SETTING = "With one instance always warm (cloudtrial:minInstances 1)."
NOT_MEASURED = "not measured"
START_NOT_MEASURED = "it is that of a cold start, and no start was measured"
ROUNDING_NOT_DOCUMENTED = "how billed time is rounded is not documented"


@dataclass(frozen=True)
class AnswerRow:
    """One target in the table of the answer, as text."""

    name: str
    title: str
    recommended: bool
    usd: str
    usd_range: str  # where a billing rule is not documented
    always_warm: str  # that it is so, or what it would cost
    bar: float  # of the highest bill
    p95: str
    is_cold_start: bool  # p95 is that of a cold start
    cold_fraction: str
    cold_start: str  # its length; empty where there is none
    fits_memory: str
    within: str
    excluded: str  # why it is not to be taken


@dataclass(frozen=True)
class Slider:
    """Values to choose from, with the one that is chosen."""

    values: tuple[float, ...]
    index: int
    text: str

    @classmethod
    def of(cls, values: Sequence[float], value: float, text: str) -> Slider:
        every = tuple(sorted({*values, value}))
        return cls(every, every.index(value), text)


@dataclass(frozen=True)
class AnswerTable:
    """The first screen of the page."""

    rows: list[AnswerRow]
    engines: dict[str, str]  # engine -> its title
    engine: str | None
    busy_rps: Slider
    busy_hours: Slider
    slo_ms: Slider
    scenario: str  # of whose requests p95 is
    by_traffic: dict[str, dict[str, tuple[str, bool]]]  # target -> rate -> dollars a month, and whether to take it
    taken_for: str  # what those are that are to be taken in `by_traffic`; empty where none is


def answer(facts: VerdictFacts) -> str:
    """At most 15 words."""
    if not facts.measured_targets:
        return "No target answered."
    if not facts.complete:
        return "Incomplete run: no answer yet."
    if facts.invalid:
        return "Not a valid comparison: no answer."
    recommendation = facts.recommendation
    if not recommendation.options:
        return _answer_without_prices(facts)
    traffic = traffic_text(facts.traffic)
    if recommendation.target is None:
        return f"At {traffic}, no target qualifies."
    bill, title = recommendation.options[recommendation.target].bill, facts.candidates[recommendation.target].title
    return f"At {traffic}, take {title}: {usd(round(bill.net_usd, 2))} a month."


def _engine_text(facts: VerdictFacts, engine: str | None) -> str:
    """Where the answer is of one of several engines."""
    return f"With {engine_title(engine)}." if engine and len(_engines(facts)) > 1 else ""


def _engines(facts: VerdictFacts) -> list[str]:
    """Those of the targets with a price."""
    return [engine for engine in dict.fromkeys(each.engine for each in facts.candidates.values()) if engine]


def condition(facts: VerdictFacts) -> str:
    """What the answer depends on, or what to do about its absence."""
    if not facts.measured_targets:
        return _grouped_failures(facts)
    if not facts.complete:
        note = incomplete_text(facts.note)
        ended = "It is still running, or was killed" if note == STILL_RUNNING else f"It was ended: {note}"
        return f"{ended}. `./cloudtrial run --resume DIR` does the rest."
    if facts.invalid:
        return _sentences(message(finding) for finding in facts.invalid)
    recommendation = facts.recommendation
    if not recommendation.options:
        return _no_price_text(facts)
    if recommendation.target is None:
        return _excluded_text(facts)
    taken = recommendation.options[recommendation.target]
    parts = [
        _engine_text(facts, facts.candidates[recommendation.target].engine),
        _p95_unknown_text(facts.candidates[recommendation.target]) if taken.within_objective is None else "",
        ALWAYS_WARM_SETTING if taken.min_instances else "",
        _next_text(facts),
    ]
    if facts.twins and recommendation.slowdown_limit is not None:
        parts.append(slowdown_text(recommendation.slowdown_limit, taken.bill.net_usd))
    return " ".join(filter(None, parts))


def answer_table(facts: VerdictFacts) -> AnswerTable:
    """The table at the default traffic, and what the page needs to make it for another. No rows without an answer."""
    recommendation, traffic = facts.recommendation, facts.traffic
    by_rate = _recommendations_by_rate(facts)
    return AnswerTable(
        rows=answer_rows(facts.candidates, recommendation.options, recommendation.ranked) if facts.answered else [],
        engines={engine: engine_title(engine) for engine in _engines(facts)},
        engine=facts.engine_recommended,
        busy_rps=Slider.of(BUSY_RPS, traffic.busy_rps, rate_text(traffic.busy_rps)),
        busy_hours=Slider.of(BUSY_HOURS, traffic.busy_hours_per_day, hours_text(traffic.busy_hours_per_day)),
        slo_ms=Slider.of(SLO_MS, facts.slo_ms, ms(facts.slo_ms)),
        scenario=scenario_text(facts),
        by_traffic=_usd_by_traffic(by_rate),
        taken_for=_taken_for(by_rate.values(), facts.slo_ms),
    )


def answer_rows(
    candidates: Mapping[str, Candidate], options: Mapping[str, Option], ranked: Sequence[str]
) -> list[AnswerRow]:
    """Those that may be taken first, then the others."""
    highest_usd = max((option.bill.net_usd for option in options.values()), default=0.0)
    others = [name for name in options if name not in ranked]
    order = [*ranked, *sorted(others, key=lambda name: options[name].bill.net_usd)]
    return [_row(name, candidates[name], options[name], highest_usd, ranked[:1] == [name]) for name in order]


def scenario_text(facts: VerdictFacts) -> str:
    """The main scenario in words: "steady stream", "one at a time"."""
    return SHORT_TITLES.get(facts.scenario or "", "").lower()


def remarks(facts: VerdictFacts, findings: Iterable[Finding]) -> tuple[str, ...]:
    """What to know of the run beside the answer and its condition: one for each code."""
    told = (Severity.WARNING,) if facts.complete else (Severity.INVALID, Severity.WARNING)
    others = (f for f in findings if f.severity in told and f.code != FindingCode.RUN_INCOMPLETE)
    return tuple(gathered(others))


def _recommendations_by_rate(facts: VerdictFacts) -> dict[float, Recommendation]:
    """Of the table's rates, in the busy hours of `facts.traffic`."""
    group = {name: candidate for name, candidate in facts.candidates.items() if name in facts.recommendation.options}
    return {
        busy_rps: recommend(group, replace(facts.traffic, busy_rps=busy_rps), facts.slo_ms)
        for busy_rps in TABLE_BUSY_RPS
    }


def _usd_by_traffic(by_rate: Mapping[float, Recommendation]) -> dict[str, dict[str, tuple[str, bool]]]:
    """Target -> rate -> dollars a month, and whether it is to be taken."""
    table: dict[str, dict[str, tuple[str, bool]]] = {}
    for busy_rps, recommendation in by_rate.items():
        for name, option in recommendation.options.items():
            note = " (left out)" if option.excluded else " (always warm)" if option.min_instances else ""
            text = usd(round(option.bill.net_usd, 2)) + note
            table.setdefault(name, {})[rate_text(busy_rps)] = text, name == recommendation.target
    return table


def _taken_for(recommendations: Iterable[Recommendation], slo_ms: float) -> str:
    """What the targets are that are taken: it claims no p95 that is not known."""
    within = {r.options[r.target].within_objective for r in recommendations if r.target}
    if not within:
        return ""
    if within == {None}:
        return "cheapest of those that fit, by the bill alone, as p95 is not known"
    where = " where it is known" if None in within else ""
    return f"cheapest of those that fit, and keep p95 within {ms(slo_ms)}{where}"


def _row(name: str, candidate: Candidate, option: Option, highest_usd: float, recommended: bool) -> AnswerRow:
    bill = option.bill
    low, high = usd(round(bill.net_low_usd, 2)), usd(round(bill.net_high_usd, 2))
    startup_ms = candidate.demand_by_slowdown[1].startup_s * 1000
    starts = idle_timeout(candidate.target, bill, option.min_instances) is not None
    yes_or_no = {True: "yes", False: "no", None: "not known"}
    return AnswerRow(
        name=name,
        title=candidate.title,
        recommended=recommended,
        usd=usd(round(bill.net_usd, 2)),
        usd_range="" if low == high else f"{low} to {high}",
        always_warm=_always_warm(option),
        bar=bill.net_usd / highest_usd if highest_usd else 0.0,
        p95="not known" if option.p95_ms is None else ms(option.p95_ms),
        is_cold_start=option.p95_ms is not None and option.p95_ms == startup_ms,
        cold_fraction=cold_fraction_text(option.cold_start_fraction),
        cold_start=(ms(startup_ms) if candidate.startup_measured else NOT_MEASURED) if starts else "",
        fits_memory=yes_or_no[candidate.fits_memory],
        within=yes_or_no[option.within_objective],
        excluded=message(option.excluded) if option.excluded else "",
    )


def _always_warm(option: Option) -> str:
    if option.min_instances:
        return "always warm"
    return "" if option.always_warm_usd is None else f"always warm: {usd(round(option.always_warm_usd, 2))}"


def tiles(facts: VerdictFacts, findings: Sequence[Finding], *, golden: bool) -> tuple[Tile, ...]:
    """Correct, the same answers everywhere, to be trusted."""
    return _correct_tile(facts, golden), _agreement_tile(facts), _trust_tile(facts, findings)


def _correct_tile(facts: VerdictFacts, golden: bool) -> Tile:
    engines = list(dict.fromkeys(facts.targets[name].engine for name in facts.measured_targets))
    texts = []
    for engine in engines:
        names = [name for name in facts.measured_targets if facts.targets[name].engine == engine]
        if golden:
            agreement = facts.vs_reference(names)
            texts.append(_as_the_model(agreement) if agreement else "not known")
        else:
            known = [value for name in names if (value := facts.targets[name].accuracy.value) is not None]
            ends = dict.fromkeys(percent(value) for value in (min(known), max(known))) if known else ["not known"]
            texts.append(" to ".join(ends))
    n = max((facts.targets[name].accuracy.n or 0 for name in facts.measured_targets), default=0)
    is_only_engine = engines == [facts.reference_engine] != [PLAIN_ENGINE]  # of a model that has no other
    titles = " · ".join(engine_title(engine) if engine else "engine not known" for engine in engines) + ": "
    titles = "" if is_only_engine or engines == [None] else titles
    note = f"as the model itself; {message(reason(ReasonCode.GOLDEN_SET))}" if golden else f"of {plural(n, 'image')}"
    return Tile("Correct", " · ".join(texts) or "not known", f"{titles}{note}" if texts else "")


def _as_the_model(agreement: Agreement) -> str:
    """As "100 of 100"."""
    return f"{count(agreement.n - agreement.disagreements)} of {count(agreement.n)}"


def _agreement_tile(facts: VerdictFacts) -> Tile:
    heading = "Same answers everywhere"
    disagreements = facts.disagreements()
    compared = [agreement for agreement in facts.agreement.values() if agreement.n]
    if not compared:
        return Tile(heading, "not checked", "nothing to compare with")
    if not disagreements:
        unchecked = "" if facts.has_reference else "not checked against the model itself"
        note = "; ".join(filter(None, (_same_engine_text(facts), *_other_engine_texts(facts), unchecked)))
        if facts.same_model_undecided(facts.measured_targets):
            return Tile(heading, "not decided", note)
        value = "yes" if len(facts.measured_targets) == len(facts.targets) else "yes, of those that answered"
        rounding = ", but for rounding" if any(agreement.disagreements for agreement in compared) else ""
        return Tile(heading, value + rounding, note)
    texts = [
        f"{facts.title(a)} and {facts.title(b)}: {disagreement_text(agreement.disagreements, agreement.n)}"
        for a, b, agreement in sorted(disagreements, key=lambda pair: -pair[2].disagreements)[:MAX_DISAGREEMENTS]
    ]
    others = len(disagreements) - MAX_DISAGREEMENTS
    return Tile(heading, "no", "; ".join([*texts, *([f"and {plural(others, 'other pair')}"] if others > 0 else [])]))


def _same_engine_text(facts: VerdictFacts) -> str:
    """Of targets of one engine with each other, and of the reference's engine with it; empty where none were compared.

    There are no differences to tell: one would be a fault.
    """
    pairs = {
        pair: agreement.n
        for pair, agreement in facts.agreement.items()
        if agreement.n and not facts.engines_differ(*pair.rsplit("|", 1))
    }
    if not pairs:
        return ""
    engines = {facts.engine(name) for name in facts.measured_targets}
    whose = "" if engines == {facts.reference_engine} else f" with {engine_title(facts.reference_engine)}"
    n_with_model = sum(pair.endswith(f"|{REFERENCE}") for pair in pairs)
    between = n_with_model > 1 or n_with_model < len(pairs)  # two that answer as the model does answer alike
    are_known = all(facts.targets[name].engine for name in facts.measured_targets)
    among = "targets of one engine" if are_known else "targets"
    where = [f" between {among}"] * between + [f"{whose} from the model itself"] * bool(n_with_model)
    return f"0 of {plural(max(pairs.values()), 'image')} differ{', or'.join(where)}"


def _other_engine_texts(facts: VerdictFacts) -> list[str]:
    """How far each other engine than the reference's is from the model."""
    texts = []
    baseline = "the model" if facts.has_reference else engine_title(facts.reference_engine)
    engines = dict.fromkeys(map(facts.engine, facts.measured_targets))
    for engine in (engine for engine in engines if engine != facts.reference_engine):
        names = [name for name in facts.measured_targets if facts.engine(name) == engine]
        if agreement := facts.vs_reference(names):
            undecided = "; whether it is the same is not decided" if facts.same_model_undecided(names) else ""
            why = undecided or (", by rounding" if agreement.disagreements else "")
            differ = disagreement_text(agreement.disagreements, agreement.n)
            texts.append(f"{engine_title(engine)}: {differ} differ from {baseline}{why}")
    return texts


def _trust_tile(facts: VerdictFacts, findings: Sequence[Finding]) -> Tile:
    n_remarks = len(remarks(facts, findings))
    sent = sum(report.sent for report in facts.targets.values())
    failed = sum(sum(report.errors.values()) for report in facts.targets.values())
    value = "yes" if facts.measured_targets and facts.complete and not facts.invalid else "no"
    suffix = f", {plural(n_remarks, 'remark')}" if n_remarks else ""
    return Tile("Can this run be trusted?", f"{value}{suffix}", f"{count(failed)} of {plural(sent, 'request')} failed")


def rate_text(rps: float) -> str:
    """A rate, as "5 a second" or "2 an hour"."""
    return f"{short(rps)} a second" if rps >= MIN_RPS_PER_SECOND else f"{short(rps * 3600)} an hour"


def traffic_text(traffic: Traffic) -> str:
    """Traffic, as "5 a second, 8 h a day"."""
    return f"{rate_text(traffic.busy_rps)}, {hours_text(traffic.busy_hours_per_day)}"


def hours_text(hours: float) -> str:
    """The busy hours, as "8 h a day"."""
    return "all day" if hours >= 24 else f"{short(hours)} h a day"


def cold_fraction_text(fraction: float) -> str:
    """The share of requests that meet a cold start."""
    return "never" if fraction == 0 else percent(fraction, 1)


def slowdown_text(limit: SlowdownLimit, net_usd: float) -> str:
    """Up to which slowdown of the processor the answer holds, and at what price if that grows."""
    if limit.factor <= 1:
        return f"The answer does not hold on a processor {SLOWDOWNS[0]} times slower than this machine's."
    price = f", at {usd(limit.net_usd)}" if usd(limit.net_usd) != usd(round(net_usd, 2)) else ""
    return f"The answer holds on a processor up to {limit.factor} times slower than this machine's{price}."


def _p95_unknown_text(candidate: Candidate) -> str:
    why = message(candidate.p95_reason) if candidate.p95_reason else START_NOT_MEASURED
    return f"P95 not known ({why}): by the bill alone."


def _next_text(facts: VerdictFacts) -> str:
    """Who costs the same, or comes next."""
    recommendation, candidates = facts.recommendation, facts.candidates
    first, *others = recommendation.ranked
    if not others:
        return _excluded_text(facts)
    options = {name: recommendation.options[name] for name in recommendation.ranked}
    amounts = {name: usd(round(option.bill.net_usd, 2)) for name, option in options.items()}
    titles = {
        name: f"{candidates[name].title}{' (always warm)' if option.min_instances else ''}"
        for name, option in options.items()
    }
    equal = [titles[name] for name in others if amounts[name] == amounts[first]]
    if equal:
        return f"{join_words(equal)} {'costs' if len(equal) == 1 else 'cost'} the same."
    text = f"{titles[others[0]]} at {amounts[others[0]]}"
    return f"Next: {text}{f', which may be as cheap: {ROUNDING_NOT_DOCUMENTED}' if recommendation.tied else ''}."


def _excluded_text(facts: VerdictFacts) -> str:
    reasons = [
        f"{facts.candidates[name].title} ({message(option.excluded)})"
        for name, option in facts.recommendation.options.items()
        if option.excluded
    ]
    return f"Left out: {join_words(reasons)}." if reasons else ""


def _no_price_text(facts: VerdictFacts) -> str:
    """Why there is none, or which option gives one."""
    costs = {name: facts.targets[name].cost.idle_usd_per_month for name in facts.measured_targets}
    whys = {name: cost.reason for name, cost in costs.items() if isinstance(cost, Unavailable)}
    texts = {name: message(why) for name, why in whys.items() if why.code != ReasonCode.CUSTOM_ENDPOINT}
    if not texts:
        return (
            f"No target has a price. One gets it by --priced-as, as in {facts.measured_targets[0]}=gcp_cloudrun:1:1024."
        )
    if len(set(texts.values())) == 1:
        return f"No target has a price: {next(iter(texts.values()))}."
    return f"No target has a price: {join_words([f'{facts.title(name)} ({text})' for name, text in texts.items()])}."


def _answer_without_prices(facts: VerdictFacts) -> str:
    if facts.scenario == MAX_RATE:
        return _answer_of_highest_rates(facts)
    fastest = facts.fastest()
    if fastest:
        return f"{facts.title(fastest)} is fastest ({scenario_text(facts)}); no prices are known."
    if len(facts.measured_targets) > 1:
        return f"None is shown to be fastest ({scenario_text(facts)}); no prices are known."
    name = facts.measured_targets[0]
    p95, accuracy = slo_p95(facts.targets[name], facts.scenario).value, facts.targets[name].accuracy.value
    agreement = facts.agreement_of(name, REFERENCE)
    figures = [
        *([] if p95 is None else [f"p95 {ms(p95)} ({scenario_text(facts)})"]),
        *([] if accuracy is None else [f"{percent(accuracy)} correct"]),
        *([f"{_as_the_model(agreement)} as the model itself"] if accuracy is None and agreement else []),
    ]
    return f"{facts.title(name)}: {', '.join(figures) or 'no figure is known'}."


def _answer_of_highest_rates(facts: VerdictFacts) -> str:
    """No rank: how many requests a second each target served within the objective."""
    rates = {name: max_rate(facts.targets[name].scenarios) for name in facts.measured_targets}
    held = sorted(((rate, name) for name, rate in rates.items() if rate is not None), reverse=True)
    if not held:
        return f"No target kept p95 within {ms(facts.slo_ms)} at any rate."
    if len(held) > MAX_RATES:
        text = f"{per_second(held[-1][0])} to {per_second(held[0][0])}"
    else:
        text = join_words([f"{facts.title(name)} {per_second(rate)}" for rate, name in held])
    return f"Highest rate with p95 within {ms(facts.slo_ms)}: {text}."


def _sentences(messages: Iterable[str]) -> str:
    return " ".join(f"{text[0].upper()}{text[1:].rstrip('.')}." for text in messages)


def _for_several(failure: str, titles: Sequence[str]) -> str:
    return failure.replace("was not", "were not", 1) if len(titles) > 1 and failure.startswith("was not") else failure


def _grouped_failures(facts: VerdictFacts) -> str:
    """Each failure once, with the targets that had it, the most frequent first."""
    titles_by_failure: dict[str, list[str]] = {}
    for target_report in facts.targets.values():
        if target_report.failure:
            sent = target_report.sent
            result = f"answered none of {count(sent)}" if sent else "was not measured"
            text = f"{result}: {target_report.failure.splitlines()[0]}"
            titles_by_failure.setdefault(text, []).append(target_report.title)
    groups = sorted(titles_by_failure.items(), key=lambda group: -len(group[1]))
    texts = [f"{join_words(titles)} {_for_several(failure, titles)}" for failure, titles in groups[:MAX_FAILURES]]
    others = sum(len(titles) for _, titles in groups[MAX_FAILURES:])
    texts += [f"{plural(others, 'other target')} failed otherwise"] if others else []
    return " ".join(f"{text.rstrip('.')}." for text in texts)
