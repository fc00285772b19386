"""What a run says, in one sentence. Deterministic, from the numbers of report.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.analysis.slo import MAX_ERROR_RATE, bills_tied
from eval.analysis.verdict_facts import VerdictFacts, latency_percentiles, rank_by_latency
from eval.cost.billing import Bill
from eval.formatting import count, join_words, ms, plural, ratio, usd
from eval.report.accuracy_text import accuracy_text
from eval.report.wording import INTERRUPTED, message
from eval.stats.comparison import Decision
from eval.targets.engines import REFERENCE_ENGINE
from service.engines.names import engine_title

MAX_FAILURES = 3  # that the sentence names, of targets without an answer


def verdict_sentence(facts: VerdictFacts) -> str:
    """One sentence for someone who reads no other."""
    failures = {} if facts.measured_targets else _failures(facts)
    doubts = [] if facts.complete or failures else [f"incomplete run ({facts.note or INTERRUPTED})"]
    doubts += [f"not a valid comparison, as {'; '.join(map(message, facts.invalid))}"] if facts.invalid else []
    if facts.measured_targets:
        parts = (
            _latency_text(facts),
            _speedup_text(facts),
            _cost_text(facts),
            _excluded_text(facts),
            accuracy_text(facts),
            _failed_targets_text(facts),
        )
        body = "; ".join(part for part in parts if part)
        if facts.twins:
            body = f"on local twins, {body}"
    elif failures:
        body = _grouped_failures(failures)
    else:
        body = "no target answered, so there is nothing to compare"
    text = ": ".join([*doubts, body])
    is_name = any(text.startswith(target_report.title) for target_report in facts.targets.values())
    return f"{text if is_name else text[0].upper() + text[1:]}."


def _latency_text(facts: VerdictFacts) -> str:
    percentile, ranked = rank_by_latency(facts.targets)
    if not ranked:
        return "too few requests were answered to say which is fastest"
    value = ms(latency_percentiles(facts.targets[ranked[0]])[percentile].value or 0.0)
    first = facts.title(ranked[0])
    if len(facts.measured_targets) == 1:
        return f"{first} answers within {value} ({percentile})"
    equivalent, undecided = (
        join_words([facts.title(name) for name in ranked if facts.vs_fastest.get(name) == decision])
        for decision in (Decision.EQUIVALENT, Decision.UNDECIDED)
    )
    text = f"{first} is fastest ({percentile} {value})"
    if equivalent:
        text += f", with {equivalent} about as fast"
    if undecided:
        text += f"{' and' if equivalent else ', with'} {undecided} not told apart from it"
    return text


def _speedup_text(facts: VerdictFacts) -> str:
    """By how much each other engine is faster, over all targets that have both."""
    speedups_by_engine: dict[str, list[float]] = {}
    for comparison in facts.engine_comparisons:
        value = comparison.latency_ms["p50"].speedup.value
        if value is not None:
            speedups_by_engine.setdefault(comparison.engines.b, []).append(value)
    texts = []
    for engine, speedups in speedups_by_engine.items():
        lowest, highest = ratio(min(speedups)), ratio(max(speedups))
        speedup_text = lowest if lowest == highest else f"{lowest} to {highest}"
        texts.append(f"{engine_title(engine)} is {speedup_text} as fast as {engine_title(REFERENCE_ENGINE)} (p50)")
    return ", ".join(texts)


def _cost_text(facts: VerdictFacts) -> str:
    ranking = facts.cost_ranking
    traffic = f"at {count(facts.requests_per_month)} requests a month"
    if not ranking.ranked:
        return (
            f"no target can be named cheapest {traffic} with p95 within {ms(facts.slo_ms)}" if ranking.excluded else ""
        )
    first, *others = ranking.ranked
    title, tied = facts.title(first), ranking.tied
    if others and (both_engines_title := facts.same_bill_title(first, others[0])):
        title, others = f"{both_engines_title}, with either engine,", others[1:]
        tied = bool(others) and bills_tied(_monthly_bill(facts, first), _monthly_bill(facts, others[0]))
    qualifier = "probably " if first in ranking.slo_uncertain else ""
    within = f"with p95 {qualifier}within {ms(facts.slo_ms)}, " if ranking.meets_slo[first] else ""
    if not others:
        only = "only " if ranking.excluded else ""
        return f"{within}{only}{title} costs {_bill_text(facts, first)} {traffic}"
    slo_unknown = "" if within else f" (whether p95 is within {ms(facts.slo_ms)} is not known)"
    cheapest = f"{within}{title} is cheapest {traffic} ({_bill_text(facts, first)})"
    return f"{cheapest}, {_runner_up_text(facts, first, others, tied)}{slo_unknown}"


def _runner_up_text(facts: VerdictFacts, first: str, others: Sequence[str], tied: bool) -> str:
    text = f"{facts.title(others[0])} ({_bill_text(facts, others[0])})"
    if tied:
        return f"though {text} may be as cheap (how billed time is rounded is not documented)"
    first_usd = round(_monthly_bill(facts, first).net_usd, 2)
    if equal := [facts.title(name) for name in others if round(_monthly_bill(facts, name).net_usd, 2) == first_usd]:
        return f"{'as is' if len(equal) == 1 else 'as are'} {join_words(equal)}"
    return f"ahead of {text}"


def _excluded_text(facts: VerdictFacts) -> str:
    """Who is not in the comparison of costs, and why."""
    reasons = [f"{facts.title(name)} ({message(reason)})" for name, reason in facts.cost_ranking.excluded.items()]
    return f"left out: {join_words(reasons)}" if reasons else ""


def _monthly_bill(facts: VerdictFacts, name: str) -> Bill:
    bill = facts.targets[name].cost.monthly_usd[str(facts.requests_per_month)]
    if not isinstance(bill, Bill):
        raise ValueError(f"{name} is ranked by cost, but has no bill")
    return bill


def _bill_text(facts: VerdictFacts, name: str) -> str:
    bill = _monthly_bill(facts, name)
    net, gross = usd(round(bill.net_usd, 2)), usd(round(bill.gross_usd, 2))
    low, high = usd(round(bill.net_low_usd, 2)), usd(round(bill.net_high_usd, 2))
    net_range = net if low == high else f"{net}, range {low} to {high},"
    return net if net == gross and low == high else f"{net_range} after the free tier, list price {gross}"


def _failures(facts: VerdictFacts) -> dict[str, str]:
    """Of each target without an answer that says why: its title -> what failed, and why."""
    failures = {}
    for name, target_report in facts.targets.items():
        if name not in facts.measured_targets and target_report.failure:
            sent = target_report.sent
            result = f"answered none of {count(sent)}" if sent else "was not measured"
            failures[target_report.title] = f"{result}: {target_report.failure.splitlines()[0]}"
    return failures


def _grouped_failures(failures: Mapping[str, str]) -> str:
    """Each failure once, with the targets that had it; of many failures the most frequent."""
    titles_by_failure: dict[str, list[str]] = {}
    for title, failure in failures.items():
        titles_by_failure.setdefault(failure, []).append(title)
    groups = sorted(titles_by_failure.items(), key=lambda group: -len(group[1]))
    texts = [f"{join_words(titles)} {failure}" for failure, titles in groups[:MAX_FAILURES]]
    others = sum(len(titles) for _, titles in groups[MAX_FAILURES:])
    return "; ".join([*texts, f"{plural(others, 'other target')} failed otherwise"] if others else texts)


def _failed_targets_text(facts: VerdictFacts) -> str:
    """Who failed, so that nobody reads the rest as the whole."""
    failures = _failures(facts)
    parts = [_grouped_failures(failures)] if failures else []
    unexplained = [t.title for n, t in facts.targets.items() if n not in facts.measured_targets]
    parts += [f"{title} was not measured" for title in unexplained if title not in failures]
    for name in facts.measured_targets:
        failed, sent = sum(facts.targets[name].errors.values()), facts.targets[name].sent
        if failed > MAX_ERROR_RATE * sent:
            parts.append(f"{facts.title(name)} failed {count(failed)} of {plural(sent, 'request')}")
    return join_words(parts)
