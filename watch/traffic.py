"""Gentle traffic for the twins, so that there is something to watch."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from eval.dataset.image_set import EncodedImage
from service.schema import PREDICT

TIMEOUT_S = 30


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
        while not self._stop.wait(chance.expovariate(self._rate_rps)):
            succeeded = post(url, chance.choice(self._images))
            with self._lock:
                self.sent += 1
                self.failed += not succeeded


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
