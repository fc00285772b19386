"""What an endpoint is like, set by whoever tests the harness: latency, failures, cold starts, capacity, accuracy.

The same record drives the mock endpoint (eval/mock_server/server.py) and says what a measurement of it should find.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import gammainc, gammaincinv, ndtr, ndtri

from eval.errors import ProfileError
from eval.mock_server.profile_validation import FAULT_ERROR_KINDS, validate_profile
from eval.mock_server.queueing import PeriodicStalls, sojourn_times
from eval.samples.model import ERROR_KINDS

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIMULATED_REQUESTS = 200_000  # requests of a simulated stream
MAX_RATE_RATIO = 1.002  # a search ends when its bounds are so near, one over the other


@dataclass(frozen=True)
class EndpointProfile:
    """An endpoint. Times are milliseconds unless the name says otherwise; shares are of all predictions.

    Raises ProfileError for values that make no sense.
    """

    seed: int = 0
    distribution: str = "lognormal"  # of the time in the service, one of DISTRIBUTIONS
    median_ms: float = 20.0  # of the time in the service, those that are slow left out
    sigma: float = 0.3  # lognormal: its logarithm's standard deviation; gamma: its own over the mean; 0: no spread
    slow_share: float = 0.0  # predictions that take longer by `slow_factor`
    slow_factor: float = 10.0
    drift_per_minute: float = 0.0  # growth of the time in the service: 0.1 is ten percent of the first a minute
    stall_every_s: float = 0.0  # so often all work stands still; 0: never
    stall_ms: float = 0.0  # for so long
    servers: int | None = None  # that predict at the same time, one queue before them; None: as many as it takes
    cached_ms: float | None = None  # time in the service of a picture that was posted before; None: no cache
    cold_start_ms: float = 0.0  # that a new instance takes to start, while its first prediction waits
    idle_s: float = math.inf  # without a prediction, and the next one meets a new instance
    faults: Mapping[str, float] = field(default_factory=dict)  # name in FAULTS -> share
    retry_after_s: int = 1  # what Retry-After says with 429 and 503
    accuracy: float = 0.9  # chance of each picture to be named right, whenever it is posted
    # class -> what it is taken for when it is not named right, or the share of each; default: the class after it
    confusion: Mapping[str, str | Mapping[str, float]] = field(default_factory=dict)
    classes: tuple[str, ...] = CIFAR10_CLASSES
    labels: Mapping[str, int] = field(default_factory=dict)  # sha256 of a picture's bytes -> true class
    model_version: str = "0123456789ab"

    def __post_init__(self) -> None:
        validate_profile(vars(self))

    # Time

    @property
    def stalls(self) -> PeriodicStalls:
        return PeriodicStalls(self.stall_every_s, self.stall_ms / 1000)

    def draw_service_times_ms(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Times in the service, in ms."""
        if not self.sigma:
            times_ms = np.full(count, self.median_ms)
        elif self.distribution == "gamma":
            times_ms = rng.gamma(self._shape, self._scale_ms, count)
        else:
            times_ms = self.median_ms * np.exp(self.sigma * rng.standard_normal(count))
        return np.where(rng.random(count) < self.slow_share, times_ms * self.slow_factor, times_ms)

    def service_time_cdf(self, limit_ms: float) -> float:
        """The share of times in the service that are no longer: the distribution function."""
        typical, slow = self._typical_cdf(limit_ms), self._typical_cdf(limit_ms / self.slow_factor)
        return (1 - self.slow_share) * typical + self.slow_share * slow

    def service_time_quantile_ms(self, p: float) -> float:
        """The p-quantile of the time in the service, without queue, stall, drift or cold start."""
        typical = self._typical_quantile_ms(p)
        if not self.slow_share:
            return typical
        bounds = sorted((typical, typical * self.slow_factor))
        return find_threshold(lambda limit_ms: self.service_time_cdf(limit_ms) >= p, *bounds, max_ratio=1 + 1e-9)

    def quantile_with_failures_ms(self, p: float) -> float:
        """The same over all predictions, those that fail counted as infinitely slow."""
        success_fraction = 1 - sum(self.faults.values())
        return self.service_time_quantile_ms(p / success_fraction) if p < success_fraction else math.inf

    @property
    def mean_service_ms(self) -> float:
        """Of the time in the service."""
        if not self.sigma:
            typical = self.median_ms
        elif self.distribution == "gamma":
            typical = self._shape * self._scale_ms
        else:
            typical = self.median_ms * math.exp(self.sigma**2 / 2)
        return typical * (1 + self.slow_share * (self.slow_factor - 1))

    @property
    def _shape(self) -> float:
        return self.sigma**-2

    @property
    def _scale_ms(self) -> float:
        return self.median_ms / float(gammaincinv(self._shape, 0.5))

    def _typical_cdf(self, limit_ms: float) -> float:
        if not self.sigma:
            return float(limit_ms >= self.median_ms)
        if self.distribution == "gamma":
            return float(gammainc(self._shape, limit_ms / self._scale_ms))
        return float(ndtr(math.log(limit_ms / self.median_ms) / self.sigma))

    def _typical_quantile_ms(self, p: float) -> float:
        if not self.sigma:
            return self.median_ms
        if self.distribution == "gamma":
            return float(gammaincinv(self._shape, p)) * self._scale_ms
        return self.median_ms * math.exp(self.sigma * float(ndtri(p)))

    # Load

    def capacity_rps(self) -> float:
        """The rate above which the queue grows without end."""
        if self.servers is None:
            return math.inf
        working_fraction = 1 - self.stall_ms / 1000 / self.stall_every_s if self.stalls else 1.0
        return self.servers * working_fraction * 1000 / self.mean_service_ms

    def sojourn_times_ms(self, rate_rps: float, requests: int = SIMULATED_REQUESTS) -> np.ndarray:
        """Times from arrival to answer in a Poisson stream: queue, service and stalls, all warm. The same each time."""
        rng = np.random.default_rng((self.seed, 95))
        service_s = self.draw_service_times_ms(rng, requests) / 1000
        return sojourn_times(service_s, rng.exponential(1, requests) / rate_rps, self.servers, self.stalls) * 1000

    def max_rate_rps(self, slo_ms: float, p: float = 0.95) -> float:
        """The highest rate at which the p-quantile stays within the objective: 0 where none, infinite where any does.

        Simulated: good to about one percent.
        """

        def misses_slo(rate_rps: float) -> bool:
            return float(np.quantile(self.sojourn_times_ms(rate_rps), p)) > slo_ms

        capacity_rps = self.capacity_rps()
        lowest_rps = min(1.0, capacity_rps * 1e-3)
        if misses_slo(lowest_rps):
            return 0.0
        return (
            math.inf
            if capacity_rps == math.inf
            else find_threshold(misses_slo, lowest_rps, capacity_rps, max_ratio=MAX_RATE_RATIO)
        )

    # Failures

    def error_fraction(self, kind: str) -> float:
        """Predictions that a client should count as that kind of failure."""
        return sum(fraction for fault, fraction in self.faults.items() if FAULT_ERROR_KINDS[fault] == kind)

    def error_fractions(self) -> dict[str, float]:
        """The same for every kind that occurs."""
        return {kind: fraction for kind in ERROR_KINDS if (fraction := self.error_fraction(kind))}

    # Answers

    def predicted_class(self, sha256: str) -> int:
        """The class that a picture is given, always the same one."""
        label = self.labels.get(sha256, int(sha256[:8], 16) % len(self.classes))
        digits = hashlib.sha256(f"{self.seed}:{sha256}".encode()).hexdigest()
        uniforms = [int(digits[offset : offset + 12], 16) / 16**12 for offset in (0, 12)]
        return label if uniforms[0] < self.accuracy else self._confused_class(label, uniforms[1])

    def _confused_class(self, label: int, uniform: float) -> int:
        """What a class is taken for when it is not named right."""
        confused_with = self.confusion.get(self.classes[label], self.classes[(label + 1) % len(self.classes)])
        fractions = {confused_with: 1.0} if isinstance(confused_with, str) else confused_with
        cumulative = np.cumsum(list(fractions.values()))
        index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        return self.classes.index(list(fractions)[index])

    def expected_accuracy(self, images_sha256: Iterable[str]) -> float:
        """Of these pictures (sha256, all of them in `labels`), the share that is named right. Exact."""
        matrix = self.confusion_matrix(images_sha256)
        return float(np.trace(matrix) / matrix.sum())

    def confusion_matrix(self, images_sha256: Iterable[str]) -> np.ndarray:
        """How many of these pictures (sha256) of each true class, in rows, are given each class. Exact."""
        matrix = np.zeros((len(self.classes), len(self.classes)), int)
        for sha256 in images_sha256:
            matrix[self.labels[sha256], self.predicted_class(sha256)] += 1
        return matrix

    def to_json(self) -> dict[str, Any]:
        """As a truth file has it; what is infinite or not there is left out."""
        fields = {name: value for name, value in vars(self).items() if value is not None and value != math.inf}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()}


def parse_profile(text: str, source: str = "truth") -> EndpointProfile:
    """A truth from JSON. Raises ProfileError that names what is wrong."""
    known_fields = EndpointProfile.__dataclass_fields__
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ProfileError(f"{source} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ProfileError(f"{source} is not an object; it may have {', '.join(known_fields)}")
    if unknown := sorted(set(values) - set(known_fields)):
        raise ProfileError(f"{source} knows no {', '.join(unknown)}; there are {', '.join(known_fields)}")
    if isinstance(values.get("classes"), list):
        values["classes"] = tuple(values["classes"])
    try:
        return EndpointProfile(**values)
    except ProfileError as error:
        raise ProfileError(f"{source}: {error}") from None


def find_threshold(exceeds: Callable[[float], bool], low: float, high: float, max_ratio: float) -> float:
    """Where something that grows goes beyond: the middle, in logarithms, between bounds that are `close` together."""
    while high / low > max_ratio:
        midpoint = math.sqrt(low * high)
        low, high = (low, midpoint) if exceeds(midpoint) else (midpoint, high)
    return math.sqrt(low * high)
