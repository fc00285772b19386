import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.batcher import Batcher
from service.schema import Busy

LIMITS = {"max_queue": 4, "batch_max": 3}


def picture(value: float) -> np.ndarray:
    return np.full((3, 2, 2), value, np.float32)


class Gate:
    """A network that answers each picture with its own value, and only when it is let."""

    def __init__(self):
        self.entered = threading.Semaphore(0)  # one for each pass that has begun
        self.open = threading.Event()
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(len(batch))
        self.entered.release()
        assert self.open.wait(30)
        return batch[:, 0, 0, :1]


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def occupied(gate, **limits):
    """A batcher whose thread is inside a pass, and the call that put it there."""
    batcher, pool = Batcher(gate, **(LIMITS | limits)), ThreadPoolExecutor(16)
    first = pool.submit(batcher.run, [picture(0)])
    assert gate.entered.acquire(timeout=30)
    return batcher, pool, first


def fill(batcher, pool, *values):
    """Put pictures in the queue in this order; returns when they wait there."""
    calls = []
    for value in values:
        with batcher._changed:
            depth = len(batcher._queue)
            calls.append(pool.submit(batcher.run, [picture(value)]))
            assert batcher._changed.wait_for(lambda depth=depth: len(batcher._queue) > depth, 30)
    return calls


def test_each_caller_gets_the_answers_to_its_own_pictures():
    batcher = Batcher(lambda batch: batch[:, 0, 0, :1], max_queue=1000, batch_max=7)
    with ThreadPoolExecutor(32) as pool:
        asked = [[picture(100 * caller + i) for i in range(caller % 5 + 1)] for caller in range(64)]
        for pictures, passes in zip(asked, pool.map(batcher.run, asked), strict=True):
            assert [p.probabilities[0] for p in passes] == [p[0, 0, 0] for p in pictures]


def test_what_waits_together_runs_together_up_to_the_limit(gate):
    batcher, pool, first = occupied(gate)
    calls = fill(batcher, pool, 1, 2, 3, 4)
    gate.open.set()
    assert [call.result(30)[0].probabilities[0] for call in (first, *calls)] == [0, 1, 2, 3, 4]
    assert gate.sizes == [1, 3, 1]


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_is_empty(gate):
    batcher, pool, _ = occupied(gate)
    calls = fill(batcher, pool, 1, 2, 3, 4)
    with pytest.raises(Busy, match="4 pictures wait already, at most 4 may") as caught:
        batcher.run([picture(5)])
    assert caught.value.retry_after_s == 1
    gate.open.set()
    for call in calls:
        call.result(30)
    assert batcher.run([picture(6)])[0].probabilities[0] == 6


def test_retry_after_grows_with_the_queue(gate):
    batcher, pool, _ = occupied(gate)
    fill(batcher, pool, 1, 2, 3, 4)
    batcher._learn(2.5)
    with pytest.raises(Busy) as caught:
        batcher.run([picture(5)])
    assert caught.value.retry_after_s == 10


def test_a_callers_pictures_are_queued_together_or_not_at_all(gate):
    batcher, pool, _ = occupied(gate)
    fill(batcher, pool, 1, 2)
    with pytest.raises(Busy):
        batcher.run([picture(3)] * 3)
    assert len(batcher._queue) == 2


def test_an_empty_queue_takes_a_batch_larger_than_itself():
    batcher = Batcher(lambda batch: batch[:, 0, 0, :1], **LIMITS)
    assert [p.probabilities[0] for p in batcher.run([picture(i) for i in range(9)])] == list(range(9))


def test_a_failure_reaches_those_who_waited_for_it_and_nobody_else(gate):
    def run(batch):
        answers = gate(batch)
        if 1 in answers:
            raise MemoryError("no room")
        return answers

    batcher, pool, first = occupied(run_gate(gate, run), batch_max=2)
    bad, company, later = fill(batcher, pool, 1, 2, 3)
    gate.open.set()
    assert first.result(30)[0].probabilities[0] == 0
    for call in (bad, company):
        with pytest.raises(MemoryError, match="no room"):
            call.result(30)
    assert later.result(30)[0].probabilities[0] == 3
    assert batcher.alive()


def run_gate(gate, run):
    """`run` with the gate's event beside it."""
    run.entered = gate.entered
    return run


def test_an_engine_that_answers_too_few_rows_is_a_failure_and_not_a_hang():
    batcher = Batcher(lambda batch: batch[:1, 0, 0, :1], **LIMITS)
    with pytest.raises(ValueError, match="shorter"):
        batcher.run([picture(1), picture(2)])


def test_a_pass_that_waits_for_company_starts_once_it_is_full():
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return batch[:, 0, 0, :1]

    batcher = Batcher(run, max_queue=10, batch_max=3, batch_wait_s=30)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(batcher.run, [[picture(i)] for i in range(3)]))
    assert sizes == [3]
