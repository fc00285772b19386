"""What an endpoint is like, set by whoever tests the harness: latency, failures, cold starts, capacity, accuracy.

The same record drives the oracle (eval/mock_server/server.py) and says what a measurement of it should find.
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
from eval.mock_server.profile_validation import FAULTS, check
from eval.mock_server.queueing import Pauses, stays
from eval.samples.model import ERROR_KINDS

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STREAM = 200_000  # requests of a simulated stream
CLOSE = 1.002  # a search ends when its bounds are so near, one over the other


@dataclass(frozen=True)
class Truth:
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
    classes: tuple[str, ...] = CIFAR10
    labels: Mapping[str, int] = field(default_factory=dict)  # sha256 of a picture's bytes -> true class
    model_version: str = "0123456789ab"

    def __post_init__(self) -> None:
        check(vars(self))

    # Time

    @property
    def pauses(self) -> Pauses:
        return Pauses(self.stall_every_s, self.stall_ms / 1000)

    def draw(self, dice: np.random.Generator, count: int) -> np.ndarray:
        """Times in the service, in ms."""
        if not self.sigma:
            times = np.full(count, self.median_ms)
        elif self.distribution == "gamma":
            times = dice.gamma(self._shape, self._scale_ms, count)
        else:
            times = self.median_ms * np.exp(self.sigma * dice.standard_normal(count))
        return np.where(dice.random(count) < self.slow_share, times * self.slow_factor, times)

    def share_within(self, limit_ms: float) -> float:
        """The share of times in the service that are no longer: the distribution function."""
        usual, slow = self._usual_within(limit_ms), self._usual_within(limit_ms / self.slow_factor)
        return (1 - self.slow_share) * usual + self.slow_share * slow

    def quantile_ms(self, p: float) -> float:
        """The p-quantile of the time in the service, without queue, stall, drift or cold start."""
        usual = self._usual_quantile_ms(p)
        if not self.slow_share:
            return usual
        bounds = sorted((usual, usual * self.slow_factor))
        return crossing(lambda limit_ms: self.share_within(limit_ms) >= p, *bounds, close=1 + 1e-9)

    def quantile_of_all_ms(self, p: float) -> float:
        """The same over all predictions, those that fail counted as infinitely slow."""
        answered = 1 - sum(self.faults.values())
        return self.quantile_ms(p / answered) if p < answered else math.inf

    @property
    def mean_ms(self) -> float:
        """Of the time in the service."""
        if not self.sigma:
            usual = self.median_ms
        elif self.distribution == "gamma":
            usual = self._shape * self._scale_ms
        else:
            usual = self.median_ms * math.exp(self.sigma**2 / 2)
        return usual * (1 + self.slow_share * (self.slow_factor - 1))

    @property
    def _shape(self) -> float:
        return self.sigma**-2

    @property
    def _scale_ms(self) -> float:
        return self.median_ms / float(gammaincinv(self._shape, 0.5))

    def _usual_within(self, limit_ms: float) -> float:
        if not self.sigma:
            return float(limit_ms >= self.median_ms)
        if self.distribution == "gamma":
            return float(gammainc(self._shape, limit_ms / self._scale_ms))
        return float(ndtr(math.log(limit_ms / self.median_ms) / self.sigma))

    def _usual_quantile_ms(self, p: float) -> float:
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
        working = 1 - self.stall_ms / 1000 / self.stall_every_s if self.pauses else 1.0
        return self.servers * working * 1000 / self.mean_ms

    def stays_ms(self, rate_rps: float, requests: int = STREAM) -> np.ndarray:
        """Times from arrival to answer in a Poisson stream: queue, service and stalls, all warm. The same each time."""
        dice = np.random.default_rng((self.seed, 95))
        service_s = self.draw(dice, requests) / 1000
        return stays(service_s, dice.exponential(1, requests) / rate_rps, self.servers, self.pauses) * 1000

    def max_rate_rps(self, slo_ms: float, p: float = 0.95) -> float:
        """The highest rate at which the p-quantile stays within the objective: 0 where none, infinite where any does.

        Simulated: good to about one percent.
        """

        def missed(rate_rps: float) -> bool:
            return float(np.quantile(self.stays_ms(rate_rps), p)) > slo_ms

        limit = self.capacity_rps()
        slowest = min(1.0, limit * 1e-3)
        if missed(slowest):
            return 0.0
        return math.inf if limit == math.inf else crossing(missed, slowest, limit, close=CLOSE)

    # Failures

    def error_share(self, kind: str) -> float:
        """Predictions that a client should count as that kind of failure."""
        return sum(share for fault, share in self.faults.items() if FAULTS[fault] == kind)

    def error_shares(self) -> dict[str, float]:
        """The same for every kind that occurs."""
        return {kind: share for kind in ERROR_KINDS if (share := self.error_share(kind))}

    # Answers

    def says(self, sha256: str) -> int:
        """The class that a picture is given, always the same one."""
        label = self.labels.get(sha256, int(sha256[:8], 16) % len(self.classes))
        digits = hashlib.sha256(f"{self.seed}:{sha256}".encode()).hexdigest()
        chances = [int(digits[at : at + 12], 16) / 16**12 for at in (0, 12)]
        return label if chances[0] < self.accuracy else self._mistaken(label, chances[1])

    def _mistaken(self, label: int, chance: float) -> int:
        """What a class is taken for when it is not named right."""
        taken_for = self.confusion.get(self.classes[label], self.classes[(label + 1) % len(self.classes)])
        shares = {taken_for: 1.0} if isinstance(taken_for, str) else taken_for
        bounds = np.cumsum(list(shares.values()))
        place = int(np.searchsorted(bounds, chance * bounds[-1], side="right"))
        return self.classes.index(list(shares)[place])

    def share_right(self, pictures: Iterable[str]) -> float:
        """Of these pictures (sha256, all of them in `labels`), the share that is named right. Exact."""
        matrix = self.confusion_matrix(pictures)
        return float(np.trace(matrix) / matrix.sum())

    def confusion_matrix(self, pictures: Iterable[str]) -> np.ndarray:
        """How many of these pictures (sha256) of each true class, in rows, are given each class. Exact."""
        matrix = np.zeros((len(self.classes), len(self.classes)), int)
        for sha256 in pictures:
            matrix[self.labels[sha256], self.says(sha256)] += 1
        return matrix

    def to_json(self) -> dict[str, Any]:
        """As a truth file has it; what is infinite or not there is left out."""
        facts = {name: value for name, value in vars(self).items() if value is not None and value != math.inf}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in facts.items()}


def read_truth(text: str, where: str = "truth") -> Truth:
    """A truth from JSON. Raises ProfileError that names what is wrong."""
    known = Truth.__dataclass_fields__
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise ProfileError(f"{where} is not JSON: {error}") from None
    if not isinstance(facts, dict):
        raise ProfileError(f"{where} is not an object; it may have {', '.join(known)}")
    if unknown := sorted(set(facts) - set(known)):
        raise ProfileError(f"{where} knows no {', '.join(unknown)}; there are {', '.join(known)}")
    if isinstance(facts.get("classes"), list):
        facts["classes"] = tuple(facts["classes"])
    try:
        return Truth(**facts)
    except ProfileError as error:
        raise ProfileError(f"{where}: {error}") from None


def crossing(beyond: Callable[[float], bool], low: float, high: float, close: float) -> float:
    """Where something that grows goes beyond: the middle, in logarithms, between bounds that are `close` together."""
    while high / low > close:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return math.sqrt(low * high)
