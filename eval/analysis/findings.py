"""What a run's analysis finds, and a comparison of two runs: codes with values, no sentence.

A reader lists every code here. The sentence for each is in eval/report/wording.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from eval.codes import Code, Statement


class Severity(StrEnum):
    """How grave a finding is."""

    INVALID = "invalid"  # the figures are no comparison
    WARNING = "warning"  # a reader must know it to read the figures
    NOTICE = "notice"  # it may explain a difference


class FindingCode(Code):
    """What can be found. `a` and `b` are two runs."""

    # One run
    RUN_INCOMPLETE = "run_incomplete", "note"
    REQUESTS_DROPPED = "requests_dropped", "dropped", "planned"
    REQUESTS_MISSING = "requests_missing", "missing", "planned"
    CLIENT_PAUSED = "client_paused", "pauses", "seconds_by_cause", "excluded"
    SENT_ELSEWHERE = "sent_elsewhere", "machines", "processes", "uncertainty_ms"
    MODEL_VERSIONS_DIFFER = "model_versions_differ", "titles_by_version"
    CLIENT_SATURATED = "client_saturated", "titles", "max_p99_delay_ms", "workers", "cores"
    LATE_AT_START = "late_at_start", "p99_delay_ms_by_title", "start_s"
    SENT_LATE = "sent_late", "p99_delay_ms_by_title", "limit_ms"
    SEARCH_LIMITED_BY_CLIENT = "search_limited_by_client", "p99_delay_ms_by_title"
    TARGET_FAILED = "target_failed", "title", "failure"
    MANY_FAILURES = "many_failures", "title", "failed", "sent", "errors"
    MEMORY_EXCEEDED = "memory_exceeded", "title", "peak_mib", "limit_mib", "cuda_build"
    CPU_CONTENTION = "cpu_contention", "titles", "cores"
    UNITS_NOT_PROMISED = "units_not_promised", "units_by_title"
    LATENCY_DRIFT = "latency_drift", "title", "results_by_scenario"
    MACHINE_DRIFT = "machine_drift", "results_by_scenario"
    CACHE_SUSPECTED = "cache_suspected", "titles"
    PREDICTIONS_DIFFER = "predictions_differ", "titles", "disagreements", "n", "max_agreement"
    SAME_MODEL_UNDECIDED = "same_model_undecided", "titles", "n", "min_n", "accuracy", "min_accuracy"
    LESS_ACCURATE = "less_accurate", "engine", "reference_engine", "max_drop", "alpha", "decision", "margin"
    NO_REFERENCE = "no_reference"
    PRICE_LIST_CHANGED = "price_list_changed", "date"
    PRICES_STALE = "prices_stale", "max_age_days", "date_by_price"
    PRICES_UNCONFIRMED = "prices_unconfirmed", "price_ids"
    # Two runs
    IMAGES_DIFFER = "images_differ", "a", "b"
    SCENARIOS_DIFFER = "scenarios_differ", "a", "b"
    TARGETS_DIFFER = "targets_differ", "a", "b"
    LOCATION_DIFFERS = "location_differs", "a", "b"
    PRICED_TARGET_DIFFERS = "priced_target_differs", "a", "b"
    ENGINE_DIFFERS = "engine_differs", "a", "b"
    CPUS_DIFFER = "cpus_differ", "a", "b"
    MODEL_DIFFERS = "model_differs", "names", "a", "b"
    LOAD_OPTION_DIFFERS = "load_option_differs", "option", "a", "b"
    CLIENT_PROCESSOR_DIFFERS = "client_processor_differs", "a", "b", "twins"
    CLIENT_CORES_DIFFER = "client_cores_differ", "a", "b"
    COMPARED_RUN_INVALID = "compared_run_invalid", "run", "finding"
    COMPARED_RUN_INCOMPLETE = "compared_run_incomplete", "run", "note"
    PROCESSOR_DIFFERS = "processor_differs", "names", "a", "b"
    PROCESSOR_NOT_KNOWN = "processor_not_known", "names", "a", "b"
    CLIENT_VERSIONS_DIFFER = "client_versions_differ", "changes"
    MACHINE_CHANGED = "machine_changed", "n_targets", "changes_by_scenario"
    MACHINE_CHANGED_TOO = "machine_changed_too", "n_targets", "changes_by_scenario"
    MACHINE_NOT_TOLD_APART = "machine_not_told_apart", "names"
    PRICE_LIST_NOT_KEPT = "price_list_not_kept", "run", "sha256", "date"


@dataclass(frozen=True)
class Finding(Statement):
    """One of them, as it was found."""

    code: FindingCode
    severity: Severity
    target: str | None  # None: of the whole run, or of several targets


def invalid(code: FindingCode, target: str | None = None, **values: Any) -> Finding:
    return Finding(code, values, Severity.INVALID, target)


def warning(code: FindingCode, target: str | None = None, **values: Any) -> Finding:
    return Finding(code, values, Severity.WARNING, target)


def notice(code: FindingCode, target: str | None = None, **values: Any) -> Finding:
    return Finding(code, values, Severity.NOTICE, target)
