"""Sends every scheduled request and records one sample per request.

A closed loop has one request in flight over all targets. Nothing is scheduled there: the next request is sent when the
last response is recorded, and its latency starts with the send. Between two blocks garbage is collected and the
progress bar is drawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from eval.adapters.loading import AdapterOption
from eval.cost.run_cost import CostMeter
from eval.dataset.image_set import ImageSet
from eval.errors import BudgetExceeded
from eval.formatting import per_second
from eval.interruption import Interruptions
from eval.load.circuit_breaker import CircuitBreaker
from eval.load.client import Client, RequestSpec
from eval.load.cold_start import measure_cold_start, startup_phases
from eval.load.nodes.destinations import Node
from eval.load.open_loop import START_DELAY_S, SampleSink, run_open_loop
from eval.load.pauses import ClientPause, Heartbeat
from eval.load.refusals import refusal_text
from eval.load.workers.pool import WorkerPool
from eval.load.workers.shard import Shard
from eval.plan import rate_search
from eval.plan.arrivals import idle_arrivals
from eval.plan.config import COLD, IDLE, MAX_RATE, SINGLE, Config
from eval.plan.schedule import MAX_SEARCH_STEPS, Block, build_schedule, search_step_block
from eval.progress import ProgressBar, Reporter
from eval.samples.model import MEASURE, PAUSED, Sample
from eval.samples.store import RequestKey, ResumeState, SampleWriter
from eval.targets.endpoints import Endpoint
from eval.targets.restart import RestartMethod, command_restart, twin_restart
from eval.targets.tokens import Scrubber
from infra.targets import TARGETS

if TYPE_CHECKING:
    from infra.local.process import CpuClock

RECOVERY_TIMEOUT_S = 5.0  # for a target that stopped responding to become ready again
RECOVERY_POLL_INTERVAL_S = 0.5
FIRST_SEARCH_BLOCK = 1_000_000  # block numbers from here on are steps of the rate search
MAX_REPEATS = 3  # of a request that a pause of this process has touched
REWARM_BLOCKS_PER_RESUME = 10_000  # block numbers that are reserved for the warm-up of one resume
FIRST_REWARM_BLOCK = -2  # first block of the warm-up of a resumed run; -1 is the reference's
NO_RESTART_METHOD = "no way to restart {0}: give a command with --cold-command {0}=..."
RUN_IS_FULL = "the run holds no more requests; start from a lower --rate, or with a shorter --step"
CIRCUIT_OPEN = "no more requests are sent to the target: {}: {}"


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not shape its schedule."""

    command_line: tuple[str, ...] = ()  # recorded in run.json
    restart_commands: Mapping[str, Sequence[str]] = field(default_factory=dict)  # endpoint -> argv that restarts it
    max_usd: float | None = None  # cost limit, at which the run ends
    scrub: Scrubber = field(default_factory=Scrubber)  # masks the tokens of all endpoints
    adapters: Mapping[str, AdapterOption] = field(default_factory=dict)  # endpoint -> how it is asked
    interruptions: Interruptions = field(default_factory=Interruptions)  # what signals do
    nodes: Mapping[Node, Sequence[str]] = field(default_factory=dict)  # machines that send, with what starts a worker


@dataclass(frozen=True)
class RunContext:
    """What the parts of one run share."""

    target_names: Sequence[str]  # all targets of the run, unreachable ones too
    endpoints: Mapping[str, Endpoint]  # by name
    image_set: ImageSet
    config: Config
    options: RunOptions
    reporter: Reporter
    sample_writer: SampleWriter
    resume_state: ResumeState
    cost_meter: CostMeter
    run_start: float  # of time.perf_counter(), as if the run had never been interrupted

    def elapsed_s(self) -> float:
        """Seconds since the start of the run, interruptions included."""
        return time.perf_counter() - self.run_start


