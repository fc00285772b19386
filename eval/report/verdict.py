"""What a run says, in one sentence and in warnings. Deterministic, from the numbers of report.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.analysis.findings import Findings, _latency, alike, by_latency
from eval.analysis.slo import ERROR_RATE, close_bills
from eval.cost.billing import MONTH_S
from eval.formatting import count, listing, ms, plural, times, usd
from eval.report.accuracy_text import rightness
from eval.targets.engines import REFERENCE_ENGINE
from infra.local.names import engine_title


def verdict(found: Findings) -> dict[str, Any]:
    """The `verdict` of report.json."""
    speed, order = by_latency(found.targets)
    costs = found.contest
    return {
        "sentence": sentence(found),
        "fastest": order[0] if order else None,
        "as_fast": alike(found.targets, speed, order),
        "cheapest": costs.order[0] if costs.order else None,
        "runner_up": costs.order[1] if len(costs.order) > 1 else None,
        "too_close": costs.close,
        "right": found.right(),
        "valid": not found.invalid,
        "slo": {
            "p95_ms": found.slo_ms,
            "meets": costs.meets,
            "unsure": costs.unsure,
            "left_out": costs.left_out,
        },
        "traffic": {"requests_per_month": found.requests, "rps": round(found.requests / MONTH_S, 4)},
    }


def sentence(found: Findings) -> str:
    """One sentence for someone who reads no other."""
    doubts = [f"incomplete run ({found.note})"] if found.note else []
    doubts += [f"not a valid comparison, as {'; '.join(found.invalid)}"] if found.invalid else []
    if found.answered:
        parts = (_speed(found), _switch(found), _price(found), _left_out(found), rightness(found), _missing(found))
        said = "; ".join(part for part in parts if part)
        if found.twins:
            said = f"on local twins, {said}"
    else:
        said = "no target answered, so there is nothing to compare"
    text = ": ".join([*doubts, said])
    is_name = any(text.startswith(facts["title"]) for facts in found.targets.values())
    return f"{text if is_name else text[0].upper() + text[1:]}."


def _speed(found: Findings) -> str:
    name, order = by_latency(found.targets)
    if not order:
        return "too few requests were answered to say which is fastest"
    value = ms(_latency(found.targets[order[0]])[name]["value"])
    first = found.title(order[0])
    if len(found.answered) == 1:
        return f"{first} answers within {value} ({name})"
    if close := alike(found.targets, name, order):
        return f"{first} is fastest ({name} {value}), with {listing([found.title(n) for n in close])} about as fast"
    return f"{first} is fastest ({name} {value})"


def _switch(found: Findings) -> str:
    """By how much each other engine is faster, over all targets that have both."""
    factors: dict[str, list[float]] = {}
    for one in found.switches:
        value = one["latency_ms"]["p50"]["times_as_fast"]["value"]
        if value is not None:
            factors.setdefault(one["engines"]["b"], []).append(value)
    told = []
    for engine, of in factors.items():
        least, most = times(min(of)), times(max(of))
        factor = least if least == most else f"{least} to {most}"
        told.append(f"{engine_title(engine)} is {factor} as fast as {engine_title(REFERENCE_ENGINE)} (p50)")
    return ", ".join(told)


def _price(found: Findings) -> str:
    costs = found.contest
    traffic = f"at {count(found.requests)} requests a month"
    if not costs.order:
        return f"no target can be named cheapest {traffic} with p95 within {ms(found.slo_ms)}" if costs.left_out else ""
    first, *others = costs.order
    title, close = found.title(first), costs.close
    if others and (either := found.either_engine(first, others[0])):
        title, others = f"{either}, with either engine,", others[1:]
        close = bool(others) and close_bills(_month(found, first), _month(found, others[0]))
    surely = "probably " if first in costs.unsure else ""
    within = f"with p95 {surely}within {ms(found.slo_ms)}, " if costs.meets[first] else ""
    if not others:
        one = "only " if costs.left_out else ""
        return f"{within}{one}{title} costs {_bill(found, first)} {traffic}"
    unknown = "" if within else f" (whether p95 is within {ms(found.slo_ms)} is not known)"
    cheapest = f"{within}{title} is cheapest {traffic} ({_bill(found, first)})"
    return f"{cheapest}, {_runner_up(found, first, others[0], close)}{unknown}"


def _runner_up(found: Findings, first: str, second: str, close: bool) -> str:
    text = f"{found.title(second)} ({_bill(found, second)})"
    if close:
        return f"though {text} may be as cheap (how billed time is rounded is not documented)"
    return f"as is {found.title(second)}" if _bill(found, first) == _bill(found, second) else f"ahead of {text}"


def _left_out(found: Findings) -> str:
    """Who is not in the comparison of costs, and why."""
    reasons = [f"{found.title(name)} ({why})" for name, why in found.contest.left_out.items()]
    return f"left out: {listing(reasons)}" if reasons else ""


def _month(found: Findings, name: str) -> Mapping[str, Any]:
    return found.targets[name]["cost"]["monthly_usd"][str(found.requests)]


def _bill(found: Findings, name: str) -> str:
    bill = _month(found, name)
    net, gross = usd(round(bill["net"], 2)), usd(round(bill["gross"], 2))
    return net if net == gross else f"{net} after the free tier, list price {gross}"


def _missing(found: Findings) -> str:
    """Who failed, so that nobody reads the rest as the whole."""
    parts = [f"{found.title(name)} was not measured" for name in found.targets if name not in found.answered]
    for name in found.answered:
        failed, sent = sum(found.targets[name]["errors"].values()), found.targets[name]["sent"]
        if failed > ERROR_RATE * sent:
            parts.append(f"{found.title(name)} failed {count(failed)} of {plural(sent, 'request')}")
    return listing(parts)
