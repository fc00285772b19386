"""What a process serves: one model with all that is derived from it, behind one reference that a switch replaces."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service import schema
from service.classifier import Classifier
from service.lifecycle.followed_store import StoredVersion
from service.manifest.records import Feature, TabularInput
from service.monitoring.model_monitor import ModelMonitor

SAMPLES = Path(__file__).resolve().parent.parent / "static" / "samples"  # of the golden set, each named by its class
SAMPLES_MODEL = "resnet18-cifar10"  # which made them


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model as requests see it. A request reads one at its start, and answers from nothing else."""

    classifier: Classifier
    features: tuple[Feature, ...]  # of a model of rows; empty for images
    samples: Mapping[str, bytes]  # of the upload form: class -> image file
    answer: Mapping[str, Any]  # the `model` of every answer
    header: tuple[str, str]  # X-Model-Version
    monitor: ModelMonitor  # counts what it is sent and answers
    stored: StoredVersion | None = None  # where it came from; None without MODEL_STORE

    @classmethod
    def of(cls, classifier: Classifier, stored: StoredVersion | None = None) -> ServedModel:
        takes, info = classifier.bundle.input, classifier.info
        has_samples = info.name == SAMPLES_MODEL
        return cls(
            classifier=classifier,
            features=takes.features if isinstance(takes, TabularInput) else (),
            samples={path.stem: path.read_bytes() for path in sorted(SAMPLES.glob("*.png")) if has_samples},
            answer=info.to_json(),
            header=(schema.MODEL_VERSION, info.version),
            monitor=ModelMonitor(classifier.bundle, info.version, classifier.reference),
            stored=stored,
        )

    def moved_to(self, stored: StoredVersion) -> ServedModel:
        """The same, under another record of its alias."""
        return replace(self, stored=stored)

    @property
    def name(self) -> str:
        """As the store has it; without one, as the bundle does."""
        return self.stored.name if self.stored else self.classifier.info.name

    @property
    def version(self) -> str:
        """As the store has it; without one, that of the engine's file."""
        return self.stored.version if self.stored else self.classifier.info.version


class CurrentModel:
    """The reference to the model, and a count of the requests that still use each."""

    def __init__(self, model: ServedModel):
        self.model = model
        self._users: Counter[Classifier] = Counter()
        self._changed = threading.Condition(threading.Lock())  # guards both

    def take(self) -> ServedModel:
        """The model for a request that starts now, which gives it back at its end."""
        with self._changed:
            model = self.model
            self._users[model.classifier] += 1
        return model

    def give_back(self, model: ServedModel) -> None:
        with self._changed:
            self._users[model.classifier] -= 1
            if model.classifier is not self.model.classifier and not self._users[model.classifier]:
                self._changed.notify_all()

    def swap(self, model: ServedModel) -> ServedModel:
        """Requests that start from now on use this model. Returns the one before."""
        with self._changed:
            before, self.model = self.model, model
        return before

    def wait_unused(self, model: ServedModel) -> None:
        """Wait until the last request that uses a replaced model has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users[model.classifier])
            del self._users[model.classifier]
