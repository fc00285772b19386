"""The last predictions of this process, until somebody says what was true. Knows nothing of HTTP.

It is bounded twice: by the number of predictions, and, where images are kept, by the bytes of those that wait for their
feedback. Beyond either the oldest is forgotten first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.errors import AlreadyJudged, AnswerForgotten, AnswerUnknown, UnknownInput, UnknownLabel, quoted

MAX_IMAGE_BYTES = 32 * 2**20  # of images that wait for their feedback, all together
MAX_NAMES = 12  # of classes in one message


@dataclass(slots=True)
class Answer:
    """One answer. It holds no model: one that was replaced is freed meanwhile."""

    version: str  # of the model that gave it
    classes: tuple[str, ...]  # of that model
    class_ids: Sequence[int]  # predicted, one for each input of the request
    images: Sequence[bytes] = ()  # their files, where these are kept
    true_ids: dict[int, int] = field(default_factory=dict)  # index of an input -> its true class, once it was said


@dataclass(frozen=True, slots=True)
class Judgement:
    """What feedback says of one prediction."""

    version: str  # of the model that answered
    label: str  # the true class
    predicted: str
    is_new: bool  # False: the same was said before
    image: bytes | None  # its file; None where no image is kept, or it is forgotten

    @property
    def is_right(self) -> bool:
        return self.label == self.predicted


class AnswerMemory:
    """Answers by the ordinals of their requests. Any number of threads may use it at once."""

    def __init__(self, max_predictions: int, max_image_bytes: int = MAX_IMAGE_BYTES):
        self._max_predictions, self._max_image_bytes = max_predictions, max_image_bytes
        self._answers: OrderedDict[int, Answer] = OrderedDict()  # in the order in which they were given
        self._with_images: OrderedDict[int, Answer] = OrderedDict()  # those of them whose images are still here
        self._predictions = 0
        self._image_bytes = 0
        self._newest_forgotten = 0  # ordinal
        self._lock = threading.Lock()  # guards all of it

    def __len__(self) -> int:
        """Predictions that are remembered."""
        return self._predictions

    @property
    def image_bytes(self) -> int:
        return self._image_bytes

    def remember(self, ordinal: int, answer: Answer) -> None:
        """Keep an answer in mind, and forget the oldest where there is no room."""
        with self._lock:
            self._answers[ordinal] = answer
            self._predictions += len(answer.class_ids)
            if answer.images:
                self._with_images[ordinal] = answer
                self._image_bytes += sum(map(len, answer.images))
            while self._predictions > self._max_predictions:
                oldest, forgotten = self._answers.popitem(last=False)
                self._predictions -= len(forgotten.class_ids)
                self._newest_forgotten = max(self._newest_forgotten, oldest)
                self._forget_images(oldest)
            while self._image_bytes > self._max_image_bytes:
                self._forget_images(next(iter(self._with_images)))

    def _forget_images(self, ordinal: int) -> None:
        if answer := self._with_images.pop(ordinal, None):
            self._image_bytes -= sum(map(len, answer.images))
            answer.images = ()

    def judge(self, ordinal: int, index: int | None, label: str) -> Judgement:
        """Note the true class of one prediction. Raises FeedbackProblem; the same said twice counts once."""
        with self._lock:
            answer = self._find(ordinal)
            place = _place(ordinal, len(answer.class_ids), index)
            true_id = _class_id(answer.classes, label)
            known = answer.true_ids.get(place)
            if known is not None and known != true_id:
                found = f"prediction {ordinal} was judged before, as {quoted(answer.classes[known])}"
                raise AlreadyJudged(f"{found}; the first judgement counts and is not changed")
            answer.true_ids[place] = true_id
            return Judgement(
                version=answer.version,
                label=label,
                predicted=answer.classes[answer.class_ids[place]],
                is_new=known is None,
                image=answer.images[place] if answer.images else None,
            )

    def _find(self, ordinal: int) -> Answer:
        if answer := self._answers.get(ordinal):
            return answer
        if ordinal <= self._newest_forgotten:
            kept = f"this instance remembers its last {self._max_predictions} predictions"
            raise AnswerForgotten(f"prediction {ordinal} is forgotten; {kept}")
        raise AnswerUnknown(
            f"there is no prediction {ordinal}; send the X-Request-Ordinal of an answer that has a prediction"
        )


def _place(ordinal: int, inputs: int, index: int | None) -> int:
    """Which of a request's inputs is meant."""
    if index is None and inputs > 1:
        raise UnknownInput(f"answer {ordinal} has {inputs} predictions; say which by index, 0 to {inputs - 1}")
    if (index or 0) >= inputs:
        raise UnknownInput(f"index is {index}; answer {ordinal} has the predictions 0 to {inputs - 1}")
    return index or 0


def _class_id(classes: tuple[str, ...], label: str) -> int:
    try:
        return classes.index(label)
    except ValueError:
        names = ", ".join(classes[:MAX_NAMES]) + (f" and {more} more" if (more := len(classes) - MAX_NAMES) > 0 else "")
        raise UnknownLabel(f"{quoted(label)} is no class of the model that answered; use one of: {names}") from None
