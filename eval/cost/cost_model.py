"""From a target's samples to its `cost` in report.json: measurements, assumptions and bills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from eval.cost import billing
from eval.cost.billing import Bill, ResourceDemand
from eval.cost.price_list import Price, PriceList
from eval.errors import PriceError
from eval.formatting import count, join_words, per_second, significant
from eval.samples.model import Sample, TargetRun
from infra.targets import TARGETS, Target

PRICED_RATES_RPS = (1, 10, 100)  # for the price of a million requests
PRICED_MONTHLY_REQUESTS = (10_000, billing.REQUESTS_PER_MONTH, 100_000_000)
CURVE_RPS = np.geomspace(billing.MIN_RPS, billing.MAX_RPS, 141)  # 20 points per decade
RESPONSE_HEADER_BYTES = 500  # of a response: about 400 of the service, and some of the platform
CONTAINER_IMAGE_GIB = 0.5  # one stored container image, compressed, with torch's CPU build
DEFAULT_STARTUP_S = 8.0  # if no start was measured
MEASURED_RATE_TEXT = "the highest rate that one was measured to serve with its latency within the objective"


@dataclass(frozen=True)
class CostModel:
    """Everything needed to price a target."""

    target: Target
    target_run: TargetRun
    demand: ResourceDemand
    prices: dict[str, Price]  # by role
    inference_cpus: int  # cores that a forward pass uses
    startup_measured: bool
    price_list_date: str

    def bill(self, requests: float) -> Bill:
        unit_prices = {role: price.amount for role, price in self.prices.items()}
        return billing.monthly_bill(requests, self.demand, self.target, unit_prices)


def build_cost_model(
    run: TargetRun,
    succeeded: Sequence[Sample],
    prices: PriceList,
    max_rate_rps: float | None = None,
    startup_s: float | None = None,
) -> CostModel | str:
    """The cost model of a target, or the reason why it cannot be priced.

    succeeded: one scenario's successful samples. max_rate_rps: the highest rate of ONE instance within the latency
    objective; None without a rate search. startup_s: of confirmed cold starts, if there are any.
    """
    if run.target is None:
        return "a custom endpoint: its size and price are unknown"
    if run.target not in TARGETS:
        return f"{run.target!r} is not one of the targets: {join_words(list(TARGETS))}"
    with_server_time = [s for s in succeeded if "total" in s.server_timing_ms]
    if not with_server_time:
        return "no response has the service time (Server-Timing: total)"
    target = TARGETS[run.target]
    try:
        prices_by_role = billing.prices_for(target, prices)
    except PriceError as error:
        return str(error)
    inference_cpus = run.cpus or run.version.get("cpus") or math.ceil(target.vcpus)
    startup_ms = run.startup_ms or (run.version.get("startup_ms") or {}).get("total")
    if startup_s is None and startup_ms is not None:
        startup_s = startup_ms / 1000
    demand = _resource_demand(with_server_time, inference_cpus, startup_s, max_rate_rps, target)
    return CostModel(
        target, run, demand, prices_by_role, inference_cpus, startup_s is not None, prices.date.isoformat()
    )


def rps_per_instance(max_rate_rps: float | None, step_samples: Sequence[Sample]) -> float | None:
    """The highest rate of a target per instance. `step_samples`: the samples of that step of the rate search.

    A platform that scales out serves a rate with several instances, counted by the instance IDs in the responses.
    """
    if max_rate_rps is None:
        return None
    return max_rate_rps / max(1, len({s.instance_id for s in step_samples if s.instance_id}))


def _resource_demand(
    samples: Sequence[Sample], inference_cpus: int, startup_s: float | None, max_rate_rps: float | None, target: Target
) -> ResourceDemand:
    """Means, because bills are sums. Server time, not the client's: a platform does not bill network time."""
    total_s = [s.server_timing_ms["total"] / 1000 for s in samples]
    timings_ms = [s.server_timing_ms for s in samples]
    inference_s = [min(t.get("inference", math.inf), t["total"]) / 1000 for t in timings_ms]
    service_s = max(fmean(total_s), 1e-6)
    return ResourceDemand(
        service_s=service_s,
        billed_s=fmean(billing.round_up_billed_s(total) for total in total_s),
        cpu_s=service_s + (inference_cpus - 1) * fmean(inference_s),
        instance_rps=max_rate_rps or 1 / service_s,
        rate_measured=bool(max_rate_rps),
        startup_s=DEFAULT_STARTUP_S if startup_s is None else startup_s,
        egress_bytes=fmean(s.response_bytes for s in samples) + RESPONSE_HEADER_BYTES,
        container_image_gib=CONTAINER_IMAGE_GIB if target.billing == "request" else 0.0,
    )


