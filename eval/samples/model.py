"""What a run leaves: run.json (who, what, when) and samples.jsonl (one line per request)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

RUN_JSON = "run.json"
SAMPLES_FILE = "samples.jsonl"
SAMPLES_GZ_FILE = "samples.jsonl.gz"  # the same, packed, as committed with the example
RUN_SCHEMA_VERSION = 2

ERROR_KINDS = ("dns", "connect", "tls", "timeout", "http_4xx", "http_429", "http_5xx", "bad_answer", "disconnected",
               "not_sent")  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One request and what came of it. Times are milliseconds unless the name says otherwise."""

    target: str
    scenario: str  # a name of eval.plan.SCENARIOS, "floor" or "reference"
    phase: str  # "warmup" or "measure"
    block: int  # number of the interleaving block it ran in
    image: int  # index into the run's image manifest; -1 where no picture is sent
    started_s: float  # seconds since the run began, when it was scheduled
    latency_ms: float  # from the scheduled time to the last byte, or to the failure
    service_ms: float  # from the send to the last byte, or to the failure
    lateness_ms: float  # from the scheduled time to the send
    new_connection: bool  # whether a connection had to be opened
    status: int | None = None  # HTTP status, None when there was no answer
    error: str | None = None  # one of ERROR_KINDS; None for a right-shaped answer
    detail: str | None = None  # the error in words
    label: int | None = None  # answered class id
    probabilities: tuple[float, ...] | None = None
    server_ms: dict[str, float] = field(default_factory=dict)  # Server-Timing: decode, queue, inference, total
    answer_bytes: int = 0  # body of the answer
    instance_id: str | None = None
    ordinal: int | None = None  # X-Request-Ordinal
    model_version: str | None = None
    place: int = 0  # in its block; block and place name a request of the plan
    rate_rps: float | None = None  # offered by the stream that it is part of
    network_ms: dict[str, float] = field(default_factory=dict)  # dns, connect, tls of a connection opened for it
    first_byte_ms: float | None = None  # from the send to the head of the answer
    startup_ms: dict[str, float] = field(default_factory=dict)  # first answer after a start: create, phases of /version
    gap_s: float | None = None  # without a request before it, where the gap is what is tried


@dataclass(frozen=True)
class ImageEntry:
    """One picture of the manifest."""

    name: str  # path inside the image set
    sha256: str  # of the bytes that are posted
    label: int


@dataclass(frozen=True)
class TargetRun:
    """One endpoint as the run found it."""

    name: str  # unique in the run
    target: str | None  # key of infra.targets.TARGETS, None for a foreign endpoint
    url: str
    twin: bool  # a local twin rather than a cloud
    version: dict[str, Any] = field(default_factory=dict)  # the answer of /version
    startup_ms: float | None = None  # twin: spawn to /readyz
    peak_memory_mib: float | None = None  # twin: largest resident set of its processes together
    cpus: int | None = None  # twin: cores it was pinned to
    behind: str | None = None  # twin: "nginx" where it stood in front
    failure: str | None = None  # why it could not be measured, or why it ended early
    engine: str | None = None  # that a twin was started with; of others /version tells it
    shipped: dict[str, Any] = field(default_factory=dict)  # twin: sizes, as infra.local.artifact_size.Shipped has them


@dataclass(frozen=True)
class Run:
    """Who, what, when: everything that is not a sample."""

    schema_version: int
    id: str  # date and random suffix
    started_at: str  # ISO 8601, UTC
    ended_at: str | None
    complete: bool  # False: interrupted, or still running
    note: str | None  # why it is not complete
    command: list[str]
    seed: int
    scenarios: list[str]
    images_source: str  # "golden set", "CIFAR-10 test set, JPEG q75 copy", ...
    images_sha256: str  # of the manifest: names, checksums and labels
    images: list[ImageEntry]
    classes: list[str]
    prices_sha256: str
    targets: list[TargetRun]
    machine: dict[str, Any]  # CPU model, cores, memory, OS
    versions: dict[str, str]  # python, cloudtrial's git sha, libraries
    planned: int  # requests of the measured phase
    config: dict[str, Any] = field(default_factory=dict)  # every option that shapes the plan
    spent: dict[str, Any] = field(
        default_factory=dict
    )  # dollars that it cost at most, as eval.cost.run_cost counts them
    resumed: list[str] = field(default_factory=list)  # when it was gone on with after an end, ISO 8601, UTC


TIME_TO_FIRST_PREDICTION, TIME_TO_READY, PROCESS_START = (
    "create",
    "ready",
    "process",
)  # keys of Sample.startup_ms beside the service's own

REFERENCE = "reference"  # the model's own answers, which stand among the samples like a target's
