"""The outer records of report.json: a key is a field's name. The inner ones stand with the code that makes them.

docs/report.schema.json is made of these records by `make report-schema`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from eval.analysis.cold_starts import ColdStartReport
from eval.analysis.findings import Finding
from eval.analysis.instances import InstanceReport
from eval.analysis.latency import CacheTest, RateSearchReport, ScenarioReport
from eval.analysis.predictions.accuracy import Agreement, ClassReport, ConfusedPair, McNemarReport
from eval.analysis.predictions.mcnemar import NonInferiority
from eval.codes import Reason, Unavailable
from eval.cost.billing import SECONDS_PER_MONTH, Bill, ResourceDemand
from eval.cost.cost_model import CostReport, UnitCost, UnknownBill
from eval.samples.processors import Processor
from eval.stats.comparison import Decision
from eval.stats.intervals import Estimate
from infra.targets import Target

Figure = TypeVar("Figure")


@dataclass(frozen=True)
class Memory:
    """Resident memory of a twin's processes together."""

    peak_mib: float | Unavailable
    limit_mib: int | None
    fits: bool | None
    cuda_build: bool  # PyTorch's CUDA build, whose libraries fill memory that no cloud needs


@dataclass(frozen=True)
class ArtifactSize:
    """What was deployed, and the libraries that its requirements install."""

    files_bytes: int | Unavailable
    installed_bytes: int | Unavailable


@dataclass(frozen=True)
class TargetReport:
    """One target: what it is, what it predicted, how fast, at what price."""

    title: str
    kind: str | None
    size: str | None
    region: str | None
    vcpus: float | None
    memory_mib: int | None
    twin: bool
    url: str
    reverse_proxy: str | None
    cpus: int | None
    processor: Processor
    failure: str | None
    all_requests: int  # of every kind; what follows is of normal load
    sent: int
    succeeded: int
    errors: dict[str, int]  # kind -> requests
    accuracy: Estimate  # of the responses
    accuracy_over_sent: Estimate
    top5_accuracy: Estimate | Unavailable
    f1_macro: Estimate | Unavailable  # mean of the classes
    f1_weighted: Estimate | Unavailable  # mean of the classes by their images
    precision_macro: Estimate | Unavailable
    precision_weighted: Estimate | Unavailable
    roc_auc: Estimate | Unavailable
    average_precision: Estimate | Unavailable  # mean of the classes that have an image
    ece: Estimate | Unavailable
    per_class: list[ClassReport]
    confusion: list[list[int]]  # true class -> predicted class -> images; empty where there are too many classes
    most_confused: list[ConfusedPair]
    scenarios: dict[str, RateSearchReport | ScenarioReport]
    baseline_rtt_ms: Estimate  # a round trip that does nothing, p50
    cache: CacheTest
    cold_starts: ColdStartReport
    startup_ms: float | Unavailable  # of a twin, until it is ready
    startup_phases_ms: dict[str, float]
    memory: Memory
    cost: CostReport
    model_version: str | None
    engine: str | None
    artifact_size: ArtifactSize
    instances: InstanceReport


@dataclass(frozen=True)
class Pair(Generic[Figure]):
    """A figure of two targets."""

    a: Figure
    b: Figure


@dataclass(frozen=True)
class LatencyPair:
    """Two targets' latency."""

    a: Estimate | Unavailable
    b: Estimate | Unavailable
    speedup: Estimate | Unavailable  # as a factor: half the latency is 2
    decision: Decision


@dataclass(frozen=True)
class StartupPair:
    """Two targets' time to start, in ms."""

    a: Estimate | float | Unavailable
    b: Estimate | float | Unavailable
    metric: str | None  # which start: a key of engine_comparison.START_METRICS


@dataclass(frozen=True)
class AccuracyPair:
    """Two targets' accuracy."""

    a: Estimate
    b: Estimate
    difference: Estimate | Unavailable  # on the images that both predicted
    mcnemar: McNemarReport | None  # None: of the golden set
    decision: NonInferiority
    margin: float  # of the decision: the largest loss that is accepted


@dataclass(frozen=True)
class EngineComparison:
    """One target with two engines."""

    a: str
    b: str
    title: str
    engines: Pair[str]
    scenario: str | None
    latency_ms: dict[str, LatencyPair]  # by percentile
    max_rate_rps: Pair[Estimate] | None
    monthly_usd: dict[str, Pair[Bill | UnknownBill]]  # by requests a month
    per_million: dict[str, Pair[UnitCost]]  # by requests a second
    startup_ms: StartupPair
    memory_mib: Pair[float | Unavailable]
    artifact_size: Pair[ArtifactSize]
    accuracy: AccuracyPair
    agreement: Agreement | Unavailable


