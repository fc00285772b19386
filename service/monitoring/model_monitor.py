"""What a model is sent and answers, counted while it is served, beside the distributions that it was measured with.

Every series carries the model's version. They end with the model: a request that a switch has overtaken is counted in
the monitor of its own model, which nobody reads any longer.

Counting an input takes a few microseconds among others like it, and many times that after a forward pass, which leaves
nothing of it in the processor's caches. So inputs wait until there are some, or until somebody reads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from service.manifest.records import TabularInput
from service.model import Bundle
from service.monitoring.histogram import BRIGHTNESS, CONTRAST, PROBABILITIES, Histogram, le
from service.monitoring.inputs import InputMeasure
from service.monitoring.reference import Distribution, Reference
from service.schema import Prediction

NAMESPACE = "classifier"
MAX_WAITING = 64  # inputs that are not counted yet, beside those of one more request
MAX_REFERENCE_LABELS = 100  # classes; of more, an hour's images say nothing of each, and their series are many
BOUNDS = {"brightness": BRIGHTNESS, "contrast": CONTRAST}  # where no reference has others
HELP = {
    "confidence": "Images, by the probability of the answer",
    "margin": "Images, by the probability of the answer less the next one",
    "brightness": "Images, by the mean of their grey values, from 0 to 1",
    "contrast": "Images, by the standard deviation of their grey values, from 0 to 1",
    "feature": "Rows, by the value of a feature",
}


class ModelMonitor:
    """The counts of one model. Any number of threads may use it at once."""

    def __init__(self, bundle: Bundle, version: str, reference: Reference | None):
        self._classes, self._version, self._reference = bundle.classes, version, reference
        self._is_tabular = isinstance(bundle.input, TabularInput)
        self._measure = InputMeasure(bundle.input)
        inputs = reference.inputs if reference else {}
        answers = reference.answers if reference else None
        self._waiting: list[tuple[np.ndarray, int, float, float]] = []  # a sample, and the answer as _top() has it
        self._labels: dict[int, int] = {}  # class -> images, of those that were predicted
        self._confidence = Histogram(answers.confidence.bounds if answers else PROBABILITIES)
        self._margin = Histogram(answers.margin.bounds if answers else PROBABILITIES)
        self._inputs = {  # of each number that is measured; None where no bounds are known
            name: Histogram(bounds) if (bounds := _bounds(name, inputs, self._is_tabular)) else None
            for name in self._measure.names
        }
        self._lock = threading.Lock()  # guards all but what waits, of which one thread at a time takes the first ones

    def observe(self, inputs: Sequence[np.ndarray], predictions: Sequence[Prediction]) -> None:
        """Count the inputs of a request, as the network took them, and its answers."""
        waiting, sample = self._waiting, self._measure.sample
        for taken, prediction in zip(inputs, predictions, strict=True):
            waiting.append((sample(taken), *_top(prediction)))
        if len(waiting) >= MAX_WAITING:
            with self._lock:
                self._count_waiting()

    def _count_waiting(self) -> None:
        waiting = self._waiting[:]
        del self._waiting[: len(waiting)]  # more may have come behind them
        if not waiting:
            return
        samples, labels, confidences, margins = zip(*waiting, strict=True)
        for label in labels:
            self._labels[label] = self._labels.get(label, 0) + 1
        self._confidence.observe(np.array(confidences))
        self._margin.observe(np.array(margins))
        numbers = self._measure.numbers(np.stack(samples))
        for histogram, values in zip(self._inputs.values(), numbers, strict=True):
            if histogram:
                histogram.observe(values)

    def collect(self) -> Iterator[Metric]:
        """All series, with everything counted that was observed."""
        with self._lock:
            self._count_waiting()
            labels = {self._classes[each]: images for each, images in self._labels.items()}
            answers = {"confidence": self._confidence.read(), "margin": self._margin.read()}
            inputs = {name: histogram.read() for name, histogram in self._inputs.items() if histogram}
        predictions = CounterMetricFamily(
            f"{NAMESPACE}_predictions", "Images, by predicted class", labels=("label", "version")
        )
        for label, images in labels.items():
            predictions.add_metric((label, self._version), images)
        yield predictions
        own = answers if self._is_tabular else answers | inputs
        for name, (buckets, total) in own.items():
            family = HistogramMetricFamily(f"{NAMESPACE}_{name}", HELP[name], labels=("version",))
            family.add_metric((self._version,), buckets, total)
            yield family
        if self._is_tabular and inputs:
            family = HistogramMetricFamily(f"{NAMESPACE}_feature", HELP["feature"], labels=("version", "feature"))
            for name, (buckets, total) in inputs.items():
                family.add_metric((self._version, name), buckets, total)
            yield family
        if self._reference:
            yield from self._reference_series(self._reference)

    def _reference_series(self, reference: Reference) -> Iterator[Metric]:
        yield self._gauge("images", "Images or rows of the reference", {(): reference.count})
        if answers := reference.answers:
            shares = {(name,): share for name, share in zip(self._classes, answers.labels, strict=True)}
            if len(shares) <= MAX_REFERENCE_LABELS:
                yield self._gauge("labels", "Share of each class in the reference's answers", shares, "label")
            if answers.accuracy is not None:
                yield self._gauge("accuracy", "Accuracy on the reference", {(): answers.accuracy})
            yield self._gauge("confidence_mean", "Mean confidence on the reference", {(): answers.confidence_mean})
            yield self._shares("confidence", answers.confidence)
            yield self._shares("margin", answers.margin)
        if self._is_tabular:
            shares = {
                (name, le(bound)): share
                for name, each in reference.inputs.items()
                for bound, share in zip(each.bounds, each.shares, strict=True)
            }
            yield self._gauge("feature", "Share of the reference that is not above le", shares, "feature", "le")
            return
        for name, each in reference.inputs.items():
            yield self._shares(name, each)

    def _shares(self, name: str, found: Distribution) -> Metric:
        shares = {(le(bound),): share for bound, share in zip(found.bounds, found.shares, strict=True)}
        return self._gauge(name, "Share of the reference that is not above le", shares, "le")

    def _gauge(self, name: str, text: str, values: dict[tuple[str, ...], float], *labels: str) -> Metric:
        family = GaugeMetricFamily(f"{NAMESPACE}_reference_{name}", text, labels=("version", *labels))
        for more, value in values.items():
            family.add_metric((self._version, *more), value)
        return family


def _bounds(name: str, inputs: Mapping[str, Distribution], is_tabular: bool) -> tuple[float, ...] | None:
    if name in inputs:
        return inputs[name].bounds
    return None if is_tabular else BOUNDS[name]


def _top(prediction: Prediction) -> tuple[int, float, float]:
    """The most probable class, its probability, and how far that is above the next one's."""
    probabilities, (label, *after) = prediction.probabilities, prediction.ranked[:2]
    best = probabilities[label]
    return label, best, best - (probabilities[after[0]] if after else 0.0)
