"""Feedback on this process's predictions: remembered answers, counters, and images where they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from service.classifier import Classifier
from service.errors import FeedbackProblem, OtherInstance, Problem, quoted
from service.feedback.counters import FeedbackCounters
from service.feedback.kept_images import KeptImages
from service.feedback.memory import Answer, AnswerMemory, Judgement
from service.schema import Prediction
from service.settings import Settings

MALFORMED = "malformed"  # the reason where the request itself cannot be read


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a client says of one prediction."""

    instance: str  # X-Instance-Id of the answer
    ordinal: int  # its X-Request-Ordinal
    label: str  # the true class
    index: int | None = None  # which of the answer's predictions, from 0; needed where there are several


class FeedbackRecorder:
    """Remembers answers and takes feedback on them."""

    def __init__(self, instance_id: str, registry: CollectorRegistry, settings: Settings):
        self._instance_id = instance_id
        self._counters = FeedbackCounters(registry)
        self.memory = AnswerMemory(settings.feedback_memory)
        self.is_on = settings.feedback_memory > 0
        folder = settings.keep_images
        self.kept_images = KeptImages(folder, settings.keep_images_mb * 10**6) if folder else None

    def remember(
        self, ordinal: int, model: Classifier, predictions: Sequence[Prediction], images: Sequence[bytes]
    ) -> None:
        """Keep an answer in mind until its feedback comes."""
        class_ids = [prediction.class_id for prediction in predictions]
        self.memory.remember(ordinal, Answer(model.info.version, model.classes, class_ids, images))

    @contextmanager
    def counting_refusals(self) -> Iterator[None]:
        """Counts a Problem by its reason."""
        try:
            yield
        except Problem as problem:
            self._counters.refused(problem.reason if isinstance(problem, FeedbackProblem) else MALFORMED)
            raise

    def record(self, feedback: Feedback) -> dict[str, str | bool]:
        """Count it for the version that answered. Returns what was counted. Raises FeedbackProblem."""
        if feedback.instance != self._instance_id:
            found = f"instance {quoted(feedback.instance)} has answered, and this is {self._instance_id}"
            raise OtherInstance(f"{found}; each remembers its own answers, and one that has ended none")
        judgement = self.memory.judge(feedback.ordinal, feedback.index, feedback.label)
        if judgement.is_new:
            self._counters.judged(judgement.version, judgement.label, is_right=judgement.is_right)
        return {
            "outcome": "right" if judgement.is_right else "wrong",
            "label": judgement.label,
            "predicted": judgement.predicted,
            "version": judgement.version,
            "kept": self._keep(judgement),
        }

    def _keep(self, judgement: Judgement) -> bool:
        return bool(self.kept_images and judgement.image and self.kept_images.keep(judgement.label, judgement.image))
