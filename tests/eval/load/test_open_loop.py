"""Open-loop scenarios, held against an endpoint whose truth is known."""

from __future__ import annotations

import asyncio
import io
import math
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from rich.console import Console

from eval.analysis.latency import cache_test
from eval.errors import BudgetExceeded
from eval.load import open_loop
from eval.load.workers.shard import Shard, split
from eval.mock_server.profile import EndpointProfile
from eval.plan.config import Config
from eval.plan.rate_search import evaluate_step, next_rate
from eval.plan.schedule import MAX_SEARCH_STEPS
from eval.progress import Reporter
from eval.run.runner import RunOptions, execute_run, new_run
from eval.samples.model import Sample
from eval.samples.store import read_samples
from eval.targets.endpoints import Endpoint, TargetSet
from eval.targets.tokens import Scrubber
from tests.helpers.fake_endpoint import fake_endpoint, image_set
from tests.helpers.mock_endpoint import labels, pictures, request_counts, running_mock_endpoint

pytestmark = pytest.mark.integration


def run(folder, url, images=None, options=None, **changes):
    folder.mkdir(exist_ok=True)
    images, config = images or pictures(50), Config(**{"warmup": 0, "baseline_rtt": 0, "block": 10} | changes)
    fleet = TargetSet((Endpoint("a", None, url),), {})
    options = options or RunOptions()
    begun = new_run("some-id", fleet, images, config, options)
    done = execute_run(folder, begun, fleet, images, config, options, Reporter(Console(file=io.StringIO())))
    return done, [s for s in read_samples(folder) if s.target == "a"]


def test_a_stream_does_not_wait_for_answers(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=300, sigma=0)) as url:
        _, samples = run(tmp_path, url, scenarios=("poisson",), rate_rps=100.0, duration_s=1.0)
    assert len(samples) > 60 and not any(s.error for s in samples)
    by_start = sorted(samples, key=lambda s: s.scheduled_s)
    assert by_start[-1].scheduled_s - by_start[0].scheduled_s < 1.0  # one after the other they would have taken 20 s


def test_a_request_is_due_on_time_though_sleepers_wake_late(monkeypatch):
    """On a clock of its own, on which a sleep ends up to 1 ms late and a turn of the event loop takes 10 us."""
    clock = SimpleNamespace(now_s=0.0, perf_counter=lambda: clock.now_s)

    async def sleep(delay_s):
        clock.now_s += math.ceil(delay_s * 1000 + 0.1) / 1000 if delay_s else 1e-5

    monkeypatch.setattr(open_loop, "time", clock)
    monkeypatch.setattr(open_loop.asyncio, "sleep", sleep)
    for scheduled_at in (0.0123, 0.0131, 0.5, 0.5, 0.50001):
        asyncio.run(open_loop.sleep_until(scheduled_at))
        assert 0 <= clock.now_s - scheduled_at < 5e-5


class InstantClient:
    """Answers at once, but for one request: that when so many others have been answered. Its samples are numbers."""

    def __init__(self, slow, others):
        self.slow, self.others = slow, others
        self.answered, self.in_flight, self.busy_when_made = 0, 0, []

    def prepare(self, number):
        return None

    async def send_request(self, number, scheduled_at, prepared):
        self.in_flight += 1
        while number == self.slow and self.answered < self.others:
            await asyncio.sleep(0.001)
        self.in_flight -= 1
        self.answered += 1
        return number

    def to_sample(self, number):
        self.busy_when_made.append(self.in_flight)
        return number

    async def run(self, count, record):
        offsets_s = [i / 1000 for i in range(count)]
        start = time.perf_counter() + open_loop.START_DELAY_S
        await open_loop.run_open_loop(self, range(count), offsets_s, start, 1000, record)


def test_samples_are_made_while_nothing_is_in_flight():
    client, samples = InstantClient(slow=0, others=5), []
    asyncio.run(client.run(6, samples.append))
    assert sorted(samples[:-1]) == [1, 2, 3, 4, 5] and samples[-1] == 0
    assert client.busy_when_made == [0] * 6


def test_a_loop_without_pauses_makes_its_samples_too():
    client, samples = InstantClient(slow=0, others=200), []
    asyncio.run(client.run(201, samples.append))
    assert sorted(samples[:-1]) == [*range(1, 201)] and samples[-1] == 0
    assert client.busy_when_made.count(1) == 200 - open_loop.MAX_UNRECORDED


def test_a_loop_that_its_cost_ends_records_all_answers():
    client, samples = InstantClient(slow=0, others=math.inf), []

    def record(sample):
        samples.append(sample)
        raise BudgetExceeded("enough")

    with pytest.raises(BudgetExceeded):
        asyncio.run(client.run(200, record))
    assert client.answered > open_loop.MAX_UNRECORDED and len(samples) == client.answered


def test_an_interrupted_loop_makes_the_samples_of_all_that_ended():
    client, samples = InstantClient(slow=0, others=math.inf), []

    async def interrupt():
        loop = asyncio.create_task(client.run(3, samples.append))
        while client.answered < 2:
            await asyncio.sleep(0.001)
        loop.cancel()
        await loop

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupt())
    assert sorted(samples) == [1, 2]


