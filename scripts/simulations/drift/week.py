"""Scrapes of a deployment that nobody has to wait for: day and night, instances that come and go, switches of models.

A job's images are drawn from a model's own answers; what its instances would have reported is OpenMetrics text, which
promtool turns into a Prometheus' data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scripts.simulations.drift.answers import BOUNDS, Answers
from scripts.simulations.drift.kinds import EQUAL, Kind
from service.monitoring.histogram import le

SCRAPE_S = 60
DAY_SCRAPES, HOUR_SCRAPES = 86_400 // SCRAPE_S, 3600 // SCRAPE_S
NIGHT_RPS, NOON_RPS = 0.03, 0.8  # of all instances together
FEEDBACK_SHARE = 0.03  # of the images
REFERENCE_EVERY = 4  # scrapes, to write less: Prometheus looks back five minutes
# Instances: hours of the day, and whether one lives on until it is replaced, every so many scrapes
DAILY_HOURS = ((7, 22), (10, 18))
RESTART_SCRAPES = 2 * DAY_SCRAPES + 9 * HOUR_SCRAPES
SECOND, FIRST_AGAIN = 3 * DAY_SCRAPES + 13 * HOUR_SCRAPES, 4 * DAY_SCRAPES + 11 * HOUR_SCRAPES
VERSIONS = ((0, "v1"), (SECOND, "v2"), (FIRST_AGAIN, "v1"))  # scrape -> what is served from then on


@dataclass(frozen=True)
class Life:
    """A process while it serves one version: its counters begin at zero. Times are numbers of scrapes."""

    instance: str
    version: str
    start: int
    end: int


@dataclass(frozen=True)
class Job:
    """A deployment, and from when on its traffic drifts."""

    kind: Kind
    start: int  # scrapes since the simulation's begin
    end: int
    drift_at: int

    @cached_property
    def lives(self) -> list[Life]:
        """Of all instances, each of them cut where the version is switched."""
        found = []
        for name, start, end in _instances(self.start, self.end):
            cuts = [at for at, _ in VERSIONS if start < at < end]
            for low, high in itertools.pairwise([start, *cuts, end]):
                found.append(Life(f"{self.kind.name}-{name}", _version_at(low), low, high))
        return sorted(found, key=lambda life: life.start)

    @cached_property
    def instances(self) -> np.ndarray:
        """How many there are, by scrape since `start`."""
        alive = np.zeros(self.end - self.start, int)
        for life in self.lives:
            alive[life.start - self.start : life.end - self.start] += 1
        return alive


def _instances(start: int, end: int) -> Iterator[tuple[str, int, int]]:
    for at in range(start - start % RESTART_SCRAPES, end, RESTART_SCRAPES):
        yield f"steady{at}", max(at, start), min(at + RESTART_SCRAPES, end)
    for day in range(start - start % DAY_SCRAPES, end, DAY_SCRAPES):
        for low, high in DAILY_HOURS:
            from_, to = max(day + low * HOUR_SCRAPES, start), min(day + high * HOUR_SCRAPES, end)
            if from_ < to:
                yield f"daily{low}-{day}", from_, to


def _version_at(scrape: int) -> str:
    return [version for at, version in VERSIONS if at <= scrape][-1]


def rate_rps(scrape: np.ndarray) -> np.ndarray:
    """Images a second of all instances, by the time of day: from 6 to 22 half a wave."""
    hour = scrape % DAY_SCRAPES / HOUR_SCRAPES
    return NIGHT_RPS + (NOON_RPS - NIGHT_RPS) * np.clip(np.sin(math.pi * (hour - 6) / 16), 0, None) * (hour > 6)


class Simulation:
    """Draws a job's traffic and says what its instances report."""

    def __init__(self, job: Job, answers: Mapping[str, Answers], seed: int):
        self.job = job
        self._equal, self._drifted = answers[EQUAL.name], answers[job.kind.name]
        self._rng = np.random.default_rng([seed, *job.kind.name.encode()])
        self.images = np.zeros(job.end - job.start, int)  # by scrape since the job's start

    def series(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Each series with the scrapes at which it is there, and its values."""
        for life in self.job.lives:
            yield from self._life(life)

    def _life(self, life: Life) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        job, times = self.job, np.arange(life.start, life.end)
        alive = job.instances[life.start - job.start : life.end - job.start]
        arrived = self._rng.poisson(rate_rps(times) * SCRAPE_S / alive)
        self.images[life.start - job.start : life.end - job.start] += arrived
        at = np.repeat(np.arange(len(times)), arrived)
        drifted = times[at] >= job.drift_at
        own = f'job="{job.kind.name}",instance="{life.instance}",version="{life.version}"'
        numbers, label, truth = self._drawn(drifted)
        for name, bounds in BOUNDS.items():
            buckets = np.searchsorted(bounds, numbers[name])
            counts = _totals(at, buckets, len(times), len(bounds) + 1).cumsum(axis=1)
            for bound, column in zip([*map(le, bounds), "+Inf"], counts.T, strict=True):
                yield f'classifier_{name}_bucket{{{own},le="{bound}"}}', times, column
        sums = np.bincount(at, numbers["confidence"], len(times)).cumsum().round(6)
        yield f"classifier_confidence_sum{{{own}}}", times, sums
        yield from self._by_label("predictions_total", own, times, at, label)
        asked = self._rng.random(len(at)) < FEEDBACK_SHARE
        for outcome, chosen in (("right", label == truth), ("wrong", label != truth)):
            said = asked & chosen
            yield from self._by_label("feedback_total", f'{own},outcome="{outcome}"', times, at[said], truth[said])
        for text, value in reference_series(self._equal, own):
            seen = times[::REFERENCE_EVERY]
            yield text, seen, np.full(len(seen), value)

    def _drawn(self, drifted: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The numbers, answers and true classes of as many images, in order."""
        numbers = {name: np.empty(len(drifted)) for name in BOUNDS}
        label, truth = np.empty(len(drifted), int), np.empty(len(drifted), int)
        for is_drifted, answers, kind in ((False, self._equal, EQUAL), (True, self._drifted, self.job.kind)):
            where = np.flatnonzero(drifted == is_drifted)
            chosen = self._rng.choice(len(answers.truth), len(where), p=kind.weights(answers.truth))
            label[where], truth[where] = answers.label[chosen], answers.truth[chosen]
            for name in BOUNDS:
                numbers[name][where] = answers.numbers[name][chosen]
        return numbers, label, truth

    def _by_label(
        self, name: str, own: str, times: np.ndarray, at: np.ndarray, label: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """A counter of each class, from its first image on."""
        counts = _totals(at, label, len(times), len(self._equal.classes))
        for text, column in zip(self._equal.classes, counts.T, strict=True):
            there = column > 0
            yield f'classifier_{name}{{{own},label="{text}"}}', times[there], column[there]


def _totals(at: np.ndarray, value: np.ndarray, times: int, values: int) -> np.ndarray:
    """How often each value has come, by time: [times, values]."""
    return np.bincount(at * values + value, minlength=times * values).reshape(times, values).cumsum(axis=0)


def reference_series(answers: Answers, own: str) -> Iterator[tuple[str, float]]:
    """The gauges of a reference that was measured on these images."""
    yield f"classifier_reference_images{{{own}}}", len(answers.truth)
    yield f"classifier_reference_accuracy{{{own}}}", float(answers.right.mean())
    yield f"classifier_reference_confidence_mean{{{own}}}", float(answers.numbers["confidence"].mean())
    shares = np.bincount(answers.label, minlength=len(answers.classes)) / len(answers.label)
    for text, share in zip(answers.classes, shares, strict=True):
        yield f'classifier_reference_labels{{{own},label="{text}"}}', float(share)
    for name, bounds in BOUNDS.items():
        for bound in bounds:
            yield (
                f'classifier_reference_{name}{{{own},le="{le(bound)}"}}',
                float((answers.numbers[name] <= bound).mean()),
            )


def lines(text: str, times: np.ndarray, values: np.ndarray, began_at: int) -> Sequence[str]:
    """OpenMetrics, a line for each value."""
    stamps = began_at + times * SCRAPE_S
    return [f"{text} {value} {stamp}\n" for value, stamp in zip(values.tolist(), stamps.tolist(), strict=True)]