def cost_to_report(model: CostModel | str, monthly_requests: Sequence[int] = PRICED_MONTHLY_REQUESTS) -> dict[str, Any]:
    """The `cost` of report.json. Without a cost model every figure has the reason."""
    if isinstance(model, str):
        unavailable = {"value": None, "reason": model}
        return {
            "usd_per_million": {str(rate): unavailable for rate in PRICED_RATES_RPS},
            "idle_usd_per_month": unavailable,
            "monthly_usd": {str(requests): {"gross": unavailable, "net": unavailable} for requests in monthly_requests},
            "curve": [],
            "measured": {},
            "assumed": [],
        }
    requests_at_rate = [rate * billing.SECONDS_PER_MONTH for rate in PRICED_RATES_RPS]
    return {
        "usd_per_million": {
            str(rate): _round_usd(model.bill(requests).gross_usd / requests * 1e6)
            for rate, requests in zip(PRICED_RATES_RPS, requests_at_rate, strict=True)
        },
        "idle_usd_per_month": _round_usd(model.bill(0).net_usd),
        "monthly_usd": {str(requests): _bill_to_report(model.bill(requests)) for requests in monthly_requests},
        "curve": [_curve_point(rps, model.bill(rps * billing.SECONDS_PER_MONTH)) for rps in CURVE_RPS.tolist()],
        "measured": _measurements(model),
        "assumed": _assumptions(model),
    }


def _round_usd(usd: float) -> float:
    return round(usd, 6)


def _bill_to_report(bill: Bill) -> dict[str, Any]:
    """The bill, its number of instances, and its bounds where a billing rule is not documented."""
    return {
        "gross": _round_usd(bill.gross_usd),
        "net": _round_usd(bill.net_usd),
        "gross_low": _round_usd(bill.gross_low_usd),
        "gross_high": _round_usd(bill.gross_high_usd),
        "net_low": _round_usd(bill.net_low_usd),
        "net_high": _round_usd(bill.net_high_usd),
        "instances": bill.instances,
        "beyond_limit": bill.exceeds_max_instances,
    }


def _curve_point(rps: float, bill: Bill) -> dict[str, Any]:
    """A point of the cost curve."""
    return {
        "rps": float(f"{rps:.6g}"),
        "requests_per_month": round(rps * billing.SECONDS_PER_MONTH),
        **_bill_to_report(bill),
    }


def _measurements(model: CostModel) -> dict[str, Any]:
    """The measured figures that the bills are computed from."""
    measurements: dict[str, Any] = {"service_ms": round(model.demand.service_s * 1000, 3)}
    if model.target.billing == "request":
        measurements["billed_window_ms"] = round(model.demand.billed_s * 1000, 3)
    measurements["cpu_ms"] = round(model.demand.cpu_s * 1000, 3)
    if model.demand.rate_measured:
        measurements["max_rate_rps"] = round(model.demand.instance_rps, 3)
    if model.startup_measured and model.target.billing == "request":
        measurements["startup_s"] = round(model.demand.startup_s, 3)
    measurements["answer_bytes"] = round(model.demand.egress_bytes - RESPONSE_HEADER_BYTES, 1)
    return measurements


