"""The service as `observed_app:app`, told by a file when to observe, and telling what that took.

The file OBSERVE is mapped. Its first byte is OFF, ON or TIMED: inputs are observed unless it is OFF; while it is
TIMED a number at SPENT_AT grows by the processor time, in nanoseconds, that the requests' threads spend on it. The
clocks cost as much as what they time, so that they run only then.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

OFF, ON, TIMED = range(3)
SPENT_AT, FILE_BYTES = 8, 16
SPENT = struct.Struct("<q")


def map_file(path: Path) -> mmap.mmap:
    """The file, for both processes to read and write."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), FILE_BYTES)


def __getattr__(name: str) -> object:
    """`app`, made when the server asks for it: the benchmark imports this module too."""
    if name != "app":
        raise AttributeError(name)
    from service.app import create_app
    from service.monitoring.model_monitor import ModelMonitor
    from service.schema import Prediction
    from service.settings import Settings

    shared, lock, observe = map_file(Path(os.environ["OBSERVE"])), threading.Lock(), ModelMonitor.observe

    def observe_if_on(self: ModelMonitor, inputs: Sequence[np.ndarray], predictions: Sequence[Prediction]) -> None:
        if shared[0] == ON:
            observe(self, inputs, predictions)
        elif shared[0] == TIMED:
            started_ns = time.thread_time_ns()
            observe(self, inputs, predictions)
            spent_ns = time.thread_time_ns() - started_ns
            with lock:
                SPENT.pack_into(shared, SPENT_AT, SPENT.unpack_from(shared, SPENT_AT)[0] + spent_ns)

    ModelMonitor.observe = observe_if_on
    return create_app(settings=Settings.from_env(os.environ))
