import math
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher import Batcher
from service.client_connection import ClientConnection
from service.errors import ClientDisconnected, QueueFull, RequestAbandoned, ServiceUnavailable

LIMITS = {"max_queue": 4, "batch_max": 3}
FOR_EVER_S = 10_000


def picture(value: float) -> np.ndarray:
    return np.full((3, 2, 2), value, np.float32)


def values(passes) -> list[float]:
    return [float(row[0]) for row in passes.rows]


def echo(batch):
    """A network that answers each picture with its own value."""
    return batch[:, 0, 0, :1]


class Gate:
    """The same, only when it is let; it remembers what it was given."""

    def __init__(self, run=echo):
        self.run = run
        self.entered = threading.Semaphore(0)  # one for each pass that has begun
        self.open = threading.Event()
        self.seen = []

    @property
    def sizes(self):
        return [len(batch) for batch in self.seen]

    def __call__(self, batch):
        self.seen.append(batch[:, 0, 0, 0].tolist())
        self.entered.release()
        assert self.open.wait(30)
        return self.run(batch)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(64) as pool:
        yield pool


def occupied(gate, pool, **limits):
    """A batcher whose thread is inside a pass, and the call that put it there."""
    batcher = Batcher(gate, **(LIMITS | limits))
    first = pool.submit(batcher.run, [picture(0)])
    assert gate.entered.acquire(timeout=30)
    return batcher, first


def fill(batcher, pool, *requests, connection=None):
    """Put these requests' pictures in the queue, in this order; returns when they wait there."""
    calls = []
    for request in requests:
        pictures = [picture(value) for value in (request if isinstance(request, list) else [request])]
        wanted = batcher.depth() + len(pictures)
        calls.append(pool.submit(batcher.run, pictures, connection))
        while batcher.depth() < wanted:
            assert not calls[-1].done(), calls[-1].exception()
            time.sleep(0.0005)
    return calls


# Whose answer it is


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=24),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.001]),
    st.booleans(),
)
def test_every_request_gets_its_own_answers_in_any_order(pool, sizes, batch_max, wait_s, caller_may_run):
    batcher = Batcher(echo, max_queue=10_000, batch_max=batch_max, batch_wait_s=wait_s, caller_may_run=caller_may_run)
    sent = [[picture(100 * caller + i) for i in range(size)] for caller, size in enumerate(sizes)]
    for pictures, passes in zip(sent, pool.map(batcher.run, sent), strict=True):
        assert values(passes) == [p[0, 0, 0] for p in pictures]
    assert batcher.depth() == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=16), st.integers(1, 8), st.booleans()
)
def test_an_image_that_cannot_be_computed_fails_its_own_request(pool, poisoned, batch_max, caller_may_run):
    def run(batch):
        if (batch < 0).any():
            raise FloatingPointError(f"{(batch < 0).sum() // 12} bad")
        return echo(batch)

    batcher, number = Batcher(run, max_queue=10_000, batch_max=batch_max, caller_may_run=caller_may_run), count(1)
    sent = [[picture(-next(number) if bad else next(number)) for bad in request] for request in poisoned]
    calls = [pool.submit(batcher.run, pictures) for pictures in sent]
    for request, pictures, call in zip(poisoned, sent, calls, strict=True):
        if any(request):
            with pytest.raises(FloatingPointError, match=r"^1 bad$"):
                call.result(30)
        else:
            assert values(call.result(30)) == [p[0, 0, 0] for p in pictures]
    assert batcher.alive()


@pytest.mark.parametrize("caller_may_run", [False, True])
@pytest.mark.parametrize("pictures", [1, 2])
def test_engine_with_too_few_rows_is_a_failure_not_a_hang(caller_may_run, pictures):
    batcher = Batcher(lambda batch: batch[:0, 0, 0, :1], **LIMITS, caller_may_run=caller_may_run)
    for _ in range(2):
        with pytest.raises(ValueError, match="0 rows for 1 images"):
            batcher.run([picture(1)] * pictures)


# Who runs it


def test_lone_image_runs_on_its_callers_thread_if_engine_allows(pool):
    for caller_may_run in (True, False):
        ran_in = []
        batcher = Batcher(
            lambda batch, ran_in=ran_in: ran_in.append(threading.get_ident()) or echo(batch),
            **LIMITS, caller_may_run=caller_may_run,
        )  # fmt: skip
        for pictures in ([picture(1)], [picture(2)], [picture(3), picture(4)], [picture(5)]):
            assert len(values(batcher.run(pictures))) == len(pictures)
        own = threading.get_ident()
        assert [ident == own for ident in ran_in] == [caller_may_run, caller_may_run, False, caller_may_run]


