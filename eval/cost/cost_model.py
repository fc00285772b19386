"""From a target's samples to its costs: what was measured, what is assumed, and the bills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from eval.codes import Assumption, AssumptionCode, Reason, ReasonCode, Unavailable, reason
from eval.cost import billing
from eval.cost.billing import Bill, ResourceDemand
from eval.cost.price_list import Price, PriceList
from eval.errors import PriceError
from eval.samples.columns import Samples, record_of
from eval.samples.model import Sample, TargetRun
from eval.samples.sizes import priced_target
from infra.local.artifact_size import BASE_IMAGE_MB, LIBRARIES, stored_image_gib
from infra.targets import TARGETS, Target
from service.engines.names import PLAIN_ENGINE

PRICED_RATES_RPS = (1, 10, 100)  # for the price of a million requests
PRICED_MONTHLY_REQUESTS = (10_000, billing.REQUESTS_PER_MONTH, 100_000_000)
CURVE_RPS = np.geomspace(billing.MIN_RPS, billing.MAX_RPS, 141)  # 20 points per decade
RESPONSE_HEADER_BYTES = 500  # of a response: about 400 of the service, and some of the platform
DEFAULT_STARTUP_S = 8.0  # if no start was measured
TLS_HANDSHAKE_BYTES = 4500  # sent to the client for a new TLS connection, most of it the certificates
SLOWDOWNS = (2, 3, 4, 6, 8, 12, 16, 24, 32)  # the cloud's processor against the one that was measured on
TABLE_SLOWDOWNS = SLOWDOWNS[:3]  # for which there are bills in the report


@dataclass(frozen=True)
class ClientTime:
    """The time of requests at the client, from which the service time follows where no response has it."""

    client_ms: float  # mean
    rtt_ms: float  # of a round trip that does nothing
    demand: ResourceDemand  # if all of it were time in the service


@dataclass(frozen=True)
class CostModel:
    """Everything needed to price a target."""

    target: Target
    twin: bool
    demand: ResourceDemand
    prices: dict[str, Price]  # by role
    inference_cpus: int  # cores that a forward pass uses
    cpu_measured: bool  # the twin's CPU time; else it is assumed from the service time
    demand_if_slower: dict[int, ResourceDemand]  # on a processor that many times slower
    peak: float  # highest rate that is to be served, over the mean
    startup_measured: bool
    engine: str
    libraries_measured: bool  # as installed; else their stated size is in the stored image
    price_list_date: str
    client_time: ClientTime | None = None  # where the service does not tell its own

    def bill(self, requests: float) -> Bill:
        """The bill of a month; where the service time is not told, up to that by all of the client's time."""
        unit_prices = {role: price.amount for role, price in self.prices.items()}

        def bill_of(demand: ResourceDemand) -> Bill:
            return billing.monthly_bill(requests, demand, self.target, unit_prices, self.peak)

        bill = bill_of(self.demand)
        if self.client_time is None:
            return bill
        highest = bill_of(self.client_time.demand)
        return replace(
            bill,
            gross_high_usd=max(bill.gross_high_usd, highest.gross_high_usd),
            net_high_usd=max(bill.net_high_usd, highest.net_high_usd),
        )

    def variants(self) -> dict[str, CostModel]:
        """The same target where an assumption is another."""
        return {
            "constant_rate": replace(self, peak=1.0),
            "new_connections": replace(
                self,
                demand=_with_handshakes(self.demand),
                client_time=self.client_time
                and replace(self.client_time, demand=_with_handshakes(self.client_time.demand)),
            ),
            **{
                f"processor_{n}x_slower": replace(self, demand=self.demand_if_slower[n])
                for n in TABLE_SLOWDOWNS
                if n in self.demand_if_slower
            },
        }


@dataclass(frozen=True)
class UnknownBill:
    gross_usd: Unavailable
    net_usd: Unavailable


@dataclass(frozen=True)
class UnitCost:
    """A million requests at a mean rate."""

    gross_usd: float | Unavailable
    instances: int | None  # that the rate needs


@dataclass(frozen=True)
class CurvePoint(Bill):
    rps: float
    requests_per_month: int


