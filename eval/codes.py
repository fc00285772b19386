"""Facts without words: a code, and the values that belong to it. eval/report/wording.py has the sentence for each code.

Here are the codes of reasons (why a figure is not available), of drift, and of assumptions (what a cost stands on that
nobody measured). Those of findings about a run, or about two, are in eval/analysis/findings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Code(StrEnum):
    """The name of a fact, with the names of the values that it comes with."""

    value_names: tuple[str, ...]

    def __new__(cls, code: str, *value_names: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.value_names = value_names
        return member


@dataclass(frozen=True)
class Statement:
    """A code with its values."""

    code: Code
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if set(self.values) != set(self.code.value_names):
            raise ValueError(f"{self.code} comes with {sorted(self.code.value_names)}, given: {sorted(self.values)}")


class ReasonCode(Code):
    """Why a figure is not available, or why something is as it is."""

    # Samples
    TOO_FEW_SAMPLES = "too_few_samples", "needed", "n"
    TOO_FEW_EFFECTIVE_SAMPLES = "too_few_effective_samples", "needed", "effective_n", "n"
    TOO_FEW_SAMPLES_IN_BOTH = "too_few_samples_in_both", "needed", "n_a", "n_b"
    INFINITE = "infinite", "failed", "n"
    UPPER_BOUND_INFINITE = "upper_bound_infinite", "failed", "n"
    P99_UPPER_BOUND_INFINITE = "p99_upper_bound_infinite", "failed", "n"
    MEDIAN_MAY_BE_ZERO = "median_may_be_zero"
    NO_SAMPLES = "no_samples"
    NO_REQUESTS = "no_requests"
    NO_RESPONSES = "no_responses"
    NO_REQUEST_SUCCEEDED = "no_request_succeeded"
    ZERO_DURATION = "zero_duration"
    # Instances
    TOO_FEW_INSTANCES_KNOWN = "too_few_instances_known", "min_requests"
    ONE_INSTANCE = "one_instance"
    # Scenarios
    SCENARIO_NOT_RUN = "scenario_not_run", "scenario"
    CACHE_SCENARIOS_NOT_RUN = "cache_scenarios_not_run"
    NO_FORCED_START = "no_forced_start"
    NO_IDLE_GAP = "no_idle_gap"
    NO_RATE_TRIED = "no_rate_tried"
    NO_RATE_PASSED = "no_rate_passed", "lowest_rate_rps"
    # Predictions
    NEVER_PREDICTED = "never_predicted"
    NO_IMAGE_OF_CLASS = "no_image_of_class"
    NEITHER_IMAGE_NOR_PREDICTION = "neither_image_nor_prediction"
    FEW_CLASSES = "few_classes", "needed", "n_classes"
    CLASSES_WITHOUT_IMAGE = "classes_without_image", "missing", "n_classes"
    PROBABILITIES_MISSING = "probabilities_missing"
    PROBABILITIES_NOT_NORMALISED = "probabilities_not_normalised"
    NO_COMMON_IMAGE = "no_common_image"
    NO_COMMON_PROBABILITIES = "no_common_probabilities"
    GOLDEN_SET = "golden_set"
    # Drift
    LOAD_CHANGES_BY_PLAN = "load_changes_by_plan"
    TOO_FEW_BLOCKS = "too_few_blocks", "needed", "n"
    # Cold starts, and which of their times a user waits
    START_COMMAND_NOT_OBSERVABLE = "start_command_not_observable"
    NO_WARM_MEDIAN = "no_warm_median", "cause"
    REFUSED_DURING_START = "refused_during_start"
    ROUTER_HOLDS_REQUESTS = "router_holds_requests"
    CLOUD_RUN_HOLDS_REQUESTS = "cloud_run_holds_requests"
    CLOUD_FUNCTIONS_HOLDS_REQUESTS = "cloud_functions_holds_requests"
    ROUTED_WHEN_HEALTHY = "routed_when_healthy"
    MEASURED_AT_CLIENT = "measured_at_client"
    # What is seen of twins alone
    ONLY_TWIN_START_OBSERVED = "only_twin_start_observed"
    ONLY_TWIN_MEMORY_OBSERVED = "only_twin_memory_observed"
    ONLY_TWIN_ARTIFACT_OBSERVED = "only_twin_artifact_observed"
    LIBRARIES_NOT_MEASURED = "libraries_not_measured", "detail"
    # Costs
    CUSTOM_ENDPOINT = "custom_endpoint"
    UNKNOWN_TARGET = "unknown_target", "target", "known"
    NO_SERVER_TIMING = "no_server_timing"
    PRICE_UNKNOWN = "price_unknown", "detail"
    ALWAYS_CHEAPER = "always_cheaper", "title", "min_rps", "max_rps"
    CHEAPER_WITH_EXCEPTIONS = "cheaper_with_exceptions", "title", "low_requests", "high_requests"
    CHEAPER_WITHIN_RANGE = "cheaper_within_range", "title"
    NEVER_DIFFERENT = "never_different", "min_rps", "max_rps"
    # Why a target cannot be called the cheapest
    TOO_MANY_FAILURES = "too_many_failures"
    EXCEEDS_MEMORY = "exceeds_memory", "limit_mib"
    P95_OVER_OBJECTIVE = "p95_over_objective", "p95_ms"
    P50_OVER_OBJECTIVE = "p50_over_objective", "p50_low_ms"
    TOO_MANY_INSTANCES = "too_many_instances", "instances"
    P95_UNKNOWN = "p95_unknown"
    # A target with two engines
    NO_RESPONSE_OF_ONE = "no_response_of_one"
    NO_COMMON_SCENARIO = "no_common_scenario"
    NOT_KNOWN_OF_BOTH = "not_known_of_both"
    ZERO_LATENCY = "zero_latency"
    NO_COMMON_START = "no_common_start"
    # Two runs, A and B
    NOT_MEASURED = "not_measured", "runs", "failure"
    ENDED_EARLY = "ended_early", "run", "failure"
    TOO_FEW_BLOCKS_IN_BOTH = "too_few_blocks_in_both", "needed", "n_a", "n_b"
    NO_REQUEST = "no_request", "runs"
    NO_RATE_PASSED_IN_BOTH = "no_rate_passed_in_both"
    NO_IMAGE_COMMON_TO_RUNS = "no_image_common_to_runs"
    NO_SCENARIO_COMMON_TO_RUNS = "no_scenario_common_to_runs"
    # A gate
    MACHINE_MAY_EXPLAIN = "machine_may_explain"
    SHARED_CHANGE = "shared_change", "change"
    YARDSTICK = "yardstick"


@dataclass(frozen=True)
class Reason(Statement):
    code: ReasonCode


@dataclass(frozen=True)
class Unavailable:
    """In the place of a figure that is not available."""

    reason: Reason
    value: None = None


def reason(code: ReasonCode, **values: Any) -> Reason:
    return Reason(code, values)


def unavailable(code: ReasonCode, **values: Any) -> Unavailable:
    return Unavailable(reason(code, **values))


class DriftCode(Code):
    """What the tests for drift say of one scenario. `change`: first third of the blocks to the last, a fraction."""

    BECAME_SLOWER = "became_slower", "change", "blocks"
    BECAME_FASTER = "became_faster", "change", "blocks"
    ALL_BECAME_SLOWER = "all_became_slower", "change", "blocks"
    ALL_BECAME_FASTER = "all_became_faster", "change", "blocks"
    SMALL_TREND = "small_trend", "change", "blocks"
    NO_DRIFT = "no_drift", "change", "blocks"


@dataclass(frozen=True)
class DriftResult(Statement):
    code: DriftCode


class AssumptionCode(Code):
    """What a target's bills stand on and nobody measured."""

    POISSON_ARRIVALS = "poisson_arrivals", "hours_per_month", "peak"
    CLOUD_CPU_AS_FAST = "cloud_cpu_as_fast"
    MEAN_SERVICE_TIME = "mean_service_time"
    SERVICE_TIME_AT_CLIENT = "service_time_at_client", "client_ms", "rtt_ms"
    CPU_TIME_MEASURED = "cpu_time_measured"
    CPU_TIME_OF_CORES = "cpu_time_of_cores", "cores"
    CPU_TIME_IS_SERVICE_TIME = "cpu_time_is_service_time"
    SCALED_BY_MEASURED_RATE = "scaled_by_measured_rate", "capacity_rps"
    SCALED_BY_CLIENT_TIME = "scaled_by_client_time", "instance_rps", "utilisation", "capacity_rps"
    MACHINE_ALWAYS_ON = "machine_always_on", "disk_gb"
    SURPLUS_CREDITS = "surplus_credits", "baseline_vcpus"
    EGRESS_NOT_METERED = "egress_not_metered"
    ONE_SMALL_DYNO = "one_small_dyno", "size"
    ECO_POOL = "eco_pool", "requests_per_month", "awake_hours"
    AUTOSCALED = "autoscaled", "utilisation", "measured_rps"
    BILLED_TIME_ROUNDED = "billed_time_rounded"
    IDLE_INSTANCE_KEPT = "idle_instance_kept", "timeout_s", "min_timeout_s", "assumed_startup_s"
    STARTUP_CPU_BOOST = "startup_cpu_boost"
    ENDPOINT_SCALED = "endpoint_scaled", "least", "delay_min"
    SERVERLESS_SECONDS = "serverless_seconds", "memory_mib"
    DATA_PROCESSED = "data_processed", "request_bytes"
    CONTAINER_IMAGES_KEPT = "container_images_kept", "gib", "libraries_measured", "packed_fraction", "base_mb"
    FREE_ALLOWANCES_UNSHARED = "free_allowances_unshared"
    RESPONSE_HEADERS = "response_headers", "header_bytes"
    EXCEEDS_MAX_INSTANCES = "exceeds_max_instances", "requests_per_month", "instances", "max_instances"
    LIST_PRICES = "list_prices", "date"
    UNCONFIRMED_PRICES = "unconfirmed_prices", "price_ids"


@dataclass(frozen=True)
class Assumption(Statement):
    code: AssumptionCode
