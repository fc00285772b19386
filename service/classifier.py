"""Bundle + engine + batcher -> predictions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.batcher import Batcher
from service.client_connection import ClientConnection
from service.engines import Engine, engine_class
from service.errors import BundleError, Problem, QueueFull
from service.images.decode_work import DEADLINE_S, DecodeTurns, DecodeWork
from service.images.preprocess import decode_image
from service.manifest.records import ImageInput
from service.manifest.self_test import read_self_test
from service.model import Bundle, load_for_engine
from service.monitoring.reference import read_reference
from service.schema import ModelInfo, Prediction
from service.settings import Settings
from service.system import at_low_priority, give_back_memory, process_started_at, usable_cpus

PHASES = ("import", "load", "first_prediction")  # of a start, beginning with the process
PROBABILITY_SUM_TOLERANCE = 0.01
MAX_QUEUE_BYTES = 64 * 2**20  # of inputs that wait: of 224 x 224 pixels 111, of 32 x 32 more than MAX_QUEUE


@dataclass(frozen=True)
class Timings:
    """Where a request's images spent their time."""

    queue_ms: float  # from queueing to the start of the first forward pass
    inference_ms: float  # from there to the end of the last one


class Classifier:
    """A loaded model. Any number of threads may use it at once."""

    def __init__(self, bundle: Bundle, engine: Engine, settings: Settings, decode_turns: DecodeTurns | None = None):
        self.bundle = bundle
        self.classes = bundle.classes
        weights = bundle.engine(engine.name).file
        self.info = ModelInfo(bundle.name, bundle.version(weights), engine.name)
        self.sha256 = bundle.files[weights]
        self.libraries = engine.libraries
        self.details = engine.details
        self.device = engine.device
        self.precision = bundle.engine(engine.name).precision
        self.startup_ms: dict[str, float] = {}
        self.reference = read_reference(bundle, engine.name)
        self.example_row: list[float] = []  # of a model of rows: the first of its self-test
        self.decode_turns = decode_turns or DecodeTurns(usable_cpus())
        self._batcher = Batcher(
            engine.probabilities,
            max_queue=min(settings.max_queue, max(settings.batch_max, MAX_QUEUE_BYTES // _input_bytes(bundle))),
            batch_max=settings.batch_max,
            batch_wait_s=settings.batch_wait_ms / 1000,
            caller_may_run=engine.caller_may_run,
        )

    @classmethod
    def load(cls, settings: Settings, decode_turns: DecodeTurns | None = None) -> Classifier:
        """Read and check the bundle, load the engine, run the self-test. Raises BundleError or SettingsError.

        `decode_turns`: those of the model that it is to replace, and that answers meanwhile: requests of both share
        the processor, and loading leaves it to them.
        """
        clock = [process_started_at()]
        make_engine = engine_class(settings.engine)  # imports its library, the longest part for torch
        clock.append(time.time())
        bundle = load_for_engine(settings.model_dir, settings.engine)
        load_engine = partial(make_engine, bundle, device=settings.device)
        beside_requests = decode_turns is not None and not make_engine.starts_threads  # a thread inherits priority
        engine = at_low_priority(load_engine) if beside_requests else load_engine()
        classifier = cls(bundle, engine, settings, decode_turns)
        clock.append(time.time())
        try:
            classifier.test()
        except BaseException:
            classifier.close()
            raise
        give_back_memory()
        clock.append(time.time())
        phases = {name: after - before for name, before, after in zip(PHASES, clock, clock[1:], strict=False)}
        phases["total"] = clock[-1] - clock[0]
        classifier.startup_ms = {name: round(seconds * 1000, 1) for name, seconds in phases.items()}
        return classifier

    def test(self) -> None:
        """Run the bundle's self-test, one input at a time, as most requests come. Raises BundleError.

        A bundle of schema 1 has none: there a grey image has to give probabilities.
        """
        bundle, engine = self.bundle, self.info.engine
        if bundle.self_test is None:
            found = self._probabilities(np.zeros((3, bundle.image.size_px, bundle.image.size_px), np.float32))
            if not abs(sum(found) - 1) < PROBABILITY_SUM_TOLERANCE:  # NaN is not
                weights = bundle.path(bundle.engine(engine).file)
                raise BundleError(f"{weights} cannot predict: a grey image gives {found[:3]}; export it again")
            return
        features = None if isinstance(bundle.input, ImageInput) else len(bundle.input.features)
        path = bundle.path(bundle.self_test)
        self_test = read_self_test(path, engine, len(self.classes), features)
        self.example_row = self_test.inputs[0] if features else []
        for index, sent in enumerate(self_test.inputs):
            try:
                array = decode_image(sent, bundle) if isinstance(sent, bytes) else np.array(sent, np.float32)
            except Problem as problem:
                raise BundleError(f"{path}: input {index + 1} is no image: {problem.detail}") from None
            if fault := self_test.difference(index, self._probabilities(array), self.classes):
                raise BundleError(f"{bundle.folder} fails its self-test with {engine}: {fault}; export it again")

    def _probabilities(self, array: np.ndarray) -> tuple[float, ...]:
        """Of one input. Raises BundleError for whatever the engine raises, but for a lack of memory, which may pass."""
        try:
            (prediction,), _ = self.classify([array])
        except Exception as error:
            if isinstance(error, MemoryError) or "memory" in str(error).lower():  # as the libraries' own errors say
                raise
            found = f"{self.bundle.folder} cannot predict with {self.info.engine}: {error}"
            raise BundleError(f"{found}; export it again") from None  # its traceback would keep the model in memory
        return prediction.probabilities

    def close(self) -> None:
        """End the thread that runs the model, and free the model. Nothing may be classified afterwards."""
        self._batcher.close()

    def ready(self) -> bool:
        """Whether the thread that runs the model is alive."""
        return self._batcher.alive()

    def watch(self, on_pass: Callable[[int, float], None]) -> None:
        """Call on_pass after every forward pass, with its images and its seconds."""
        self._batcher.on_pass = on_pass

    def queue_depth(self) -> int:
        """Images in the queue."""
        return self._batcher.depth()

    def has_room(self) -> bool:
        """Whether the queue would accept one more image: checked before any work is done for it."""
        return self._batcher.has_room(undecoded=self.decode_turns.undecoded())

    def queue_full(self, images: int = 1) -> QueueFull:
        """The refusal when there is no room."""
        return self._batcher.queue_full(self.decode_turns.undecoded(), images)

    def check_room(self) -> None:
        """Raise QueueFull when there is none."""
        if not self.has_room():
            raise self.queue_full()

    def begin_batch(self, work: DecodeWork, images: int) -> None:
        """Raise QueueFull when there is no room for so many, before any of them is decoded."""
        if not work.begin_batch(images, self._batcher.has_room):
            raise self.queue_full(images)

    def decode_work(self, connection: ClientConnection | None = None) -> DecodeWork:
        """The decoding of a request that starts now."""
        return DecodeWork(self.decode_turns, time.monotonic() + DEADLINE_S, connection)

    def classify(
        self, images: Sequence[np.ndarray], connection: ClientConnection | None = None
    ) -> tuple[list[Prediction], Timings]:
        """One prediction per float32 [3, S, S] image or row. Raises QueueFull, or ClientDisconnected."""
        queued_at = time.perf_counter()
        result = self._batcher.run(images, connection)
        predictions = [Prediction(tuple(row.tolist()), self.classes) for row in result.rows]
        return predictions, Timings((result.started - queued_at) * 1000, (result.ended - result.started) * 1000)


def _input_bytes(bundle: Bundle) -> int:
    """Of one input of the network, in float32."""
    values = 3 * bundle.image.size_px**2 if isinstance(bundle.input, ImageInput) else len(bundle.input.features)
    return 4 * values