@dataclass(frozen=True)
class BreakEven:
    """The traffic at which two targets cost the same."""

    a: str
    b: str
    requests_per_month: int | Unavailable
    requests_per_month_low: int | None  # where it lies at the bounds of the bills
    requests_per_month_high: int | None
    may_be_absent: bool  # at one of the bounds the bills do not cross
    rps: float | Unavailable
    cheaper_below: str | None
    cheaper_above: str | None
    exceeds_max_instances: list[str]  # targets that may not have as many instances as that takes


@dataclass(frozen=True)
class Traffic:
    """Requests come at random during the busy hours of each day, and not at all in between."""

    busy_rps: float  # requests a second in the busy hours
    busy_hours_per_day: float

    @property
    def peak(self) -> float:
        """The rate in the busy hours, over the month's mean."""
        return 24 / self.busy_hours_per_day

    @property
    def requests_per_month(self) -> float:
        return self.busy_rps * SECONDS_PER_MONTH / self.peak


@dataclass(frozen=True)
class Candidate:
    """A target with a price, and all by which it is weighed against others."""

    title: str  # without the engine
    target: Target
    engine: str | None
    unit_prices: dict[str, float]  # dollars, and allowances, by role in the billing formula
    demand_by_slowdown: dict[int, ResourceDemand]  # on a processor so many times slower than the one measured on
    startup_measured: bool
    tail_ms: tuple[float | None, ...]  # p95, p95.5 ... p100 of latency; None: infinite; empty: too few requests
    p95_reason: Reason | None  # why `tail_ms` is empty
    p50_low_ms: float | None  # low end of the median's interval; None: not known
    fits_memory: bool | None  # None: not known
    fails: bool  # too many of its requests


@dataclass(frozen=True)
class Option:
    """What a candidate costs and keeps at one traffic."""

    bill: Bill
    min_instances: int  # that it has running without a request: 1 where that keeps the objective, and nothing less does
    always_warm_usd: float | None  # net bill a month with one instance always running; None where that is no option
    p95_ms: float | None  # of all requests, those that meet a cold start too; None: infinite, or not known
    cold_start_fraction: float  # of the requests
    within_objective: bool | None
    excluded: Reason | None  # why it is not to be taken


@dataclass(frozen=True)
class SlowdownLimit:
    """Up to which slowdown of the processor the recommended target stays so."""

    factor: int  # times as slow as the processor that was measured on
    net_usd: float  # the bill a month there


@dataclass(frozen=True)
class Tile:
    """One question on the first screen, as text."""

    heading: str
    value: str
    note: str


@dataclass(frozen=True)
class Verdict:
    """What to take at one traffic, and whether the run can be trusted."""

    traffic: Traffic
    slo_ms: float  # objective for p95
    scenario: str | None  # of every latency in the answer, the results and the first plot
    engine: str | None  # of the options
    recommended: str | None
    runner_up: str | None
    tied: bool  # the bills of these two differ by less than is known of the billing rules
    slowdown_limit: SlowdownLimit | None  # None: not known, as where p95 is not
    options: dict[str, Option]
    fastest: str | None  # of endpoints that are no twins, where each other one is shown to be slower
    vs_fastest: dict[str, Decision]  # of each other target: whether its latency is that of the one with the lowest
    all_targets_agree: bool
    valid: bool
    answer: str = ""  # these four are of eval/report/answer.py
    condition: str = ""
    tiles: tuple[Tile, ...] = ()
    remarks: tuple[str, ...] = ()  # what the findings say, those of one code together


@dataclass(frozen=True)
class ImageManifest:
    source: str
    sha256: str
    n: int
    golden: bool  # made by the network itself: they check a deployment, and tell no accuracy


@dataclass(frozen=True)
class PriceListVersion:
    sha256: str
    date: str
    stale_days: int | None  # its age when the run was made, where that is too old


@dataclass(frozen=True)
class RunMetadata:
    """Who, what and when."""

    id: str
    started_at: str
    ended_at: str | None
    complete: bool
    incomplete_reason: str | None
    command: list[str]
    seed: int
    config: dict[str, Any]  # as in run.json
    resumed_at: list[str]
    cost: dict[str, Any]  # of the run itself, as in run.json
    scenarios: list[str]
    images: ImageManifest
    prices: PriceListVersion
    client_environment: dict[str, Any]  # as in run.json
    versions: dict[str, str]
    twins: bool
    findings: list[Finding]  # the gravest first


@dataclass(frozen=True)
class Report:
    """All of report.json."""

    schema_version: int
    run: RunMetadata
    verdict: Verdict
    candidates: dict[str, Candidate]
    targets: dict[str, TargetReport]
    agreement: dict[str, Agreement]  # by "one|other"
    engine_comparisons: list[EngineComparison]
    break_even: list[BreakEven]