def test_images_arriving_in_a_callers_pass_share_the_next_one(gate, pool):
    batcher, first = occupied(gate, pool, caller_may_run=True)
    calls = fill(batcher, pool, 1, 2, 3)
    assert gate.sizes == [1]  # one pass at a time, whoever runs it
    gate.open.set()
    assert [values(call.result(30)) for call in (first, *calls)] == [[0], [1], [2], [3]]
    assert gate.sizes == [1, 3]


def test_batcher_thread_runs_the_image_after_a_shared_pass(gate, pool):
    batcher, first = occupied(gate, pool, caller_may_run=True, batch_wait_s=0)
    calls = fill(batcher, pool, 1, 2)
    gate.open.set()
    for call in (first, *calls):
        call.result(30)
    ran_in = []
    gate.run = lambda batch: ran_in.append(threading.current_thread().name) or echo(batch)
    for value in (3, 4):
        batcher.run([picture(value)])
    assert ran_in == ["batcher", threading.current_thread().name]


# What runs together, and when


def test_what_waits_together_runs_together_up_to_the_limit(gate, pool):
    batcher, first = occupied(gate, pool)
    calls = fill(batcher, pool, 1, 2, 3, 4)
    gate.open.set()
    assert [values(call.result(30)) for call in (first, *calls)] == [[0], [1], [2], [3], [4]]
    assert gate.sizes == [1, 3, 1]


def test_single_image_after_a_batch_of_64_is_in_the_next_pass(gate, pool):
    batcher, _ = occupied(gate, pool, max_queue=100, batch_max=16)
    many, single = fill(batcher, pool, list(range(1, 65)), 99)
    gate.open.set()
    assert values(many.result(30)) == list(range(1, 65))
    assert values(single.result(30)) == [99]
    assert 99 in gate.seen[1]
    assert gate.sizes == [1, 16, 16, 16, 16, 1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 8))
def test_request_waits_at_most_one_turn_of_each_earlier_request(pool, sizes, batch_max):
    gate = Gate()
    batcher, _ = occupied(gate, pool, max_queue=10_000, batch_max=batch_max)
    requests = [[1000 * (place + 1) + i for i in range(size)] for place, size in enumerate(sizes)]
    calls = fill(batcher, pool, *requests)
    gate.open.set()
    assert [values(call.result(30)) for call in calls] == requests
    order = [value for batch in gate.seen[1:] for value in batch]
    for place, (first, *_) in enumerate(requests):
        assert order.index(first) == place
    assert len(gate.seen) - 1 == math.ceil(sum(sizes) / batch_max)


def test_a_lone_caller_is_never_made_to_wait_for_company():
    sizes = []
    batcher = Batcher(lambda batch: sizes.append(len(batch)) or echo(batch), **LIMITS, batch_wait_s=FOR_EVER_S)
    assert [values(batcher.run([picture(i)])) for i in range(5)] == [[i] for i in range(5)]
    assert values(batcher.run([picture(i) for i in range(4)])) == [0, 1, 2, 3]
    assert sizes == [1, 1, 1, 1, 1, 3, 1]


def test_after_a_pass_its_callers_are_waited_for(gate, pool):
    batcher, first = occupied(gate, pool, max_queue=9, batch_max=8, batch_wait_s=FOR_EVER_S)
    fill(batcher, pool, 1, 2)
    gate.open.set()
    first.result(30)
    assert values(batcher.run([picture(3)])) == [3]
    assert gate.sizes == [1, 3]


def test_a_full_pass_waits_for_nobody(gate, pool):
    batcher, _ = occupied(gate, pool, max_queue=9, batch_max=2, batch_wait_s=FOR_EVER_S)
    calls = fill(batcher, pool, 1, 2, 3, 4)
    gate.open.set()
    assert [values(call.result(30)) for call in calls] == [[1], [2], [3], [4]]
    assert gate.sizes == [1, 2, 2]


def test_observer_sees_every_pass_before_its_callers_resume(gate, pool):
    waits_s = []
    batcher, first = occupied(gate, pool)
    batcher.on_pass = lambda pictures, seconds: waits_s.append((pictures, seconds > 0))
    calls = fill(batcher, pool, 1, 2)
    gate.open.set()
    for call in (first, *calls):
        call.result(30)
    assert waits_s == [(1, True), (2, True)]


# The bound


