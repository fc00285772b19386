"""The profile of a mock endpoint: latency, failures, cold starts, capacity and accuracy.

It drives the mock endpoint (eval/mock_server/server.py); tests/helpers/expected_measurements.py computes what a
measurement of it should find.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import gammainc, gammaincinv, ndtr, ndtri

from eval.errors import ProfileError
from eval.mock_server.profile_validation import validate_profile
from eval.mock_server.stalls import PeriodicStalls

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIMULATED_REQUESTS = 200_000  # requests of a simulated stream
MAX_RATE_RATIO = 1.002  # a search ends when its bounds are so near, one over the other


@dataclass(frozen=True)
class EndpointProfile:
    """Fields of time are in the unit of their name; shares are of all predictions. Raises ProfileError."""

    seed: int = 0
    distribution: str = "lognormal"  # of the service time, one of DISTRIBUTIONS
    median_ms: float = 20.0  # of the service time, without the slow predictions
    sigma: float = 0.3  # lognormal: standard deviation of the logarithm; gamma: coefficient of variation; 0: constant
    slow_share: float = 0.0  # predictions that take `slow_factor` times as long
    slow_factor: float = 10.0
    drift_per_minute: float = 0.0  # linear growth of the service time: 0.1 is 10% of the initial one per minute
    stall_every_s: float = 0.0  # period of the stalls, during which no work is done; 0: none
    stall_ms: float = 0.0  # length of a stall
    servers: int | None = None  # concurrent predictions, with one queue; None: unlimited
    cached_ms: float | None = None  # service time of an image that was posted before; None: no cache
    cold_start_ms: float = 0.0  # start-up time of a new instance; its first prediction waits for it
    idle_s: float = math.inf  # after so long without a prediction, the next one meets a new instance
    faults: Mapping[str, float] = field(default_factory=dict)  # key of FAULT_ERROR_KINDS -> share
    retry_after_s: int = 1  # Retry-After of 429 and 503
    accuracy: float = 0.9  # probability that an image is classified correctly, each time the same
    # class -> the class it is mistaken for, or the share of each; default: the next class
    confusion: Mapping[str, str | Mapping[str, float]] = field(default_factory=dict)
    classes: tuple[str, ...] = CIFAR10_CLASSES
    labels: Mapping[str, int] = field(default_factory=dict)  # sha256 of an image's bytes -> true class
    model_version: str = "0123456789ab"

    def __post_init__(self) -> None:
        validate_profile(vars(self))

    # Time

    @property
    def stalls(self) -> PeriodicStalls:
        return PeriodicStalls(self.stall_every_s, self.stall_ms / 1000)

    def draw_service_times_ms(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw service times."""
        if not self.sigma:
            times_ms = np.full(count, self.median_ms)
        elif self.distribution == "gamma":
            times_ms = rng.gamma(self._shape, self._scale_ms, count)
        else:
            times_ms = self.median_ms * np.exp(self.sigma * rng.standard_normal(count))
        return np.where(rng.random(count) < self.slow_share, times_ms * self.slow_factor, times_ms)

    def service_time_cdf(self, limit_ms: float) -> float:
        """The distribution function of the service time."""
        typical, slow = self._typical_cdf(limit_ms), self._typical_cdf(limit_ms / self.slow_factor)
        return (1 - self.slow_share) * typical + self.slow_share * slow

    def service_time_quantile_ms(self, p: float) -> float:
        """The p-quantile of the service time, without queue, stall, drift or cold start."""
        typical = self._typical_quantile_ms(p)
        if not self.slow_share:
            return typical
        bounds = sorted((typical, typical * self.slow_factor))
        return find_threshold(lambda limit_ms: self.service_time_cdf(limit_ms) >= p, *bounds, max_ratio=1 + 1e-9)

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

    # Predictions

    def predicted_class(self, sha256: str) -> int:
        """The class that the endpoint predicts for an image; each time the same."""
        label = self.labels.get(sha256, int(sha256[:8], 16) % len(self.classes))
        digits = hashlib.sha256(f"{self.seed}:{sha256}".encode()).hexdigest()
        uniforms = [int(digits[offset : offset + 12], 16) / 16**12 for offset in (0, 12)]
        return label if uniforms[0] < self.accuracy else self._confused_class(label, uniforms[1])

    def _confused_class(self, label: int, uniform: float) -> int:
        """The class that a misclassified image of this class is mistaken for."""
        confused_with = self.confusion.get(self.classes[label], self.classes[(label + 1) % len(self.classes)])
        fractions = {confused_with: 1.0} if isinstance(confused_with, str) else confused_with
        cumulative = np.cumsum(list(fractions.values()))
        index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        return self.classes.index(list(fractions)[index])

    def to_json(self) -> dict[str, Any]:
        """As in a profile file, without infinite and absent values."""
        fields = {name: value for name, value in vars(self).items() if value is not None and value != math.inf}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()}


def parse_profile(text: str | bytes, source: str = "profile") -> EndpointProfile:
    """Parse a profile from JSON, as bytes in UTF-8. Raises ProfileError that names the value."""
    known_fields = EndpointProfile.__dataclass_fields__
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ProfileError(f"{source} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ProfileError(f"{source} is not an object; its fields are {', '.join(known_fields)}")
    if unknown := sorted(set(values) - set(known_fields)):
        raise ProfileError(f"{source}: no field is called {', '.join(unknown)}; there are {', '.join(known_fields)}")
    if isinstance(values.get("classes"), list):
        values["classes"] = tuple(values["classes"])
    try:
        return EndpointProfile(**values)
    except ProfileError as error:
        raise ProfileError(f"{source}: {error}") from None


def find_threshold(exceeds: Callable[[float], bool], low: float, high: float, max_ratio: float) -> float:
    """Bisect on a logarithmic scale for the value above which `exceeds` is true."""
    while high / low > max_ratio:
        midpoint = math.sqrt(low * high)
        low, high = (low, midpoint) if exceeds(midpoint) else (midpoint, high)
    return math.sqrt(low * high)
