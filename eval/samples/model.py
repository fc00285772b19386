"""The records of a run: run.json and samples.jsonl (one line per request)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from eval.validation import (
    MAX_ITEMS,
    AtMost,
    Characters,
    Count,
    Durations,
    Integer,
    Keys,
    Lines,
    Milliseconds,
    Name,
    NameByName,
    Names,
    OneOf,
    Positive,
    Probability,
    SignedDurations,
    SignedMilliseconds,
    Text,
    Timestamp,
    Within,
)

RUN_JSON = "run.json"
SAMPLES_FILE = "samples.jsonl"
SAMPLES_GZ_FILE = "samples.jsonl.gz"  # the same, compressed, as committed with the example
RUN_SCHEMA_VERSION = 5

ERROR_KINDS = ("dns", "connect", "tls", "timeout", "http_4xx", "http_429", "http_5xx", "invalid_response",
               "disconnected", "dropped")  # fmt: skip
PHASES = WARMUP, MEASURE, PAUSED = "warmup", "measure", "paused"  # paused: while the client stood still; sent again
OPEN_LOOPS = ("poisson", "ramp", "burst", "max_rate")  # scenarios whose requests have a scheduled send time

INPUT_KINDS = IMAGE, TABULAR = "image", "tabular"  # pictures; rows of a table, posted as JSON

RUNNING = "running"  # incomplete_reason of a run that is running, or was killed

MAX_IMAGES = 250_000
MAX_CLASSES = 10_000
MAX_TARGETS = 1000
MAX_PAUSES = 10_000
MAX_SENDERS, MAX_CLOCKS = 10_000, 10_000  # machines, counted again in each part of a run; blocks
TargetName = Annotated[str, Characters(100)]
Label = Annotated[int, Within(0, MAX_CLASSES - 1)]
Cores = Annotated[int, Within(0, 100_000)]
Processor: dict[str, Any] = {
    "cpu_model": Name,
    "cpu_generation": Name,
    "instruction_sets": Names,
    "instruction_limits": NameByName,
}
Environment = Annotated[
    dict[str, Any], Keys(Processor | {"cores": Cores, "memory_mib": Count, "os": Name, "arch": Name})
]
Model = Annotated[dict[str, Any], Keys(dict.fromkeys(("name", "version", "engine", "sha256"), Name), pass_over=True)]
Reasons = Annotated[dict[Name, Text | None], AtMost(MAX_ITEMS)]
EngineDetails = Annotated[
    dict[str, Any],
    Keys(
        {"form": Name, "threads": Cores, "trial_ms": Durations, "precisions": Reasons, "refused": Reasons},
        pass_over=True,
    ),
]
Version = Annotated[  # what /version responds, as far as it is understood
    dict[str, Any],
    Keys(
        Processor
        | {
            "model": Model,
            "engine": Name,
            "precision": Name,
            "engine_details": EngineDetails,
            "git_sha": Name,
            "versions": NameByName,
            "cpus": Cores,
            "instance_id": Name,
            "started_at": Timestamp,
            "startup_ms": Durations,
        },
        pass_over=True,
    ),
]
Artifact = Annotated[dict[str, Any], Keys({"files_bytes": Count, "installed_bytes": Count, "reason": Text})]
Usd = Annotated[float, Within(0, 1e12)]
UnknownCost = Annotated[dict[str, Any], Keys({"value": type(None), "reason": Text})]
CostRecord = Annotated[
    dict[str, Any],
    Keys({"usd": Usd, "targets": Annotated[dict[Name, Usd | UnknownCost], AtMost(MAX_TARGETS)]}),
]
Scalar = bool | Integer | Annotated[float, Within(-1e12, 1e12)] | Text | None
Words = Annotated[list[Text], AtMost(10_000)]
Options = Annotated[dict[Name, Scalar | Words], AtMost(MAX_ITEMS)]
Timestamps = Annotated[list[Timestamp], AtMost(10_000)]


@dataclass(frozen=True)
class Sample:
    """One request and its result."""

    target: TargetName
    scenario: Name  # one of eval.plan.config.SCENARIOS, BASELINE_RTT or REFERENCE
    phase: Annotated[str, OneOf(PHASES)]
    block: Integer  # number of its interleaving block
    image_index: Annotated[int, Within(-1, MAX_IMAGES - 1)]  # index into the run's image manifest; -1 without an image
    scheduled_s: SignedMilliseconds  # scheduled send time, since the start of the run; of a closed loop the send itself
    latency_ms: Milliseconds  # from then to the last byte, or to the failure
    service_time_ms: Milliseconds  # from the send to the last byte, or to the failure
    new_connection: bool  # whether a connection was opened for it
    send_delay_ms: SignedMilliseconds | None = None  # from the scheduled time to the send; None in a closed loop
    status: Annotated[int, Within(0, 999)] | None = None  # HTTP status; None without a response
    error: Annotated[str, OneOf(ERROR_KINDS)] | None = None  # one of ERROR_KINDS; None for a valid response
    detail: Text | None = None  # the error message
    predicted_class: Label | None = None  # class ID in the response
    probabilities: Annotated[tuple[Probability, ...], AtMost(MAX_CLASSES)] | None = None
    server_timing_ms: Durations = field(default_factory=dict)  # Server-Timing: decode, queue, inference, total
    response_bytes: Count = 0  # size of the response body
    instance_id: Name | None = None
    instance_request_number: Count | None = None  # X-Request-Ordinal
    model_version: Name | None = None
    index_in_block: Count = 0  # with `block` it identifies a request of the schedule
    rate_rps: Positive | None = None  # offered rate of its open loop
    connection_ms: Durations = field(default_factory=dict)  # dns, connect, tls of a new connection
    time_to_first_byte_ms: Milliseconds | None = None  # from the send to the response headers
    startup_ms: SignedDurations = field(default_factory=dict)  # of a first response after a start; see the keys below
    idle_gap_s: Positive | None = None  # idle time before it, in the scenario idle
    cpu_ms: Milliseconds | None = None  # CPU time of a twin's processes since the sample before it in its block
    sender: Name | None = None  # of an open loop with workers: machine and number, such as "10.0.0.2/1"


@dataclass(frozen=True)
class ImageEntry:
    """One image of the manifest."""

    name: Name  # path inside the image set
    sha256: Name  # of the bytes that are posted
    label: Label


@dataclass(frozen=True)
class TargetRun:
    """One endpoint of a run."""

    name: TargetName  # unique in the run
    target: Name | None  # key of infra.targets.TARGETS, None for a custom endpoint
    url: Text
    twin: bool  # a local twin, not a deployment
    version: Version = field(default_factory=dict)  # the response of /version
    startup_ms: Milliseconds | None = None  # twin: from the spawn until /readyz succeeds
    peak_memory_mib: Annotated[float, Within(0, 1e9)] | None = None  # twin: maximum resident set of all its processes
    cpus: Cores | None = None  # twin: cores that it was pinned to
    reverse_proxy: Name | None = None  # twin: "nginx" if there was one in front
    failure: Lines | None = None  # why it could not be measured, or why it ended early
    engine: Name | None = None  # that a twin was started with; others report it in /version
    artifact: Artifact = field(default_factory=dict)  # twin: sizes, of infra.local.artifact_size
    adapter: Text | None = None  # how an endpoint with a wire format of its own was asked and understood
    size: Name | None = None  # by which it is priced, as eval.samples.sizes reads it; None: that of infra.targets
    region: Name | None = None  # the same; there may be no prices of it


@dataclass(frozen=True)
class PauseRecord:
    """A time in which the client stood still."""

    at_s: SignedMilliseconds  # since the start of the run
    duration_s: Annotated[float, Within(0, 1e9)]
    cause: Name  # one of eval.load.pauses


@dataclass(frozen=True)
class ClockRecord:
    """A sender's clock before a block."""

    block: Integer
    offset_s: Annotated[float, Within(-1e12, 1e12)]  # that its time.perf_counter() was ahead of the run's
    uncertainty_ms: Milliseconds


