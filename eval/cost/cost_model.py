"""From a target's samples to its `cost` in report.json: what was measured, what is assumed, and the bills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from eval.cost import billing
from eval.cost.billing import Bill, Work
from eval.cost.price_list import Price, Prices
from eval.errors import PriceError
from eval.formatting import count, listing, per_second, significant
from eval.samples.model import Sample, TargetRun
from infra.targets import TARGETS, Target

RATES = (1, 10, 100)  # requests a second, of which a million is priced
VOLUMES = (10_000, billing.REQUESTS_PER_MONTH, 100_000_000)  # requests a month that are priced
CURVE_RPS = np.geomspace(billing.LOW_RPS, billing.HIGH_RPS, 141)  # 20 a decade
HEADER_BYTES = 500  # of an answer: the service's own headers are about 400, a platform's front adds some
IMAGE_GIB = 0.5  # of container images that are kept: one, compressed, with torch's CPU build
BOOT_S = 8.0  # where the start was not seen
MEASURED_RATE = "the highest rate that one was measured to serve with its latency within the objective"


@dataclass(frozen=True)
class Costing:
    """A target that can be priced."""

    target: Target
    run: TargetRun
    work: Work
    prices: dict[str, Price]  # by role; all that it is billed by
    cpus: int  # that a forward pass was spread over
    boot_measured: bool
    listed: str  # the day of the price list

    def bill(self, requests: float) -> Bill:
        rates = {role: price.amount for role, price in self.prices.items()}
        return billing.monthly(requests, self.work, self.target, rates)


def costing(
    run: TargetRun, answered: Sequence[Sample], prices: Prices, max_rate_rps: float | None = None,
    boot_s: float | None = None,
) -> Costing | str:  # fmt: skip
    """What is needed to price a target, or the reason why it cannot be priced.

    answered: one scenario's answers. max_rate_rps: the highest rate that ONE instance was measured to serve with its
    latency within the objective; None where no search was made. boot_s: of proven cold starts, where there are some.
    """
    if run.target is None:
        return "a foreign endpoint: its size and its price are not known"
    if run.target not in TARGETS:
        return f"{run.target!r} is not one of the targets: {listing(list(TARGETS))}"
    timed = [s for s in answered if "total" in s.server_ms]
    if not timed:
        return "no answer says how long the service took (Server-Timing: total)"
    target = TARGETS[run.target]
    try:
        used = billing.used_prices(target, prices)
    except PriceError as error:
        return str(error)
    cpus = run.cpus or run.version.get("cpus") or math.ceil(target.vcpus)
    boot_ms = run.startup_ms or (run.version.get("startup_ms") or {}).get("total")
    if boot_s is None and boot_ms is not None:
        boot_s = boot_ms / 1000
    work = _work(timed, cpus, boot_s, max_rate_rps, target)
    return Costing(target, run, work, used, cpus, boot_s is not None, prices.date.isoformat())


def one_instance_rps(max_rate_rps: float | None, held: Sequence[Sample]) -> float | None:
    """Its share of the highest rate that a target held, as `costing` wants it. `held`: the samples of that step.

    A platform that scales out holds a rate with several instances; how many is told by their ids in the answers.
    """
    if max_rate_rps is None:
        return None
    return max_rate_rps / max(1, len({s.instance_id for s in held if s.instance_id}))


def _work(timed: Sequence[Sample], cpus: int, boot_s: float | None, max_rate_rps: float | None, target: Target) -> Work:
    """Means, because bills add up. Server time rather than the client's: a platform bills no network."""
    totals = [s.server_ms["total"] / 1000 for s in timed]
    inference = [min(s.server_ms.get("inference", math.inf), s.server_ms["total"]) / 1000 for s in timed]
    service_s = max(fmean(totals), 1e-6)
    return Work(
        service_s=service_s,
        window_s=fmean(billing.rounded_up(total) for total in totals),
        cpu_s=service_s + (cpus - 1) * fmean(inference),
        instance_rps=max_rate_rps or 1 / service_s,
        rated=bool(max_rate_rps),
        boot_s=BOOT_S if boot_s is None else boot_s,
        sent_bytes=fmean(s.answer_bytes for s in timed) + HEADER_BYTES,
        image_gib=IMAGE_GIB if target.billing == "request" else 0.0,
    )


def cost_json(it: Costing | str, volumes: Sequence[int] = VOLUMES) -> dict[str, Any]:
    """The `cost` of report.json, at `volumes` requests a month. Where there is none, every figure says why."""
    if isinstance(it, str):
        none = {"value": None, "reason": it}
        return {
            "usd_per_million": {str(rate): none for rate in RATES},
            "idle_usd_per_month": none,
            "monthly_usd": {str(n): {"gross": none, "net": none} for n in volumes},
            "curve": [],
            "measured": {},
            "assumed": [],
        }
    a_month = [rate * billing.MONTH_S for rate in RATES]
    return {
        "usd_per_million": {
            str(rate): _usd(it.bill(n).gross / n * 1e6) for rate, n in zip(RATES, a_month, strict=True)
        },
        "idle_usd_per_month": _usd(it.bill(0).net),
        "monthly_usd": {str(n): _monthly(it.bill(n)) for n in volumes},
        "curve": [_point(rps, it.bill(rps * billing.MONTH_S)) for rps in CURVE_RPS.tolist()],
        "measured": _measured(it),
        "assumed": _assumed(it),
    }


