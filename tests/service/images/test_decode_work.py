"""Turns and budgets of decoding, with threads and events of the tests' own."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.client_connection import ClientConnection
from service.errors import ClientDisconnected, QueueFull, RequestAbandoned, UnprocessableImage
from service.images import image_file
from service.images.decode_work import (
    CHECKED_READS,
    MAX_TURN_WAIT_S,
    QUICK_PIXELS,
    QUICK_READS,
    DecodeTurns,
    DecodeWork,
)
from service.images.preprocess import decode_image, preview_uri
from service.schema import MAX_PIXELS, MAX_REQUEST_PIXELS
from tests.conftest import picture_bytes
from tests.service.images.test_preprocess import BUNDLE

BIG = QUICK_PIXELS + 1


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def until(fact):
    while not fact():
        time.sleep(0.001)


def test_images_of_a_batch_count_until_its_end():
    turns, seen = DecodeTurns(1), []

    def has_room(images: int, undecoded: int) -> bool:
        seen.append((images, undecoded))
        return not undecoded

    with DecodeWork(turns) as first, DecodeWork(turns) as second:
        assert first.begin_batch(3, has_room) and not second.begin_batch(2, has_room)
        assert (turns.undecoded(), seen) == (3, [(3, 0), (2, 3)])
    assert turns.undecoded() == 0


def test_small_work_needs_no_turn():
    turns = DecodeTurns(1)
    with DecodeWork(turns) as holder, DecodeWork(turns) as small:
        holder.add_pixels(BIG)
        small.add_pixels(QUICK_PIXELS)
        for _ in range(QUICK_READS):
            small.add_read()
        assert decode_image(picture_bytes(), BUNDLE, DecodeWork(turns)).shape == (3, 32, 32)


@pytest.mark.parametrize(
    "charge",
    [
        lambda work: work.add_pixels(BIG),
        lambda work: [work.add_pixels(QUICK_PIXELS // 2) for _ in range(3)],
        lambda work: work.add_pixels(QUICK_PIXELS // 2, scans=20),
        lambda work: [work.add_read() for _ in range(QUICK_READS + CHECKED_READS)],
        lambda work: work.add_bytes(2**20),
    ],
    ids=["a large image", "several images", "scans", "reads", "text"],
)
def test_large_work_waits_for_its_turn(charge, pool):
    turns = DecodeTurns(1)

    def go():
        with DecodeWork(turns) as work:
            charge(work)

    with DecodeWork(turns) as holder:
        holder.add_pixels(BIG)
        second = pool.submit(go)
        until(lambda: turns.undecoded() == 1)
        assert not second.done()
    second.result(30)
    assert turns.undecoded() == 0


def test_a_request_gives_up_waiting_at_its_deadline():
    turns = DecodeTurns(1)
    with DecodeWork(turns) as holder, DecodeWork(turns, time.monotonic() + 0.05) as late:
        holder.add_pixels(BIG)
        with pytest.raises(RequestAbandoned, match="not decoded within 30 s"):
            late.add_pixels(BIG)
    assert turns.undecoded() == 0


def test_decoding_ends_at_its_deadline():
    with pytest.raises(RequestAbandoned):
        decode_image(picture_bytes(), BUNDLE, DecodeWork(deadline=time.monotonic() - 1))


def test_decoding_ends_when_its_client_has_gone(pool):
    turns, connection = DecodeTurns(1), ClientConnection()

    def go():
        with DecodeWork(turns, connection=connection) as work:
            work.add_pixels(BIG)

    with DecodeWork(turns) as holder:
        holder.add_pixels(BIG)
        waiting = pool.submit(go)
        until(lambda: turns.undecoded() == 1)
        connection.closed = True
    assert isinstance(waiting.exception(30), ClientDisconnected)
    with pytest.raises(ClientDisconnected):
        decode_image(picture_bytes(), BUNDLE, DecodeWork(connection=connection))
    turns.take(math.inf)


def test_a_large_preview_waits_without_holding_the_lock(pool):
    photo, turns = picture_bytes("RGB", (400, 300), "JPEG") + bytes(image_file.BIG_BYTES), DecodeTurns(1)

    def is_free() -> bool:
        free = image_file._one_big_image.acquire(blocking=False)
        if free:
            image_file._one_big_image.release()
        return free

    with DecodeWork(turns) as preview:
        with DecodeWork(turns) as other:
            other.take_turn()
            uri = pool.submit(preview_uri, photo, preview)
            until(lambda: turns.undecoded() == 1)
            assert pool.submit(is_free).result()
        assert uri.result().startswith("data:image/jpeg;base64,")


def test_a_failure_gives_the_turn_back():
    turns = DecodeTurns(1)
    with pytest.raises(UnprocessableImage), DecodeWork(turns) as work:
        decode_image(picture_bytes(size=(900, 900))[:-5000], BUNDLE, work)
    turns.take(math.inf)


def test_a_wait_that_would_be_too_long_is_refused_at_once(pool):
    turns = DecodeTurns(1)
    turns.take(math.inf)
    turns.give_back(100 * MAX_TURN_WAIT_S)  # one that took long
    turns.take(math.inf)
    waiting = pool.submit(turns.take, math.inf)
    until(lambda: turns.undecoded() == 1)
    with pytest.raises(QueueFull, match="1 requests wait to be decoded") as refusal:
        turns.take(math.inf)
    assert refusal.value.retry_after_s > MAX_TURN_WAIT_S
    turns.give_back(0)
    waiting.result(30)


def test_the_images_of_a_request_share_one_budget():
    work = DecodeWork()
    work.add_pixels(MAX_PIXELS)
    work.add_pixels(MAX_REQUEST_PIXELS - MAX_PIXELS)
    with pytest.raises(UnprocessableImage, match="at most 36 million pixels are read in one request"):
        work.add_pixels(1)