def _assumptions(model: CostModel) -> list[str]:
    """The assumptions of the bills, one sentence each."""
    month = f"a month of {billing.HOURS_PER_MONTH} hours"
    assumptions = [f"requests come one picture each, at random (Poisson) and evenly over {month}"]
    if model.target_run.twin:
        assumptions.append("the cloud's CPU is as fast as this machine's, on which the twin ran")
    assumptions.append(
        "service time is the mean of what the service reports; the web server's and proxy's own time is left out"
    )
    assumptions.append(
        f"CPU time is the service time, {model.inference_cpus} cores counted as busy during inference"
        if model.inference_cpus > 1
        else "CPU time is the service time"
    )
    assumptions += ASSUMPTIONS_BY_BILLING[model.target.billing](model)
    if model.target.billing != "dyno":
        assumptions.append(
            f"an answer has {RESPONSE_HEADER_BYTES} bytes of headers; connections stay open, TLS "
            "handshakes are not counted"
        )
    assumptions += [
        f"{count(requests)} requests a month need {bill.instances} instances; the target may have "
        f"{model.target.max_instances}, "
        "so they would not be served, and are priced all the same"
        for requests in PRICED_MONTHLY_REQUESTS
        if (bill := model.bill(requests)).exceeds_max_instances
    ]
    assumptions.append(
        f"list prices of {model.price_list_date}; dollars per million requests are gross, without free allowances"
    )
    if unconfirmed := [price.id for price in model.prices.values() if not price.confirmed]:
        assumptions.append(f"not confirmed: {join_words(unconfirmed)}")
    return assumptions


def _always_on_assumption(model: CostModel) -> str:
    capacity_rps = model.demand.capacity_rps
    if model.demand.rate_measured:
        return f"another instance is added above {per_second(capacity_rps)}, {MEASURED_RATE_TEXT}"
    return (
        f"one instance serves {per_second(model.demand.instance_rps)}, the inverse of the service time "
        "of single requests, "
        f"no figure of a load test; another is added above {billing.TARGET_UTILISATION:.0%} of that, "
        f"{per_second(capacity_rps)}"
    )


def _hourly_assumptions(model: CostModel) -> list[str]:
    assumptions = [
        _always_on_assumption(model),
        f"each machine has {model.target.disk_gb} GB of gp3 disk and a public IPv4 address and is never "
        "stopped; a load "
        "balancer, which several need, is not priced",
    ]
    if "surplus" in model.prices:
        assumptions.append(f"CPU use above {model.target.baseline_vcpus} vCPUs on average is paid as surplus credits")
    return assumptions


def _dyno_assumptions(model: CostModel) -> list[str]:
    assumptions = [_always_on_assumption(model), "egress is not metered"]
    if "scaled" in model.prices:
        assumptions.append(
            f"there can be but one {model.target.size} dyno; where one is not enough, all are Standard-1X"
        )
    if model.target.size == "eco":
        awake_h = billing.eco_awake_hours(PRICED_MONTHLY_REQUESTS[0])
        assumptions.append(
            f"nothing else uses the Eco pool; {count(PRICED_MONTHLY_REQUESTS[0])} requests a month keep "
            f"the dyno up {awake_h:.0f} h"
        )
    return assumptions


def _request_assumptions(model: CostModel) -> list[str]:
    startup_text = "" if model.startup_measured else f"; a start takes {significant(DEFAULT_STARTUP_S)} s"
    overlap_text = (
        "every request is billed its own time: an instance takes one at a time"
        if model.target.concurrency == 1
        else f"requests that overlap in an instance are billed once; it takes {model.target.concurrency} at a time"
    )
    rate_text = (
        f", or above {per_second(model.demand.instance_rps)}, {MEASURED_RATE_TEXT}"
        if model.demand.rate_measured
        else ", no figures of a load test"
    )
    return [
        f"an instance is added above {billing.AUTOSCALER_UTILISATION:.0%} of its CPU or concurrency, by the times of "
        f"single requests{rate_text}",
        overlap_text,
        "each request's time is rounded up to 100 ms; whether that or each active interval is rounded is not "
        "documented, so gross_low and gross_high, net_low and net_high are bounds",
        f"an idle instance is kept for {billing.IDLE_TIMEOUT_S} s; starts are billed{startup_text}; "
        "those to scale out are left out",
        f"{CONTAINER_IMAGE_GIB} GiB of container images are kept; builds are not priced",
        "the free allowances are used by nothing else in the account",
    ]


ASSUMPTIONS_BY_BILLING = {"hourly": _hourly_assumptions, "dyno": _dyno_assumptions, "request": _request_assumptions}