@dataclass(frozen=True)
class CostReport:
    """What a target costs."""

    per_million: dict[str, UnitCost]  # by requests a second
    idle_usd_per_month: float | Unavailable
    monthly_usd: dict[str, Bill | UnknownBill]  # by requests a month
    curve: list[CurvePoint]  # by traffic
    what_if: dict[str, dict[str, Bill]]  # other assumption -> requests a month -> bill
    measured: dict[str, float]  # the figures that the bills are made of
    assumptions: list[Assumption]


def build_cost_model(
    run: TargetRun,
    succeeded: Sequence[Sample],
    prices: PriceList,
    max_rate_rps: float | None = None,
    startup_s: float | None = None,
    peak: float = billing.DEFAULT_PEAK,
    network_ms: float = 0.0,
) -> CostModel | Reason:
    """The cost model of a target, or the reason why it cannot be priced.

    succeeded: one scenario's successful samples. max_rate_rps: the highest rate of ONE instance within the latency
    objective; None without a rate search. startup_s: of confirmed cold starts, if there are any. peak: the highest rate
    that is to be served, over the month's mean. network_ms: of the client's time, what is no work of the instance; the
    service time follows from it where no response has it.
    """
    if run.target is None:
        return reason(ReasonCode.CUSTOM_ENDPOINT)
    target = priced_target(run)
    if target is None:
        return reason(ReasonCode.UNKNOWN_TARGET, target=run.target, known=list(TARGETS))
    succeeded = Samples.of(succeeded)
    is_told = bool(_with_server_time(succeeded))
    if not is_told:
        if not succeeded:
            return reason(ReasonCode.NO_REQUEST_SUCCEEDED)
        if not network_ms:
            return reason(ReasonCode.NO_SERVER_TIMING)
    with_service_time = samples_with_service_time(succeeded, network_ms)
    try:
        prices_by_role = billing.prices_for(target, prices)
    except PriceError as error:
        return reason(ReasonCode.PRICE_UNKNOWN, detail=str(error))
    inference_cpus = run.cpus or run.version.get("cpus") or math.ceil(target.vcpus)
    # Of a deployed target it is what its process tells, without all that the platform did before
    startup_ms = run.startup_ms or ((run.version.get("startup_ms") or {}).get("total") if run.twin else None)
    if startup_s is None and startup_ms is not None:
        startup_s = startup_ms / 1000

    engine = run.engine or run.version.get("engine")
    engine = engine if engine in LIBRARIES else PLAIN_ENGINE
    files_bytes, libraries_bytes = run.artifact.get("files_bytes"), run.artifact.get("installed_bytes")
    image_gib = stored_image_gib(engine, files_bytes, libraries_bytes) if target.billing in billing.AUTOSCALED else 0.0

    def demand_of(samples: Sequence[Sample], network_ms: float) -> ResourceDemand:
        demand = _resource_demand(samples, inference_cpus, startup_s, max_rate_rps, network_ms / 1000, target)
        return replace(demand, container_image_gib=image_gib)

    demand, client_time = demand_of(with_service_time, network_ms), None
    if not is_told:
        highest = demand_of([_with_service_time(s, s.service_time_ms) for s in succeeded], 0.0)
        client_time = ClientTime(fmean(s.service_time_ms for s in succeeded), network_ms, highest)
    times_s = service_times_s(with_service_time)
    return CostModel(
        target=target,
        twin=run.twin,
        demand=demand,
        prices=prices_by_role,
        inference_cpus=inference_cpus,
        cpu_measured=not np.isnan(with_service_time.array("cpu_ms")).all(),
        demand_if_slower={n: slowed_demand(demand, times_s, n) for n in SLOWDOWNS} if run.twin else {},
        peak=peak,
        startup_measured=startup_s is not None,
        engine=engine,
        libraries_measured=libraries_bytes is not None,
        price_list_date=prices.date.isoformat(),
        client_time=client_time,
    )


def samples_with_service_time(succeeded: Sequence[Sample], network_ms: float) -> Samples:
    """Those that tell it; where none does, all of them with the client's time less network_ms in its place."""
    succeeded = Samples.of(succeeded)
    return _with_server_time(succeeded) or Samples.of(
        _with_service_time(s, s.service_time_ms - network_ms) for s in succeeded
    )


def _with_server_time(succeeded: Samples) -> Samples:
    return succeeded.where(~np.isnan(succeeded.durations("server_timing_ms", "total")))


