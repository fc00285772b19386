"""Images sent to a service at a steady rate; their kind may change at any time."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from scripts.simulations.drift.answers import Source
from scripts.simulations.drift.kinds import EQUAL, Kind
from service.schema import PREDICT

THREADS = 6  # each waits for its answer
TIMEOUT_S = 30
MAX_LATE_S = 1.0  # more is not made up for: it would come as a burst


class Sender:
    """Sends until the context is left; at random intervals, late where the service is slower than the rate."""

    def __init__(self, url: str, images: Sequence[Source], rate_rps: float, seed: int):
        self._address, self._images, self._seed = urlsplit(url).netloc, images, seed
        self._each_rps = rate_rps / THREADS
        self._truth = np.array([image.truth for image in images])
        self._lock = threading.Lock()  # guards what follows
        self._cumulative, self._kind = self._weights(EQUAL), EQUAL
        self._answered = self._failed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(at,), daemon=True) for at in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def switch(self, kind: Kind) -> None:
        """Send images of this kind from now on, and count anew."""
        weights = self._weights(kind)
        with self._lock:
            self._kind, self._cumulative, self._answered, self._failed = kind, weights, 0, 0

    @property
    def counts(self) -> tuple[int, int]:
        """Images answered and failed since the last switch."""
        with self._lock:
            return self._answered, self._failed

    def _weights(self, kind: Kind) -> np.ndarray:
        return kind.weights(self._truth).cumsum()

    def _send(self, thread: int) -> None:
        chance, noise = random.Random(self._seed + thread), np.random.default_rng(self._seed + thread)
        with closing(http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)) as connection:
            due = time.monotonic()
            while True:
                due = max(due + chance.expovariate(self._each_rps), time.monotonic() - MAX_LATE_S)
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                self._send_one(connection, chance, noise)

    def _send_one(
        self, connection: http.client.HTTPConnection, chance: random.Random, noise: np.random.Generator
    ) -> None:
        with self._lock:
            kind, cumulative = self._kind, self._cumulative
        at = min(int(np.searchsorted(cumulative, chance.random())), len(self._images) - 1)
        with Image.open(self._images[at].path) as image:
            data = kind.png(image, noise)
        succeeded = _post(connection, data)
        with self._lock:
            if self._kind is kind:
                self._answered += succeeded
                self._failed += not succeeded


def _post(connection: http.client.HTTPConnection, data: bytes) -> bool:
    """Whether the service predicted; the connection is opened again where it has to be."""
    try:
        connection.request("POST", PREDICT, data, {"Content-Type": "image/png"})
        reply = connection.getresponse()
        reply.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    return reply.status == http.client.OK