def test_full_queue_refuses_at_once_and_accepts_when_empty(gate, pool):
    batcher, _ = occupied(gate, pool)
    assert batcher.has_room()
    calls = fill(batcher, pool, 1, 2, 3, 4)
    assert not batcher.has_room()
    with pytest.raises(QueueFull, match=r"queue full \(4/4\) for 1 more input; try again in 1 s") as caught:
        batcher.run([picture(5)])
    with pytest.raises(QueueFull, match=r"queue full \(4/4\) for 3 more inputs"):
        batcher.run([picture(5)] * 3)
    assert caught.value.retry_after_s == 1
    gate.open.set()
    for call in calls:
        call.result(30)
    assert batcher.has_room()
    assert "queue full (4/4)" in batcher.queue_full().detail  # for who found it full a moment ago
    assert values(batcher.run([picture(6)])) == [6]


def test_retry_after_grows_with_the_queue(gate, pool):
    batcher, _ = occupied(gate, pool)
    batcher._update_service_time(2.5)
    waits_s = []
    for value in (1, 2, 3, 4):
        fill(batcher, pool, value)
        waits_s.append(batcher.queue_full().retry_after_s)
    assert waits_s == [3, 5, 8, 10]


def test_a_callers_images_are_queued_together_or_not_at_all(gate, pool):
    batcher, _ = occupied(gate, pool)
    fill(batcher, pool, 1, 2)
    with pytest.raises(QueueFull):
        batcher.run([picture(3)] * 3)
    assert batcher.depth() == 2


def test_an_empty_queue_takes_a_batch_larger_than_itself():
    batcher = Batcher(echo, **LIMITS)
    assert values(batcher.run([picture(i) for i in range(9)])) == list(range(9))


# Callers who are gone


def test_nobody_waits_longer_than_the_longest_wait(gate, pool):
    batcher, first = occupied(gate, pool, max_wait_s=0.2)
    with pytest.raises(RequestAbandoned, match=r"no prediction within 0\.2 s"):
        batcher.run([picture(1)])
    assert isinstance(first.exception(30), RequestAbandoned)
    gate.open.set()
    while batcher.depth():
        time.sleep(0.0005)
    assert values(batcher.run([picture(2)])) == [2]
    assert gate.seen == [[0], [2]]


def test_images_whose_client_has_gone_enter_no_pass(gate, pool):
    batcher, _ = occupied(gate, pool, max_queue=6)
    staying, leaving = ClientConnection(), ClientConnection()
    calls = []
    for number, connection in enumerate((leaving, staying, leaving), 1):
        calls += fill(batcher, pool, [number] * 2, connection=connection)
    leaving.closed = True
    gate.open.set()
    assert isinstance(calls[0].exception(30), ClientDisconnected)
    assert values(calls[1].result(30)) == [2, 2]
    assert isinstance(calls[2].exception(30), ClientDisconnected)
    assert {value for batch in gate.seen for value in batch} == {0, 2}
    assert batcher.depth() == 0
    with pytest.raises(ClientDisconnected):
        batcher.run([picture(4)], leaving)


def test_a_batch_ends_between_two_passes_when_its_client_goes(gate, pool):
    connection = ClientConnection()
    batcher = Batcher(gate, **(LIMITS | {"batch_max": 1}))
    call = pool.submit(batcher.run, [picture(number) for number in range(5)], connection)
    assert gate.entered.acquire(timeout=30)
    connection.closed = True
    gate.open.set()
    assert isinstance(call.exception(30), ClientDisconnected)
    assert gate.seen == [[0]]


# The end


@pytest.mark.parametrize("caller_may_run", [False, True])
def test_closing_ends_the_thread_and_frees_the_network(caller_may_run):
    network = Gate()
    network.open.set()
    alive = weakref.ref(network)
    batcher = Batcher(network, **LIMITS, caller_may_run=caller_may_run)
    batcher.run([picture(1)])
    del network
    batcher.close()
    assert not batcher.alive() and alive() is None
    with pytest.raises(ServiceUnavailable):
        batcher.run([picture(1)])


def test_closing_answers_first_what_is_queued(gate):
    batcher = Batcher(gate, **LIMITS)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.run, [picture(1)])
        assert gate.entered.acquire(timeout=30)
        second = pool.submit(batcher.run, [picture(value) for value in (2, 3)])
        while batcher.depth() < 2:
            time.sleep(0.001)
        closing = pool.submit(batcher.close)
        gate.open.set()
        closing.result(30)
        assert [values(each.result(30)) for each in (first, second)] == [[1], [2, 3]]