def _with_service_time(sample: Sample, service_time_ms: float) -> Sample:
    return replace(record_of(sample), server_timing_ms={"total": max(0.0, service_time_ms)})


def _with_handshakes(demand: ResourceDemand) -> ResourceDemand:
    """The same with a new TLS connection for each request."""
    return replace(demand, egress_bytes=demand.egress_bytes + TLS_HANDSHAKE_BYTES)


def rps_per_instance(max_rate_rps: float | None, step_samples: Sequence[Sample]) -> float | None:
    """The highest rate of a target per instance. `step_samples`: the samples of that step of the rate search.

    A platform that scales out serves a rate with several instances, counted by the instance IDs in the responses.
    """
    if max_rate_rps is None:
        return None
    return max_rate_rps / max(1, len({s.instance_id for s in step_samples if s.instance_id}))


def _resource_demand(
    samples: Sequence[Sample],
    inference_cpus: int,
    startup_s: float | None,
    max_rate_rps: float | None,
    network_s: float,
    target: Target,
) -> ResourceDemand:
    """Means, because bills are sums. Server time, not the client's: a platform does not bill network time.

    The rate that an instance serves is of the client's time less the network's: proxy and server work too before and
    after the service's own time. Or of its CPUs, where a request takes more of their time.
    """
    samples, total_s = Samples.of(samples), service_times_s(samples)
    inference_ms = samples.durations("server_timing_ms", "inference")
    inference_s = (np.fmin(inference_ms, samples.durations("server_timing_ms", "total")) / 1000).tolist()
    service_s = max(float(total_s.mean()), 1e-6)
    cpu_ms = samples.array("cpu_ms")
    cpu_ms = cpu_ms[~np.isnan(cpu_ms)].tolist()
    cpu_s = fmean(cpu_ms) / 1000 if cpu_ms else service_s + (inference_cpus - 1) * fmean(inference_s)
    client_s = fmean(samples.array("service_time_ms").tolist()) / 1000 - network_s
    return ResourceDemand(
        service_s=service_s,
        billed_s=_mean_billed_s(total_s),
        cpu_s=cpu_s,
        instance_rps=max_rate_rps or 1 / max(service_s, client_s, cpu_s / target.vcpus),
        rate_measured=bool(max_rate_rps),
        startup_s=DEFAULT_STARTUP_S if startup_s is None else startup_s,
        egress_bytes=fmean(samples.array("response_bytes").tolist()) + RESPONSE_HEADER_BYTES,
    )


def service_times_s(samples: Sequence[Sample]) -> np.ndarray:
    """What the service itself took for each request that says so."""
    total_ms = Samples.of(samples).durations("server_timing_ms", "total")
    return total_ms[~np.isnan(total_ms)] / 1000


def _mean_billed_s(total_s: np.ndarray) -> float:
    """Each request rounded up, as billing.round_up_billed_s does."""
    increments = np.ceil(np.round(total_s / billing.BILLING_INCREMENT_S, 9))
    return float(increments.mean()) * billing.BILLING_INCREMENT_S


def slowed_demand(demand: ResourceDemand, total_s: np.ndarray, slowdown: float) -> ResourceDemand:
    """The same on a processor that is `slowdown` times slower. total_s: of `service_times_s`."""
    return replace(
        demand,
        service_s=demand.service_s * slowdown,
        billed_s=_mean_billed_s(total_s * slowdown),
        cpu_s=demand.cpu_s * slowdown,
        instance_rps=demand.instance_rps / slowdown,
        startup_s=demand.startup_s * slowdown,
    )


