"""The records of a run: run.json and samples.jsonl (one line per request)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RUN_JSON = "run.json"
SAMPLES_FILE = "samples.jsonl"
SAMPLES_GZ_FILE = "samples.jsonl.gz"  # the same, compressed, as committed with the example
RUN_SCHEMA_VERSION = 3

ERROR_KINDS = ("dns", "connect", "tls", "timeout", "http_4xx", "http_429", "http_5xx", "bad_answer", "disconnected",
               "not_sent")  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One request and its result."""

    target: str
    scenario: str  # one of eval.plan.config.SCENARIOS, BASELINE_RTT or REFERENCE
    phase: str  # "warmup" or "measure"
    block: int  # number of its interleaving block
    image_index: int  # index into the run's image manifest; -1 without an image
    scheduled_s: float  # scheduled send time, since the start of the run
    latency_ms: float  # from the scheduled time to the last byte, or to the failure
    service_time_ms: float  # from the send to the last byte, or to the failure
    send_delay_ms: float  # from the scheduled time to the send
    new_connection: bool  # whether a connection was opened for it
    status: int | None = None  # HTTP status; None without a response
    error: str | None = None  # one of ERROR_KINDS; None for a valid response
    detail: str | None = None  # the error message
    predicted_class: int | None = None  # class ID in the response
    probabilities: tuple[float, ...] | None = None
    server_timing_ms: dict[str, float] = field(default_factory=dict)  # Server-Timing: decode, queue, inference, total
    response_bytes: int = 0  # size of the response body
    instance_id: str | None = None
    instance_request_number: int | None = None  # X-Request-Ordinal
    model_version: str | None = None
    index_in_block: int = 0  # with `block` it identifies a request of the schedule
    rate_rps: float | None = None  # offered rate of its open loop
    connection_ms: dict[str, float] = field(default_factory=dict)  # dns, connect, tls of a new connection
    time_to_first_byte_ms: float | None = None  # from the send to the response headers
    startup_ms: dict[str, float] = field(default_factory=dict)  # of a first response after a start; see the keys below
    idle_gap_s: float | None = None  # idle time before it, in the scenario idle


@dataclass(frozen=True)
class ImageEntry:
    """One image of the manifest."""

    name: str  # path inside the image set
    sha256: str  # of the bytes that are posted
    label: int


@dataclass(frozen=True)
class TargetRun:
    """One endpoint of a run."""

    name: str  # unique in the run
    target: str | None  # key of infra.targets.TARGETS, None for a custom endpoint
    url: str
    twin: bool  # a local twin, not a deployment
    version: dict[str, Any] = field(default_factory=dict)  # the response of /version
    startup_ms: float | None = None  # twin: from the spawn until /readyz succeeds
    peak_memory_mib: float | None = None  # twin: maximum resident set of all its processes
    cpus: int | None = None  # twin: cores that it was pinned to
    reverse_proxy: str | None = None  # twin: "nginx" if there was one in front
    failure: str | None = None  # why it could not be measured, or why it ended early
    engine: str | None = None  # that a twin was started with; others report it in /version
    artifact: dict[str, Any] = field(default_factory=dict)  # twin: sizes, of infra.local.artifact_size


@dataclass(frozen=True)
class Run:
    """Everything about a run but its samples."""

    schema_version: int
    id: str  # date and random suffix
    started_at: str  # ISO 8601, UTC
    ended_at: str | None
    complete: bool  # False: interrupted, or still running
    incomplete_reason: str | None  # why it is not complete, or "running"
    command: list[str]
    seed: int
    scenarios: list[str]
    images_source: str  # "golden set", "CIFAR-10 test set, JPEG q75 copy", ...
    images_sha256: str  # of the manifest: names, checksums and labels
    image_manifest: list[ImageEntry]
    classes: list[str]
    prices_sha256: str
    targets: list[TargetRun]
    client_environment: dict[str, Any]  # CPU model, cores, memory, OS
    versions: dict[str, str]  # python, cloudtrial's git sha, libraries
    planned_requests: int  # requests of the measured phase
    config: dict[str, Any] = field(default_factory=dict)  # every option that shapes the schedule
    cost: dict[str, Any] = field(default_factory=dict)  # upper bound in dollars, of eval.cost.run_cost
    resumed_at: list[str] = field(default_factory=list)  # when it was resumed, ISO 8601, UTC


# Keys of Sample.startup_ms beside the service's own phases
TIME_TO_FIRST_PREDICTION, TIME_TO_READY, PROCESS_START = "create", "ready", "process"

REFERENCE = "reference"  # name of the model's own predictions, which are among the samples like a target's