def _usd(value: float) -> float:
    return round(value, 6)


def _monthly(bill: Bill) -> dict[str, Any]:
    """The bill, how many instances it pays for, and its bounds where a billing rule is not documented."""
    return {
        "gross": _usd(bill.gross),
        "net": _usd(bill.net),
        "gross_low": _usd(bill.low),
        "gross_high": _usd(bill.high),
        "net_low": _usd(bill.net_low),
        "net_high": _usd(bill.net_high),
        "instances": bill.instances,
        "beyond_limit": bill.beyond_limit,
    }


def _point(rps: float, bill: Bill) -> dict[str, Any]:
    """A point of the curve: the traffic, and what a month of it costs."""
    return {"rps": float(f"{rps:.6g}"), "requests_per_month": round(rps * billing.MONTH_S), **_monthly(bill)}


def _measured(it: Costing) -> dict[str, Any]:
    """The figures that the bills are made of."""
    measured: dict[str, Any] = {"service_ms": round(it.work.service_s * 1000, 3)}
    if it.target.billing == "request":
        measured["billed_window_ms"] = round(it.work.window_s * 1000, 3)
    measured["cpu_ms"] = round(it.work.cpu_s * 1000, 3)
    if it.work.rated:
        measured["max_rate_rps"] = round(it.work.instance_rps, 3)
    if it.boot_measured and it.target.billing == "request":
        measured["startup_s"] = round(it.work.boot_s, 3)
    measured["answer_bytes"] = round(it.work.sent_bytes - HEADER_BYTES, 1)
    return measured


def _assumed(it: Costing) -> list[str]:
    """Everything that the bills stand on and that nobody measured."""
    month = f"a month of {billing.HOURS_PER_MONTH} hours"
    lines = [f"requests come one picture each, at random (Poisson) and evenly over {month}"]
    if it.run.twin:
        lines.append("the cloud's CPU is as fast as this machine's, on which the twin ran")
    lines.append(
        "service time is the mean of what the service reports; the web server's and proxy's own time is left out"
    )
    lines.append(
        f"CPU time is the service time, {it.cpus} cores counted as busy during inference"
        if it.cpus > 1
        else "CPU time is the service time"
    )
    lines += BASIS[it.target.billing](it)
    if it.target.billing != "dyno":
        lines.append(
            f"an answer has {HEADER_BYTES} bytes of headers; connections stay open, TLS handshakes are not counted"
        )
    lines += [
        f"{count(n)} requests a month need {bill.instances} instances; the target may have {it.target.max_instances}, "
        "so they would not be served, and are priced all the same"
        for n in VOLUMES
        if (bill := it.bill(n)).beyond_limit
    ]
    lines.append(f"list prices of {it.listed}; dollars per million requests are gross, without free allowances")
    if unsure := [price.id for price in it.prices.values() if not price.confirmed]:
        lines.append(f"not confirmed: {listing(unsure)}")
    return lines


def _always_on(it: Costing) -> str:
    limit = it.work.room_rps
    if it.work.rated:
        return f"another instance is added above {per_second(limit)}, {MEASURED_RATE}"
    return (
        f"one instance serves {per_second(it.work.instance_rps)}, the inverse of the service time of single requests, "
        f"no figure of a load test; another is added above {billing.UTILISATION:.0%} of that, {per_second(limit)}"
    )


def _hourly(it: Costing) -> list[str]:
    lines = [
        _always_on(it),
        f"each machine has {it.target.disk_gb} GB of gp3 disk and a public IPv4 address and is never stopped; a load "
        "balancer, which several need, is not priced",
    ]
    if "surplus" in it.prices:
        lines.append(f"CPU use above {it.target.baseline_vcpus} vCPUs on average is paid as surplus credits")
    return lines


def _dyno(it: Costing) -> list[str]:
    lines = [_always_on(it), "egress is not metered"]
    if "scaled" in it.prices:
        lines.append(f"there can be but one {it.target.size} dyno; where one is not enough, all are Standard-1X")
    if it.target.size == "eco":
        awake = billing.eco_awake_hours(VOLUMES[0])
        lines.append(
            f"nothing else uses the Eco pool; {count(VOLUMES[0])} requests a month keep the dyno up {awake:.0f} h"
        )
    return lines


def _request(it: Costing) -> list[str]:
    start = "" if it.boot_measured else f"; a start takes {significant(BOOT_S)} s"
    overlap = (
        "every request is billed its own time: an instance takes one at a time"
        if it.target.concurrency == 1
        else f"requests that overlap in an instance are billed once; it takes {it.target.concurrency} at a time"
    )
    load = (
        f", or above {per_second(it.work.instance_rps)}, {MEASURED_RATE}"
        if it.work.rated
        else ", no figures of a load test"
    )
    return [
        f"an instance is added above {billing.AUTOSCALER_UTILISATION:.0%} of its CPU or concurrency, by the times of "
        f"single requests{load}",
        overlap,
        "each request's time is rounded up to 100 ms; whether that or each active interval is rounded is not "
        "documented, so gross_low and gross_high, net_low and net_high are bounds",
        f"an idle instance is kept for {billing.IDLE_KEPT_S} s; starts are billed{start}; "
        "those to scale out are left out",
        f"{IMAGE_GIB} GiB of container images are kept; builds are not priced",
        "the free allowances are used by nothing else in the account",
    ]


BASIS = {"hourly": _hourly, "dyno": _dyno, "request": _request}