def cost_report(model: CostModel | Reason, monthly_requests: Sequence[int] = PRICED_MONTHLY_REQUESTS) -> CostReport:
    """The bills at `monthly_requests`. Where there is no cost, every figure says why."""
    if isinstance(model, Reason):
        unavailable = Unavailable(model)
        return CostReport(
            per_million={str(rate): UnitCost(unavailable, None) for rate in PRICED_RATES_RPS},
            idle_usd_per_month=unavailable,
            monthly_usd={str(requests): UnknownBill(unavailable, unavailable) for requests in monthly_requests},
            curve=[],
            what_if={},
            measured={},
            assumptions=[],
        )
    return CostReport(
        per_million={str(rate): _unit_cost(model, rate * billing.SECONDS_PER_MONTH) for rate in PRICED_RATES_RPS},
        idle_usd_per_month=_round_usd(model.bill(0).net_usd),
        monthly_usd={str(requests): rounded(model.bill(requests)) for requests in monthly_requests},
        curve=[
            CurvePoint(
                **vars(rounded(model.bill(rps * billing.SECONDS_PER_MONTH))),
                rps=float(f"{rps:.6g}"),
                requests_per_month=round(rps * billing.SECONDS_PER_MONTH),
            )
            for rps in CURVE_RPS.tolist()
        ],
        what_if={
            name: {str(requests): rounded(variant.bill(requests)) for requests in monthly_requests}
            for name, variant in model.variants().items()
        },
        measured=_measurements(model),
        assumptions=_assumptions(model),
    )


def _unit_cost(model: CostModel, requests: float) -> UnitCost:
    bill = model.bill(requests)
    return UnitCost(_round_usd(bill.gross_usd / requests * 1e6), bill.instances)


def _round_usd(usd: float) -> float:
    return round(usd, 6)


def rounded(bill: Bill) -> Bill:
    """With dollars of six decimals, as in report.json."""
    return replace(bill, **{name: _round_usd(value) for name, value in vars(bill).items() if name.endswith("_usd")})


def _measurements(model: CostModel) -> dict[str, float]:
    """The figures that the bills are made of."""
    service = "service_ms" if model.client_time is None else "client_less_rtt_ms"
    measurements = {service: round(model.demand.service_s * 1000, 3)}
    if model.target.billing == "request":
        measurements["billed_ms"] = round(model.demand.billed_s * 1000, 3)
    if model.cpu_measured:
        measurements["cpu_ms"] = round(model.demand.cpu_s * 1000, 3)
    if model.demand.rate_measured:
        measurements["max_rate_rps"] = round(model.demand.instance_rps, 3)
    if model.startup_measured and model.target.billing in ("request", "serverless"):
        measurements["startup_s"] = round(model.demand.startup_s, 3)
    if model.libraries_measured and model.target.billing in billing.AUTOSCALED:
        measurements["stored_image_mib"] = round(model.demand.container_image_gib * 1024, 1)
    measurements["response_bytes"] = round(model.demand.egress_bytes - RESPONSE_HEADER_BYTES, 1)
    return measurements


def _assumptions(model: CostModel) -> list[Assumption]:
    """Everything that the bills stand on and that nobody measured."""
    unconfirmed = [price.id for price in model.prices.values() if not price.confirmed]
    return [
        _assume(AssumptionCode.POISSON_ARRIVALS, hours_per_month=billing.HOURS_PER_MONTH, peak=model.peak),
        *([_assume(AssumptionCode.CLOUD_CPU_AS_FAST)] if model.twin else []),
        _service_time_assumption(model.client_time),
        _cpu_time_assumption(model),
        *ASSUMPTIONS_BY_BILLING[model.target.billing](model),
        *(
            [_assume(AssumptionCode.RESPONSE_HEADERS, header_bytes=RESPONSE_HEADER_BYTES)]
            if model.target.billing != "dyno"
            else []
        ),
        *(
            _assume(
                AssumptionCode.EXCEEDS_MAX_INSTANCES,
                requests_per_month=requests,
                instances=bill.instances,
                max_instances=model.target.max_instances,
            )
            for requests in PRICED_MONTHLY_REQUESTS
            if (bill := model.bill(requests)).exceeds_max_instances
        ),
        _assume(AssumptionCode.LIST_PRICES, date=model.price_list_date),
        *([_assume(AssumptionCode.UNCONFIRMED_PRICES, price_ids=unconfirmed)] if unconfirmed else []),
    ]


def _service_time_assumption(client_time: ClientTime | None) -> Assumption:
    if client_time is None:
        return _assume(AssumptionCode.MEAN_SERVICE_TIME)
    return _assume(AssumptionCode.SERVICE_TIME_AT_CLIENT, client_ms=client_time.client_ms, rtt_ms=client_time.rtt_ms)


def _cpu_time_assumption(model: CostModel) -> Assumption:
    if model.cpu_measured:
        return _assume(AssumptionCode.CPU_TIME_MEASURED)
    if model.inference_cpus > 1:
        return _assume(AssumptionCode.CPU_TIME_OF_CORES, cores=model.inference_cpus)
    return _assume(AssumptionCode.CPU_TIME_IS_SERVICE_TIME)


