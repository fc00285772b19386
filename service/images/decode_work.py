"""What decoding may cost: a budget per request, and turns, so that requests whose decoding is long wait in line.

Small images are decoded at once. A request that turns out to be more work than that waits for its turn in the middle of
it, is refused where too many wait, and is given up after its deadline or when its client has disconnected.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from service.client_connection import ClientConnection
from service.errors import QueueFull, RequestAbandoned, UnprocessableImage
from service.schema import MAX_PIXELS, MAX_REQUEST_PIXELS

QUICK_PIXELS = 256 * 256  # of a request that needs no turn: a few milliseconds
QUICK_READS = 4_000  # the same, of reads; a 32 x 32 PNG takes about 30
QUICK_BYTES = 64 * 1024  # the same, of a body: parts, text and base64 are copies of it
CHECKED_READS = 64  # the limits are looked at once in so many: a small image has about 30, and is to stay cheap
MAX_READS = 200_000  # of the files of a request, each some microsecond
MAX_SCAN_PIXELS = 20 * MAX_PIXELS  # pixels times scans of the JPEGs of a request; most progressive ones have 10 scans
MAX_TURN_WAIT_S = 10.0  # a request that would wait longer for its turn is refused
DEADLINE_S = 30.0  # the time-out of the slowest front, Heroku's router
SMOOTHING = 0.2  # weight of the latest turn in the running mean


class DecodeTurns:
    """Lets a few requests decode at once. The others wait, in the order in which they came."""

    def __init__(self, at_once: int):
        self._at_once = at_once
        self._free = threading.Semaphore(at_once)
        self._lock = threading.Lock()  # guards the three below
        self._waiting = 0
        self._of_batches = 0
        self._turn_s = 0.0  # running mean

    def undecoded(self) -> int:
        """Requests that wait for their turn, and images of the batches that are being decoded."""
        return self._waiting + self._of_batches

    def begin_batch(self, images: int, has_room: Callable[[int, int], bool]) -> bool:
        """Count the images of a batch until `end_batch`, if has_room(images, undecoded) says that they fit."""
        with self._lock:
            fits = has_room(images, self.undecoded())
            self._of_batches += images * fits
        return fits

    def end_batch(self, images: int) -> None:
        """They are decoded, or never will be."""
        with self._lock:
            self._of_batches -= images

    def take(self, deadline: float) -> None:
        """Wait for a turn. Raises QueueFull at once, or RequestAbandoned at the deadline, time.monotonic()."""
        with self._lock:
            wait_s = self._waiting * self._turn_s / self._at_once
            if wait_s > MAX_TURN_WAIT_S:
                message = f"{self._waiting} requests wait to be decoded, about {wait_s:.0f} s"
                raise QueueFull(f"{message}; try again then, or send smaller images", math.ceil(wait_s))
            self._waiting += 1
        try:
            taken = self._free.acquire(timeout=max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
        finally:
            with self._lock:
                self._waiting -= 1
        if not taken:
            raise given_up()

    def give_back(self, used_s: float) -> None:
        """End a turn that took this long."""
        with self._lock:
            self._turn_s += SMOOTHING * (used_s - self._turn_s)
        self._free.release()


class DecodeWork:
    """What one request has spent on decoding. A context manager: its end gives back the turn, if one was taken."""

    def __init__(
        self, turns: DecodeTurns | None = None, deadline: float = math.inf, connection: ClientConnection | None = None
    ):
        self._turns = turns
        self._deadline = deadline  # time.monotonic()
        self._connection = connection or ClientConnection()
        self._reads = 0
        self._pixels = 0
        self._scan_pixels = 0
        self._batch_images = 0
        self._turn_started: float | None = None

    def __enter__(self) -> DecodeWork:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._turns and self._batch_images:
            self._turns.end_batch(self._batch_images)
            self._batch_images = 0
        if self._turns and self._turn_started is not None:
            self._turns.give_back(time.monotonic() - self._turn_started)
            self._turn_started = None

    def add_read(self) -> None:
        """Charge one read of a file. Raises UnprocessableImage over the limit, and RequestAbandoned."""
        self._reads += 1
        if self._reads % CHECKED_READS:
            return
        if self._reads > QUICK_READS:
            if self._reads > MAX_READS:
                raise UnprocessableImage(f"the file has too many parts (over {MAX_READS} reads); save it again")
            self.take_turn()
        self.check_deadline()

    def add_bytes(self, count: int) -> None:
        """Charge a body, before it is parsed."""
        if count > QUICK_BYTES:
            self.take_turn()

    def add_pixels(self, pixels: int, scans: int = 1) -> None:
        """Charge an image, before it is decoded. Raises UnprocessableImage over the limits, and RequestAbandoned."""
        if pixels > MAX_PIXELS:
            limit = f"count as {pixels / 1e6:.1f} million; at most {MAX_PIXELS / 1e6:g} million are read"
            raise UnprocessableImage(f"the pixels of this kind of file {limit}, so scale it down")
        self._pixels += pixels
        if self._pixels > MAX_REQUEST_PIXELS:
            limit = f"at most {MAX_REQUEST_PIXELS / 1e6:g} million pixels are read in one request"
            raise UnprocessableImage(f"the images up to this one are {self._pixels / 1e6:.1f} million; {limit}")
        self._scan_pixels += pixels * scans
        if self._scan_pixels > MAX_SCAN_PIXELS:
            found = f"{scans} scans of {pixels / 1e6:.1f} million pixels"
            raise UnprocessableImage(f"the JPEG has {found}, too much work; save it with fewer scans, or scale it down")
        self.check_deadline()
        if self._pixels > QUICK_PIXELS or self._scan_pixels > 4 * QUICK_PIXELS:
            self.take_turn()

    def begin_batch(self, images: int, has_room: Callable[[int, int], bool]) -> bool:
        """Before any of them is decoded: whether the queue has room for them beside those of other requests."""
        fits = self._turns is None or self._turns.begin_batch(images, has_room)
        self._batch_images += images * fits
        return fits

    def take_turn(self) -> None:
        """Wait for this request's turn, if it has none yet."""
        if self._turns and self._turn_started is None:
            self._turns.take(self._deadline)
            self._turn_started = time.monotonic()
            self._connection.check()

    def check_deadline(self) -> None:
        """Raises RequestAbandoned once the deadline is over, and ClientDisconnected."""
        self._connection.check()
        if time.monotonic() > self._deadline:
            raise given_up()


def given_up() -> RequestAbandoned:
    return RequestAbandoned(f"not decoded within {DEADLINE_S:g} s; try again later, or send smaller images", 1)