@dataclass(frozen=True)
class SenderRecord:
    """Another machine that sent open loops."""

    name: Name  # as --cluster names it
    workers: Cores
    cores: Cores
    processor: Annotated[dict[str, Any], Keys(Processor)]
    versions: NameByName  # of Python and the libraries that send
    code_sha256: Name
    clocks: Annotated[list[ClockRecord], AtMost(MAX_CLOCKS)] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """Everything about a run but its samples."""

    schema_version: Count
    id: Name  # date and random suffix
    started_at: Timestamp  # ISO 8601, UTC
    ended_at: Timestamp | None
    complete: bool  # False: interrupted, or still running
    incomplete_reason: Lines | None  # why it is not complete, or RUNNING
    command: Words
    seed: Integer
    scenarios: Names
    images_source: Name  # "golden set", "CIFAR-10 test set, JPEG q75 copy", ...
    images_sha256: Name  # of the manifest: names, checksums and labels
    image_manifest: Annotated[list[ImageEntry], AtMost(MAX_IMAGES)]
    classes: Annotated[list[Name], AtMost(MAX_CLASSES)]
    prices_sha256: Name
    targets: Annotated[list[TargetRun], AtMost(MAX_TARGETS)]
    client_environment: Environment  # CPU model, cores, memory, OS
    versions: NameByName  # python, cloudtrial's git sha, libraries
    planned_requests: Count  # requests of the measured phase
    config: Options = field(default_factory=dict)  # every option that shapes the schedule
    cost: CostRecord = field(default_factory=dict)  # upper bound in dollars, of eval.cost.run_cost
    resumed_at: Timestamps = field(default_factory=list)  # when it was resumed, ISO 8601, UTC
    input_kind: Annotated[str, OneOf(INPUT_KINDS)] = IMAGE  # what the manifest lists, each posted by itself
    model: Name | None = None  # the bundle of models/ whose classes and golden set it used
    pauses: Annotated[list[PauseRecord], AtMost(MAX_PAUSES)] = field(default_factory=list)  # of the client
    senders: Annotated[list[SenderRecord], AtMost(MAX_SENDERS)] = field(default_factory=list)  # other machines
    reference_engine: Name = "torch"  # of the reference predictions: the model's plain one, which no title mentions


# Keys of Sample.startup_ms beside the service's own phases
TIME_TO_FIRST_PREDICTION, TIME_TO_READY, PROCESS_START = "time_to_first_prediction", "ready", "process"

REFERENCE = "reference"  # name of the model's own predictions, which are among the samples like a target's