def _always_on_assumption(model: CostModel) -> Assumption:
    demand = model.demand
    if demand.rate_measured:
        return _assume(AssumptionCode.SCALED_BY_MEASURED_RATE, capacity_rps=demand.capacity_rps)
    return _assume(
        AssumptionCode.SCALED_BY_CLIENT_TIME,
        instance_rps=demand.instance_rps,
        utilisation=billing.TARGET_UTILISATION,
        capacity_rps=demand.capacity_rps,
    )


def _hourly_assumptions(model: CostModel) -> list[Assumption]:
    assumptions = [
        _always_on_assumption(model),
        _assume(AssumptionCode.MACHINE_ALWAYS_ON, disk_gb=model.target.disk_gb),
    ]
    if "surplus" in model.prices:
        assumptions.append(_assume(AssumptionCode.SURPLUS_CREDITS, baseline_vcpus=model.target.baseline_vcpus))
    return assumptions


def _dyno_assumptions(model: CostModel) -> list[Assumption]:
    assumptions = [_always_on_assumption(model), _assume(AssumptionCode.EGRESS_NOT_METERED)]
    if "scaled" in model.prices:
        assumptions.append(_assume(AssumptionCode.ONE_SMALL_DYNO, size=model.target.size))
    if model.target.size == "eco":
        requests = PRICED_MONTHLY_REQUESTS[0]
        awake_hours = billing.eco_awake_hours(requests)
        assumptions.append(_assume(AssumptionCode.ECO_POOL, requests_per_month=requests, awake_hours=awake_hours))
    return assumptions


def _request_assumptions(model: CostModel) -> list[Assumption]:
    demand = model.demand
    return [
        _assume(
            AssumptionCode.AUTOSCALED,
            utilisation=billing.AUTOSCALER_UTILISATION,
            measured_rps=demand.instance_rps if demand.rate_measured else None,
        ),
        _assume(AssumptionCode.BILLED_TIME_ROUNDED),
        _assume(
            AssumptionCode.IDLE_INSTANCE_KEPT,
            timeout_s=billing.IDLE_TIMEOUT_S,
            min_timeout_s=billing.MIN_IDLE_TIMEOUT_S,
            assumed_startup_s=None if model.startup_measured else DEFAULT_STARTUP_S,
        ),
        *([_assume(AssumptionCode.STARTUP_CPU_BOOST)] if model.target.startup_cpu_boost else []),
        _stored_image_assumption(model),
        _assume(AssumptionCode.FREE_ALLOWANCES_UNSHARED),
    ]


def _stored_image_assumption(model: CostModel) -> Assumption:
    return _assume(
        AssumptionCode.CONTAINER_IMAGES_KEPT,
        gib=model.demand.container_image_gib,
        libraries_measured=model.libraries_measured,
        packed_fraction=LIBRARIES[model.engine].packed_fraction,
        base_mb=BASE_IMAGE_MB,
    )


def _endpoint_assumptions(model: CostModel) -> list[Assumption]:
    return [
        _always_on_assumption(model),
        _assume(AssumptionCode.ENDPOINT_SCALED, least=max(1, model.target.min_instances),
                delay_min=billing.SCALE_IN_DELAY_S // 60),
        _assume(AssumptionCode.DATA_PROCESSED, request_bytes=billing.REQUEST_BYTES),
        _stored_image_assumption(model),
    ]  # fmt: skip


def _serverless_assumptions(model: CostModel) -> list[Assumption]:
    return [
        _always_on_assumption(model),
        _assume(AssumptionCode.SERVERLESS_SECONDS, memory_mib=model.target.memory_mib),
        _assume(AssumptionCode.DATA_PROCESSED, request_bytes=billing.REQUEST_BYTES),
        _stored_image_assumption(model),
    ]


def _assume(code: AssumptionCode, **values: Any) -> Assumption:
    return Assumption(code, values)


ASSUMPTIONS_BY_BILLING = {
    "hourly": _hourly_assumptions,
    "dyno": _dyno_assumptions,
    "request": _request_assumptions,
    "endpoint": _endpoint_assumptions,
    "serverless": _serverless_assumptions,
}
