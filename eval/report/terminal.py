"""Text for a terminal of 80 columns: the end of a run, and the estimate of `./cloudtrial cost`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.cost.billing import Bill
from eval.cost.estimate import CostEstimate, PriceEffect
from eval.cost.price_list import format_amount, table_lines
from eval.formatting import NOT_AVAILABLE, count, ms, per_second, short, significant, usd
from infra.targets import ONE_DYNO_SIZES, TARGETS

HEADINGS = ("", "$ a month", "p95", "errors", "fits memory")
MAX_LINES = 12  # of targets; the reports have all
YES_OR_NO = {True: "yes", False: "no", None: NOT_AVAILABLE}


def terminal_table(summary: Mapping[str, Any]) -> list[str]:
    """Dollars, p95 and what failed of each target of the answer's engine, and of those without a price."""
    options, targets = summary["verdict"]["options"], summary["targets"]
    names = [*options, *(name for name in targets if name not in summary["candidates"])]
    rows: list[tuple[str, ...]] = [HEADINGS]
    for name in names[:MAX_LINES]:
        candidate = summary["candidates"].get(name)
        fits_memory = candidate["fits_memory"] if candidate else targets[name]["memory"]["fits"]
        rows.append(_row(targets[name], summary["verdict"]["scenario"], options.get(name), fits_memory))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for title, *cells in rows:
        lines.append("  ".join([title.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    return [*lines, *([f"and {len(names) - MAX_LINES} others"] if len(names) > MAX_LINES else [])]


def _row(
    target: Mapping[str, Any], scenario: str | None, option: Mapping[str, Any] | None, fits_memory: bool | None
) -> tuple[str, ...]:
    report = target["scenarios"].get(scenario)
    warm_p95_ms = report["latency_with_failures_ms"]["p95"]["value"] if report else None
    p95_ms = option["p95_ms"] if option else warm_p95_ms
    failed = sum(target["errors"].values())
    return (
        target["title"] + (" (always warm)" if option and option["min_instances"] else ""),
        usd(round(option["bill"]["net_usd"], 2)) if option else "–",
        NOT_AVAILABLE if p95_ms is None else ms(p95_ms),
        f"{count(failed)} of {count(target['sent'])}",
        YES_OR_NO[fits_memory],
    )


def estimate_lines(estimate: CostEstimate) -> list[str]:
    """The bills, and below them what they assume."""
    bills = {"at rest": estimate.idle} | {
        f"{count(int(requests))} a month": bill for requests, bill in estimate.monthly_usd.items()
    }
    return [
        f"{TARGETS[estimate.target].title}, {estimate.size}, {estimate.region}",
        *(f"{traffic}: {_bill_text(bill)}" for traffic, bill in bills.items()),
        "",
        *assumption_lines(estimate),
    ]


def _bill_text(bill: Bill) -> str:
    limit = "; exceeds the maximum number of instances" if bill.exceeds_max_instances else ""
    return f"${bill.gross_usd:,.2f}, ${bill.net_usd:,.2f} after free allowances{limit}"


def assumption_lines(estimate: CostEstimate) -> list[str]:
    """What the bills stand on, a line each."""
    assumed, target = estimate.assumptions, TARGETS[estimate.target]
    is_autoscaled, is_metered = target.billing == "request", target.billing != "dyno"
    limit = "its CPU" if is_autoscaled else f"the {per_second(assumed.instance_rps)} that one serves"
    always = f"; {assumed.min_instances} always running" if assumed.min_instances else ""
    peak = short(assumed.peak)
    lines = {
        "prices": f"list prices of {estimate.price_list_date}",
        "traffic": f"{short(assumed.busy_hours_per_day)} busy hours a day, at {peak} times the mean (--peak)",
        "a request": f"{ms(assumed.service_ms)} in the service (--service-ms), {ms(assumed.cpu_ms)} of CPU",
        "instances": f"another above {assumed.utilisation:.0%} of {limit}{always}",
        "dynos": f"several are Standard-1X: there can be but one {estimate.size}"
        if estimate.size in ONE_DYNO_SIZES
        else "",
        "a start": f"{significant(assumed.startup_s)} s until the first response (--boot-s)" if is_autoscaled else "",
        "connections": f"kept open, so no TLS handshakes; {assumed.response_bytes} bytes a response"
        if is_metered
        else "egress is not metered",
        "free tier": "nothing else in the billing account uses it" if is_metered else "",
        "image": f"{assumed.container_image_gib:.2f} GiB stored, its libraries as gzip packs them"
        if assumed.container_image_gib
        else "",
        "unconfirmed": ", ".join(estimate.unconfirmed_price_ids),
    }
    return ["Assumed", *(f"  {name:<13}{text}" for name, text in lines.items() if text)]


def sensitivity_lines(effects: Sequence[PriceEffect], monthly_requests: int) -> list[str]:
    """The effects as a table of text."""
    rows: list[tuple[str, ...]] = [
        ("price", "amount", "net bill", "at half of it", "at twice it", "cheapest target", "at half", "at twice")
    ]
    for effect in effects:
        dollars = (f"${amount:,.2f}" for amount in (effect.usd_per_month, effect.at_half_usd, effect.at_double_usd))
        rows.append((effect.price.id, format_amount(effect.price.amount), *dollars, effect.cheapest,
                     effect.cheapest_at_half, effect.cheapest_at_double))  # fmt: skip
    return [f"At {monthly_requests:,} requests a month, after the free allowances:", *table_lines(rows)]
