"""What a run says, in one sentence and in warnings. Deterministic, from the numbers of report.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.analysis.findings import Findings, latency_percentiles, rank_by_latency, tied_fastest
from eval.analysis.slo import MAX_ERROR_RATE, bills_tied
from eval.formatting import count, join_words, ms, plural, ratio, usd
from eval.report.accuracy_text import accuracy_text
from eval.targets.engines import REFERENCE_ENGINE
from service.engines.names import engine_title


def verdict_sentence(findings: Findings) -> str:
    """One sentence for someone who reads no other."""
    doubts = [f"incomplete run ({findings.note})"] if findings.note else []
    doubts += [f"not a valid comparison, as {'; '.join(findings.invalid)}"] if findings.invalid else []
    if findings.measured_targets:
        parts = (
            _latency_text(findings),
            _speedup_text(findings),
            _cost_text(findings),
            _excluded_text(findings),
            accuracy_text(findings),
            _failed_targets_text(findings),
        )
        body = "; ".join(part for part in parts if part)
        if findings.twins:
            body = f"on local twins, {body}"
    else:
        body = "no target answered, so there is nothing to compare"
    text = ": ".join([*doubts, body])
    is_name = any(text.startswith(target_report["title"]) for target_report in findings.targets.values())
    return f"{text if is_name else text[0].upper() + text[1:]}."


def _latency_text(findings: Findings) -> str:
    percentile, ranked = rank_by_latency(findings.targets)
    if not ranked:
        return "too few requests were answered to say which is fastest"
    value = ms(latency_percentiles(findings.targets[ranked[0]])[percentile]["value"])
    first = findings.title(ranked[0])
    if len(findings.measured_targets) == 1:
        return f"{first} answers within {value} ({percentile})"
    if tied := tied_fastest(findings.targets, percentile, ranked):
        return (
            f"{first} is fastest ({percentile} {value}), with "
            f"{join_words([findings.title(n) for n in tied])} about as fast"
        )
    return f"{first} is fastest ({percentile} {value})"


def _speedup_text(findings: Findings) -> str:
    """By how much each other engine is faster, over all targets that have both."""
    speedups_by_engine: dict[str, list[float]] = {}
    for comparison in findings.engine_comparisons:
        value = comparison["latency_ms"]["p50"]["times_as_fast"]["value"]
        if value is not None:
            speedups_by_engine.setdefault(comparison["engines"]["b"], []).append(value)
    texts = []
    for engine, speedups in speedups_by_engine.items():
        lowest, highest = ratio(min(speedups)), ratio(max(speedups))
        speedup_text = lowest if lowest == highest else f"{lowest} to {highest}"
        texts.append(f"{engine_title(engine)} is {speedup_text} as fast as {engine_title(REFERENCE_ENGINE)} (p50)")
    return ", ".join(texts)


def _cost_text(findings: Findings) -> str:
    ranking = findings.cost_ranking
    traffic = f"at {count(findings.requests_per_month)} requests a month"
    if not ranking.ranked:
        return (
            f"no target can be named cheapest {traffic} with p95 within {ms(findings.slo_ms)}"
            if ranking.excluded
            else ""
        )
    first, *others = ranking.ranked
    title, tied = findings.title(first), ranking.tied
    if others and (both_engines_title := findings.same_bill_title(first, others[0])):
        title, others = f"{both_engines_title}, with either engine,", others[1:]
        tied = bool(others) and bills_tied(_monthly_bill(findings, first), _monthly_bill(findings, others[0]))
    qualifier = "probably " if first in ranking.slo_uncertain else ""
    within = f"with p95 {qualifier}within {ms(findings.slo_ms)}, " if ranking.meets_slo[first] else ""
    if not others:
        only = "only " if ranking.excluded else ""
        return f"{within}{only}{title} costs {_bill_text(findings, first)} {traffic}"
    slo_unknown = "" if within else f" (whether p95 is within {ms(findings.slo_ms)} is not known)"
    cheapest = f"{within}{title} is cheapest {traffic} ({_bill_text(findings, first)})"
    return f"{cheapest}, {_runner_up_text(findings, first, others[0], tied)}{slo_unknown}"


def _runner_up_text(findings: Findings, first: str, second: str, tied: bool) -> str:
    text = f"{findings.title(second)} ({_bill_text(findings, second)})"
    if tied:
        return f"though {text} may be as cheap (how billed time is rounded is not documented)"
    return (
        f"as is {findings.title(second)}"
        if _bill_text(findings, first) == _bill_text(findings, second)
        else f"ahead of {text}"
    )


def _excluded_text(findings: Findings) -> str:
    """Who is not in the comparison of costs, and why."""
    reasons = [f"{findings.title(name)} ({reason})" for name, reason in findings.cost_ranking.excluded.items()]
    return f"left out: {join_words(reasons)}" if reasons else ""


def _monthly_bill(findings: Findings, name: str) -> Mapping[str, Any]:
    return findings.targets[name]["cost"]["monthly_usd"][str(findings.requests_per_month)]


def _bill_text(findings: Findings, name: str) -> str:
    bill = _monthly_bill(findings, name)
    net, gross = usd(round(bill["net"], 2)), usd(round(bill["gross"], 2))
    return net if net == gross else f"{net} after the free tier, list price {gross}"


def _failed_targets_text(findings: Findings) -> str:
    """Who failed, so that nobody reads the rest as the whole."""
    parts = [
        f"{findings.title(name)} was not measured" for name in findings.targets if name not in findings.measured_targets
    ]
    for name in findings.measured_targets:
        failed, sent = sum(findings.targets[name]["errors"].values()), findings.targets[name]["sent"]
        if failed > MAX_ERROR_RATE * sent:
            parts.append(f"{findings.title(name)} failed {count(failed)} of {plural(sent, 'request')}")
    return join_words(parts)
