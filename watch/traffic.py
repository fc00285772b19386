"""Gentle traffic for the twins, so that there is something to watch."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from eval.dataset.image_set import EncodedImage
from service.schema import PREDICT

TIMEOUT_S = 30
CATCH_UP_S = 1.0  # of requests that slow answers held up are sent afterwards: a twin that hung is not flooded


class Traffic:
    """Posts images in random order to each address, at random intervals, until the context is left."""

    def __init__(self, urls: Sequence[str], images: Sequence[EncodedImage], rate_rps: float):
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.sent = self.failed = 0
        self._images, self._rate_rps = images, rate_rps
        # Daemons: one that waits for an answer holds no program back from ending
        self._threads = [threading.Thread(target=self._send, args=(url,), daemon=True) for url in urls]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()

    def _send(self, url: str) -> None:
        chance = random.Random(url)
        for wait_s in waits(lambda: chance.expovariate(self._rate_rps), time.monotonic):
            if self._stop.wait(wait_s):
                return
            succeeded = post(url, chance.choice(self._images))
            with self._lock:
                self.sent += 1
                self.failed += not succeeded


def waits(next_gap_s: Callable[[], float], clock: Callable[[], float]) -> Iterator[float]:
    """How long to wait before each request, so that their rate does not depend on how long answers take."""
    due = clock()
    while True:
        due = max(due + next_gap_s(), clock() - CATCH_UP_S)
        yield max(0.0, due - clock())


def post(url: str, image: EncodedImage) -> bool:
    """Whether the service predicted."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", PREDICT, image.data, {"Content-Type": image.media_type})
        response = connection.getresponse()
        response.read()
        return response.status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