def test_stall_adds_latency_to_every_request_it_delayed(tmp_path):
    """Coordinated omission: a client that waits for answers would see the stall once."""
    truth = EndpointProfile(median_ms=2, sigma=0, stall_every_s=0.5, stall_ms=300)
    with running_mock_endpoint(truth) as url:
        _, samples = run(tmp_path, url, scenarios=("poisson",), rate_rps=200.0, duration_s=1.4)
    held_up = [s for s in samples if s.latency_ms > 20]
    assert len(held_up) > 0.2 * len(samples)
    assert all(s.latency_ms == pytest.approx(s.service_time_ms + s.send_delay_ms, abs=0.01) for s in samples)
    assert all(s.send_delay_ms >= 0 for s in samples)  # none leaves early


def test_requests_beyond_max_in_flight_are_counted_and_dropped(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=300, sigma=0)) as url:
        done, samples = run(tmp_path, url, scenarios=("burst",), burst=10, in_flight=4)
        asked = request_counts(url)["requests"]
    errors = Counter(s.error for s in samples)
    assert errors == {None: 20, "dropped": 30}
    assert asked == 20 and done.planned_requests == 50
    assert "4 requests were in flight already" in next(s.detail for s in samples if s.error)


def test_a_burst_leaves_at_once(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=50, sigma=0)) as url:
        _, samples = run(tmp_path, url, scenarios=("burst",), burst=8)
    assert Counter(s.block for s in samples) == dict.fromkeys(range(5), 8)
    for block in range(5):
        assert len({s.scheduled_s for s in samples if s.block == block}) == 1


@pytest.mark.slow
def test_each_search_step_uses_the_rate_earlier_steps_call_for(tmp_path):
    """Whether the search then finds the right rate is tested on simulated answers, which no neighbour can slow down."""
    truth = EndpointProfile(seed=5, median_ms=5, sigma=0.2, servers=1)
    with running_mock_endpoint(truth) as url:
        _, samples = run(tmp_path, url, scenarios=("max_rate",), rate_rps=60.0, slo_ms=30.0, step_s=0.5, in_flight=200)
    blocks: dict[int, list[Sample]] = {}
    for sample in samples:
        blocks.setdefault(sample.block, []).append(sample)
    steps = [evaluate_step(blocks[number][0].rate_rps, blocks[number], 30.0) for number in sorted(blocks)]
    assert len(steps) > 2
    for done, step in enumerate(steps):
        assert step.rate_rps == next_rate(steps[:done], 60.0, MAX_SEARCH_STEPS)
    assert next_rate(steps, 60.0, MAX_SEARCH_STEPS) is None


def test_cache_is_detected_where_there_is_one_only(tmp_path):
    """40 ms, of which what a busy machine adds is a small part."""
    found = []
    for name, cached_ms in (("cache", 1.0), ("none", None)):
        with running_mock_endpoint(EndpointProfile(median_ms=40, cached_ms=cached_ms)) as url:
            _, samples = run(tmp_path / name, url, pictures(25), scenarios=("single", "repeat"), block=25)
        found.append(cache_test(samples).suspected)
    assert found == [True, False]


def identity(sample):
    """All of a sample but its timing."""
    request = sample.block, sample.index_in_block, sample.image_index, sample.scenario
    return *request, sample.predicted_class, sample.error, sample.rate_rps


def test_four_workers_give_one_process_samples_but_for_timing(tmp_path):
    images = pictures(40)
    truth = EndpointProfile(median_ms=1, labels=labels(images))
    found = []
    for workers in (1, 4):
        with running_mock_endpoint(truth) as url:
            _, samples = run(
                tmp_path / str(workers), url, images, scenarios=("single", "poisson"), rate_rps=150.0, duration_s=2.0,
                workers=workers, in_flight=1000,
            )  # fmt: skip
        found.append(sorted(map(identity, samples)))
    assert found[0] == found[1]
    assert len(found[0]) > 300


def test_workers_keep_to_the_common_schedule(tmp_path):
    with running_mock_endpoint(EndpointProfile(median_ms=1)) as url:
        _, samples = run(tmp_path, url, scenarios=("poisson",), rate_rps=100.0, duration_s=1.0, workers=2)
    starts = [s.scheduled_s for s in sorted(samples, key=lambda s: s.index_in_block)]
    assert starts == sorted(starts)


def test_a_stream_is_dealt_out_completely_and_evenly():
    whole = Shard(
        "a",
        "http://x",
        (),
        1.0,
        None,
        Scrubber(),
        False,
        55.0,
        100,
        tuple(range(10)),
        tuple(map(float, range(10))),
    )  # type: ignore[arg-type]  # numbers stand in for what is asked
    parts = split(whole, 4)
    assert sorted(ask for part in parts for ask in part.requests) == list(range(10))
    assert {len(part.requests) for part in parts} == {2, 3}
    assert all(part.max_in_flight == 25 for part in parts)


@pytest.mark.slow
def test_target_lost_in_mid_stream_does_not_end_the_run(tmp_path):
    with fake_endpoint() as fake:
        stop = threading.Thread(target=fake.stop)  # it waits for the answer that is being given
        fake.on_post = lambda count: stop.start() if count == 10 else None
        done, samples = run(
            tmp_path, fake.url, image_set(20), scenarios=("poisson", "burst"), rate_rps=100.0, duration_s=0.5, burst=4
        )
    assert done.complete
    assert len(samples) == done.planned_requests
    assert {s.error for s in samples if s.index_in_block > 20} <= {"connect", "disconnected", "dropped"}