class LoadGenerator:
    """Sends the requests of one run."""

    def __init__(
        self,
        context: RunContext,
        on_pause: Callable[[ClientPause], None] | None = None,
        workers: WorkerPool | None = None,
    ):
        """`on_pause` is told of each time in which this process stood still. `workers` send the open loops."""
        self.context = context
        self._workers = workers
        self.planned_requests = 0  # of the measured phase; the rate search adds its own as it goes
        self.measured_requests = 0
        self.failures: dict[str, str] = {}  # target -> why its requests ended early
        self._breakers = {name: CircuitBreaker() for name in context.endpoints}
        self._last_request_end: dict[str, float] = {}  # target -> when its last request ended
        self._heartbeat = Heartbeat(on_pause=on_pause)
        self._sent_early: set[RequestKey] = set()  # first requests, by which targets were checked
        self._restart_methods = {
            name: method
            for name, endpoint in context.endpoints.items()
            if (method := _restart_method_of(endpoint, context.options.restart_commands))
        }

    def plan_blocks(self, targets: Collection[str]) -> list[Block]:
        """The schedule of these targets; how many requests it has, and how many are measured already, is set.

        Block numbers count over all targets: a resume may reach more.
        """
        blocks = [block for block in self._schedule() if block.target in targets]
        measured = [block for block in blocks if block.phase == MEASURE]
        self.planned_requests = sum(len(block.image_indices) for block in measured)
        self.measured_requests = self.planned_requests - sum(len(self._pending_indices(block)) for block in measured)
        return blocks

    def _schedule(self) -> list[Block]:
        """Of all targets, reachable or not."""
        context = self.context
        blocks = build_schedule(context.config, context.target_names, len(context.image_set.images))
        return [block for block in blocks if self._can_run(block)]

    def is_partly_measured(self, target: str) -> bool:
        """Whether an earlier part of the run has measured the target, and not to its end."""
        blocks = [block for block in self._schedule() if block.target == target and block.phase == MEASURE]
        pending = [len(self._pending_indices(block)) for block in blocks]
        measured = any(count < len(block.image_indices) for count, block in zip(pending, blocks, strict=True))
        return measured and (any(pending) or any(block.scenario == MAX_RATE for block in blocks))

    def _can_run(self, block: Block) -> bool:
        """Not a restart of a target that has no way to it, unless the command line asks for the scenario cold."""
        return block.scenario != COLD or block.target in self._restart_methods or COLD in self.context.config.scenarios

    async def send_first_requests(self, clients: Mapping[str, Client], blocks: Sequence[Block]) -> None:
        """Send the first request of each target's warm-up, so that one that refuses it costs no measurement.

        `failures` then has its target. Without a warm-up, a target is checked by its first measured request.
        """
        warmup_blocks = {b.target: b for b in reversed(blocks) if b.phase == "warmup"}  # the first of each target
        await asyncio.gather(*(self._send_first_request(clients[name], block) for name, block in warmup_blocks.items()))

    async def _send_first_request(self, client: Client, block: Block) -> None:
        if 0 in self._pending_indices(block):  # else a resumed run has sent it
            sample, _ = await client.send(self._request_spec(block, 0))
            self._record(sample)
            self._sent_early.add((block.number, 0))

    async def run(self, clients: Mapping[str, Client], blocks: Sequence[Block]) -> None:
        """Send every block of the schedule, without the requests that were measured before."""
        pending_blocks = [block for block in blocks if block.scenario == MAX_RATE or self._pending_indices(block)]
        if self.context.resume_state.resume_count:
            pending_blocks = self._rewarm_blocks(pending_blocks, blocks) + pending_blocks
        searches = itertools.groupby(pending_blocks, lambda block: block.scenario == MAX_RATE)
        parts = [(is_search, list(part_blocks)) for is_search, part_blocks in searches]
        with gc_disabled():
            async with self._heartbeat.beating():
                for number, (is_search, part_blocks) in enumerate(parts, 1):
                    part_title = f"{number}/{len(parts)} " if len(parts) > 1 else ""
                    if is_search:
                        later_blocks = itertools.chain.from_iterable(later for _, later in parts[number:])
                        reserved = sum(len(self._pending_indices(block)) for block in later_blocks)
                        await self._run_rate_search(clients, part_title, reserved)
                    else:
                        await self._run_blocks(clients, part_blocks, part_title)

    def _rewarm_blocks(self, pending_blocks: Sequence[Block], blocks: Sequence[Block]) -> list[Block]:
        """A warm-up for each target of a resumed run: its instance may be a new one."""
        target_names = {block.target for block in pending_blocks if block.phase == "measure"}
        warmup_blocks = [
            b
            for b in blocks
            if (b.scenario, b.phase) == (SINGLE, "warmup") and b.target in target_names and not self._pending_indices(b)
        ]
        first_number = FIRST_REWARM_BLOCK - REWARM_BLOCKS_PER_RESUME * self.context.resume_state.resume_count
        return [replace(block, number=first_number - i) for i, block in enumerate(warmup_blocks)]

    def _pending_indices(self, block: Block) -> list[int]:
        """Indices of the block's requests that were not measured before."""
        return [
            index
            for index in range(len(block.image_indices))
            if (block.number, index) not in self.context.resume_state.completed
            and (block.number, index) not in self._sent_early
        ]

    async def _run_blocks(self, clients: Mapping[str, Client], blocks: Sequence[Block], part_title: str) -> None:
        """Send blocks that are known beforehand."""
        request_count = sum(len(self._pending_indices(block)) for block in blocks)
        async with self.context.reporter.progress_bar(f"{part_title}Requests", request_count) as progress:
            for scenario, scenario_blocks in itertools.groupby(blocks, lambda block: block.scenario):
                if scenario == IDLE:
                    await self._run_idle_gaps(clients, list(scenario_blocks), progress)
                else:
                    for block in scenario_blocks:
                        await self._run_block(clients[block.target], block, progress)

    async def _run_block(self, client: Client, block: Block, progress: ProgressBar) -> bool:
        """Send one block in its closed or open loop. Returns whether all of it counts in a closed one."""
        await client.renew_credentials()
        gc.collect()
        progress.current_target = f"{block.target} {block.scenario}"
        progress.maybe_refresh()
        all_count = True
        if block.offsets_s is None:
            all_count = await self._run_closed_loop(client, block, progress)
        else:
            await self._run_open_loop(client, block, progress)
        self._last_request_end[block.target] = time.perf_counter()
        return all_count

    async def _run_closed_loop(self, client: Client, block: Block, progress: ProgressBar) -> bool:
        """Send the rest of a closed block. Returns whether all of it counts."""
        attempts = 1 if block.scenario == IDLE else 1 + MAX_REPEATS  # a gap is repeated with its wait
        all_count, breaker = True, self._breakers[client.name]
        cpu_clock = self._cpu_clock(client) if block.scenario == SINGLE else None
        for index in self._pending_indices(block):
            for _ in range(attempts):
                request = self._request_spec(block, index)
                if breaker.trip_reason:
                    sample = client.dropped(request, CIRCUIT_OPEN.format(*breaker.trip_reason))
                elif block.scenario == COLD and block.phase == "measure":
                    sample = await self._run_cold_start(client, request)
                else:
                    sample, _ = await client.send(request)
                if block.scenario == IDLE and sample.instance_request_number == 1:
                    sample = replace(sample, startup_ms=await startup_phases(client, sample))
                counts = self._record(_with_cpu_time(sample, cpu_clock), progress)
                if breaker.should_probe:
                    await self._probe_target(client, breaker)
                if counts:
                    break
            else:
                all_count = False
        return all_count

    def _cpu_clock(self, client: Client) -> CpuClock | None:
        """Of a twin: its CPU time. What others use is not seen."""
        twin = self.context.endpoints[client.name].twin
        return twin.cpu_clock() if twin else None

    async def _run_open_loop(self, client: Client, block: Block, progress: ProgressBar) -> list[Sample]:
        """Send the rest of an open block, starting with its first pending request. Returns its samples.

        What a pause of this process has touched is sent again, at the same distances in time.
        """
        breaker, samples = self._breakers[client.name], list[Sample]()
        cpu_clock = self._cpu_clock(client)
        done: set[int] = set()
        probe: asyncio.Task[None] | None = None

        def record(new_sample: Sample) -> None:
            if self._record(_with_cpu_time(new_sample, cpu_clock), progress, from_worker=self._workers is not None):
                samples.append(new_sample)
                done.add(new_sample.index_in_block)
            nonlocal probe
            if breaker.should_probe_at_once and (probe is None or probe.done()):
                probe = asyncio.create_task(self._probe_target(client, breaker))

        for _ in range(1 + MAX_REPEATS):
            indices = [index for index in self._pending_indices(block) if index not in done]
            if not indices or breaker.trip_reason:
                break
            requests = [self._request_spec(block, index) for index in indices]
            try:
                await self._send_open_loop(client, block, requests, record)
                if probe:
                    await probe
            finally:
                if probe:
                    probe.cancel()
            if breaker.should_probe:
                await self._probe_target(client, breaker)
        if breaker.trip_reason:
            for index in self._pending_indices(block):
                if index not in done:
                    reason = CIRCUIT_OPEN.format(*breaker.trip_reason)
                    record(client.dropped(self._request_spec(block, index), reason, time.perf_counter()))
        return samples

    async def _send_open_loop(
        self, client: Client, block: Block, requests: Sequence[RequestSpec], record: SampleSink
    ) -> None:
        assert block.offsets_s is not None
        first_offset_s = block.offsets_s[requests[0].index_in_block]
        offsets_s = [block.offsets_s[request.index_in_block] - first_offset_s for request in requests]
        config, shard = self.context.config, self._unsplit_shard(client, requests, offsets_s)

        def stopped() -> bool:
            return self._breakers[client.name].trip_reason is not None

        if self._workers:
            await self._workers.send_open_loop(shard, record, stopped)
        else:
            start = time.perf_counter() + START_DELAY_S
            await run_open_loop(client, requests, offsets_s, start, config.in_flight, record, self._missed, stopped)

    def _missed(self, scheduled_at: float) -> bool:
        """Whether a time fell into a pause of this process."""
        return self._heartbeat.paused_between(scheduled_at, scheduled_at)

    def _unsplit_shard(self, client: Client, requests: Sequence[RequestSpec], offsets_s: Sequence[float]) -> Shard:
        """The whole stream as one shard."""
        config = self.context.config
        endpoint = self.context.endpoints[client.name]
        return Shard(
            client.name, endpoint.url, self.context.image_set.classes, config.timeout_s,
            endpoint.token, self.context.options.scrub,
            config.fresh, endpoint.keepalive_s, config.in_flight, tuple(requests), tuple(offsets_s),
            adapter=client.adapter, access=endpoint.access, signer=endpoint.signer,
        )  # fmt: skip

    async def _run_rate_search(self, clients: Mapping[str, Client], part_title: str, reserved: int) -> None:
        """Search the highest rate of every target, one step of each in turn.

        reserved: samples that are to come after it. Where the run would hold no more, a target's search ends.
        """
        max_steps = MAX_SEARCH_STEPS * len(clients)
        async with self.context.reporter.progress_bar(f"{part_title}Search", max_steps, "steps") as progress:
            await self._run_search_steps(clients, progress, reserved)

    async def _run_search_steps(self, clients: Mapping[str, Client], progress: ProgressBar, reserved: int) -> None:
        context = self.context
        steps: dict[str, list[rate_search.SearchStep]] = {name: [] for name in clients}
        without_room: set[str] = set()

        def max_remaining(name: str) -> int:
            if self._breakers[name].trip_reason or name in without_room:
                return 0
            return rate_search.max_remaining_steps(steps[name], context.config.rate_rps, MAX_SEARCH_STEPS)

        while active_targets := list(filter(max_remaining, clients)):
            for name in active_targets:
                rate_rps = rate_search.next_rate(steps[name], context.config.rate_rps, MAX_SEARCH_STEPS)
                assert rate_rps is not None
                target_index = context.target_names.index(name)
                block_number = FIRST_SEARCH_BLOCK + len(steps[name]) * len(context.target_names) + target_index
                image_count = len(context.image_set.images)
                block = search_step_block(context.config, image_count, block_number, name, len(steps[name]), rate_rps)
                pending_count = len(self._pending_indices(block))
                if pending_count + reserved > context.sample_writer.room:
                    without_room.add(name)
                    context.reporter.event(f"{name}: its search ends before {per_second(rate_rps)}: {RUN_IS_FULL}")
                    continue
                self.planned_requests += len(block.image_indices)
                self.measured_requests += len(block.image_indices) - pending_count
                samples = context.resume_state.search_samples.get(block_number, []) + await self._run_search_step(
                    clients[name], block, progress
                )
                steps[name].append(rate_search.evaluate_step(rate_rps, samples, context.config.slo_ms))
                progress.completed = sum(map(len, steps.values()))
                progress.total = progress.completed + sum(map(max_remaining, clients))

    async def _run_search_step(self, client: Client, block: Block, progress: ProgressBar) -> list[Sample]:
        await client.renew_credentials()
        gc.collect()
        progress.current_target = f"{block.target} at {per_second(block.rate_rps or 0.0)}"
        progress.items_per_request = 1 / max(len(block.image_indices), 1)
        progress.maybe_refresh()
        return await self._run_open_loop(client, block, progress)

    async def _run_idle_gaps(
        self, clients: Mapping[str, Client], blocks: Sequence[Block], progress: ProgressBar
    ) -> None:
        """Wait for the idle gaps of all targets at the same time, and send one request after each."""
        pending_blocks = {name: [block for block in blocks if block.target == name] for name in clients}
        paused_blocks: list[Block] = []
        start = time.perf_counter()
        self._last_request_end = dict.fromkeys(clients, start)
        config = self.context.config
        for offset_s, name in idle_arrivals(list(clients), config.idle, config.gap_s, config.seed):
            if pending_blocks[name]:
                block = pending_blocks[name].pop(0)
                if not await self._run_idle_gap(clients[name], block, start + offset_s, progress):
                    paused_blocks.append(block)
        for _ in range(MAX_REPEATS):
            paused_blocks = [
                block
                for block in paused_blocks
                if not await self._run_idle_gap(clients[block.target], block, start, progress)
            ]

    async def _run_idle_gap(self, client: Client, block: Block, scheduled_at: float, progress: ProgressBar) -> bool:
        """Wait until then, and until the gap has its length, and send its request. Returns whether that counts."""
        progress.current_target = f"{client.name} idle"
        progress.refresh()
        gap_end = self._last_request_end[client.name] + self.context.config.gap_s  # a slow start must not shorten it
        await asyncio.sleep(max(0.0, scheduled_at - time.perf_counter(), gap_end - time.perf_counter()))
        return await self._run_block(client, block, progress)

    async def _run_cold_start(self, client: Client, request: RequestSpec) -> Sample:
        """Restart the target and send one request."""
        restart_method = self._restart_methods.get(client.name)
        if restart_method is None:
            return client.dropped(request, NO_RESTART_METHOD.format(client.name))
        return await measure_cold_start(restart_method, client, request)

    async def _probe_target(self, client: Client, breaker: CircuitBreaker) -> None:
        """The target stopped responding: wait for its /readyz, then give up on it."""
        ready = await _wait_until_ready(client)
        if breaker.consecutive_failures:  # else it has responded meanwhile
            breaker.record_probe(ready)
        if breaker.trip_reason:
            kind, detail = breaker.trip_reason
            self.failures[client.name] = (
                f"stopped after {breaker.consecutive_failures} consecutive failures, {kind}: {detail}"
            )
            self.context.reporter.event(
                f"{client.name}: {self.failures[client.name]}; its other requests count as failed"
            )

    def _request_spec(self, block: Block, index: int) -> RequestSpec:
        image_index = block.image_indices[index]
        image = None if image_index < 0 else self.context.image_set.images[image_index]
        gap_s = round(time.perf_counter() - self._last_request_end[block.target], 3) if block.scenario == IDLE else None
        return RequestSpec(block.scenario, block.phase, block.number, image_index, image, index, block.rate_rps, gap_s)

    def _record(self, sample: Sample, progress: ProgressBar | None = None, *, from_worker: bool = False) -> bool:
        """Write a sample. Returns whether it counts: not if a pause of the process that sent it has touched it."""
        context, breaker = self.context, self._breakers[sample.target]
        if not from_worker:  # which has marked it
            sample = self._heartbeat.marked(sample, context.run_start)
        context.sample_writer.append(sample)
        counts = sample.phase != PAUSED
        if counts:
            self.measured_requests += sample.phase == MEASURE
            if progress:
                progress.advance(failed=sample.error is not None)
            breaker.record(sample)
        if sample is breaker.refusal:
            self.failures[sample.target] = refusal_text(sample, context.endpoints[sample.target])
            context.reporter.event(f"{sample.target}: {self.failures[sample.target]}")
        context.cost_meter.record(sample)
        max_usd, elapsed_s = context.options.max_usd, context.elapsed_s()
        if max_usd is not None and context.cost_meter.exceeds(max_usd, elapsed_s):
            cost_usd = context.cost_meter.total_usd(elapsed_s)
            raise BudgetExceeded(f"the run has cost ${cost_usd:.4f}, --max-usd is {max_usd:g}")
        return counts


def _with_cpu_time(sample: Sample, cpu_clock: CpuClock | None) -> Sample:
    return replace(sample, cpu_ms=cpu_clock.lap_ms()) if cpu_clock else sample


async def _wait_until_ready(client: Client) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            while not await client.is_ready():
                await asyncio.sleep(RECOVERY_POLL_INTERVAL_S)
            return True
    return False


@contextlib.contextmanager
def gc_disabled() -> Iterator[None]:
    """Disable automatic garbage collection, which would pause this process in the middle of a request.

    Existing objects (images, libraries) are frozen, so that an explicit collection takes a millisecond.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _restart_method_of(endpoint: Endpoint, restart_commands: Mapping[str, Sequence[str]]) -> RestartMethod | None:
    """How the endpoint is restarted, if there is a way."""
    if command := restart_commands.get(endpoint.name):
        return command_restart(command, TARGETS.get(endpoint.target or ""))
    return twin_restart(endpoint.twin) if endpoint.twin else None
