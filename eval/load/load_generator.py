"""Asks every request of a schedule, in the way of its scenario, and keeps what comes of it.

In the closed scenarios there is one request at a time over all targets, the next one due the moment the last one's
answer was there. What this program does in between is therefore lateness, recorded with each sample and part of its
latency. Between two blocks nothing is due, so the garbage is collected and the screen is drawn there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from eval.cost.run_cost import Tally
from eval.dataset.images import ImageSet
from eval.errors import BudgetExceeded
from eval.load.circuit_breaker import Patience
from eval.load.client import Ask, Client
from eval.load.cold_start import force, phases_of
from eval.load.distributed import SHARD_LEAD_S, Shard, send_sharded
from eval.load.open_loop import LEAD_S, send_stream
from eval.plan import rate_search
from eval.plan.arrivals import idle_schedule
from eval.plan.config import COLD, IDLE, MAX_RATE, Config
from eval.plan.schedule import SEARCH_STEPS, Block, schedule, search_block
from eval.progress import Counting, Screen
from eval.samples.model import Sample
from eval.samples.store import Journal, Past
from eval.targets.endpoints import Endpoint
from eval.targets.restart import Forcing, command_forcing, twin_forcing
from infra.targets import TARGETS

RECOVERY_S = 5.0  # that a target which stopped answering has to become ready again
RECOVERY_POLL_S = 0.5
SEARCH_BLOCKS = 1_000_000  # from here on blocks are steps of the search
WARM_BLOCKS = 10_000  # block numbers that are kept for the warm-up of one such going on
REWARMED = -2  # block of the warm-up before a run is gone on with; -1 is the reference's
NO_FORCING = "no way to start {0} anew: name a command with --cold-command {0}=..."
GIVEN_UP = "the target was given up: {}: {}"


@dataclass(frozen=True)
class Options:
    """What a run is told beside its configuration; no part of the schedule."""

    token: str | None = None  # bearer token; goes into no file
    command: tuple[str, ...] = ()  # the command line, for the record
    cold_commands: Mapping[str, Sequence[str]] = field(default_factory=dict)  # endpoint -> what makes it start anew
    max_usd: float | None = None  # that the run may cost; it ends there
    scheduler: str | None = None  # address of a dask scheduler, whose workers send the open streams


class Asker:
    """The requests of one run while it runs."""

    def __init__(
        self,
        names: Sequence[str],
        endpoints: Mapping[str, Endpoint],
        images: ImageSet,
        config: Config,
        options: Options,
        screen: Screen,
        journal: Journal,
        past: Past,
        workers: Executor | None,
        tally: Tally,
        origin: float,
    ):
        """names: all targets of the run, those out of reach too. origin: perf_counter() of the run's beginning."""
        self.names = names
        self.endpoints = endpoints
        self.images = images
        self.config = config
        self.options = options
        self.screen = screen
        self.journal = journal
        self.past = past
        self.workers = workers
        self.tally = tally
        self.origin = origin
        self.planned = 0  # measured requests, those of the search as it goes
        self.measured = 0
        self.failures: dict[str, str] = {}  # target -> why it ended early
        self._patience = {name: Patience() for name in endpoints}
        self._last_asked: dict[str, float] = {}  # target -> when its last request ended
        self._forcings = {name: how for name, e in endpoints.items() if (how := _forcing(e, options.cold_commands))}

    def plan(self, clients: Mapping[str, Client]) -> list[Block]:
        """The schedule of those that can be asked; numbered over all, so that numbers stay when one returns."""
        every = schedule(self.config, self.names, len(self.images.pictures))
        blocks = [block for block in every if block.target in clients]
        self.planned = sum(len(block.images) for block in blocks if block.phase == "measure")
        return blocks

    async def ask_all(self, clients: Mapping[str, Client], blocks: Sequence[Block]) -> None:
        """Every block of the schedule, but for what was measured before."""
        left = [block for block in blocks if block.scenario == MAX_RATE or self._left(block)]
        before = sum(len(block.images) - len(self._left(block)) for block in blocks if block.phase == "measure")
        self.measured += before
        if self.past.times:
            left = self._warm_again(left, blocks) + left
        with quiet_memory(), self.screen.counting("Requests", sum(len(self._left(b)) for b in left)) as counting:
            for scenario, group in itertools.groupby(left, lambda block: block.scenario):
                if scenario == MAX_RATE:
                    await self._search(clients, counting)
                elif scenario == IDLE:
                    await self._leave_alone(clients, list(group), counting)
                else:
                    for block in group:
                        await self._do(clients[block.target], block, counting)

    def _warm_again(self, left: Sequence[Block], blocks: Sequence[Block]) -> list[Block]:
        """A warm-up of its own for every target that is gone on with: its instance may be a new one by now."""
        names = {block.target for block in left if block.phase == "measure"}
        warm = [b for b in blocks if b.phase == "warmup" and b.target in names and not self._left(b)]
        first = REWARMED - WARM_BLOCKS * self.past.times
        return [replace(block, number=first - i) for i, block in enumerate(warm)]

    def _left(self, block: Block) -> list[int]:
        """Places of the block's requests that were not measured before."""
        return [place for place in range(len(block.images)) if (block.number, place) not in self.past.keys]

    async def _do(self, client: Client, block: Block, counting: Counting) -> None:
        """One block, in the way of its scenario."""
        gc.collect()
        counting.now = f"{block.target} {block.scenario}"
        counting.breathe()
        if block.offsets_s is None:
            await self._ask_in_turn(client, block, counting)
        else:
            await self._ask_in_stream(client, block, counting)
        self._last_asked[block.target] = time.perf_counter()

    async def _ask_in_turn(self, client: Client, block: Block, counting: Counting) -> None:
        patience = self._patience[client.name]
        due = time.perf_counter()
        for place in self._left(block):
            ask = self._ask(block, place)
            if patience.lost:
                sample = client.not_sent(ask, due, GIVEN_UP.format(*patience.lost))
            elif block.scenario == COLD:
                sample, due = await self._cold(client, ask)
            else:
                sample, due = await client.ask(ask, due)
            if block.scenario == IDLE and sample.ordinal == 1:
                sample = replace(sample, startup_ms=await phases_of(client, sample))
            self._keep(sample, patience, counting)
            if patience.wants_check:
                await self._check(client, patience)
                due = time.perf_counter()

    async def _ask_in_stream(self, client: Client, block: Block, counting: Counting) -> list[Sample]:
        """What is left of an open block, its first request due at once. Gives its samples."""
        patience, taken = self._patience[client.name], list[Sample]()
        places = self._left(block)
        if not places:
            return taken

        def keep(sample: Sample) -> None:
            taken.append(sample)
            self._keep(sample, patience, counting)

        asks = [self._ask(block, place) for place in places]
        if patience.lost:
            for ask in asks:
                keep(client.not_sent(ask, time.perf_counter(), GIVEN_UP.format(*patience.lost)))
            return taken
        assert block.offsets_s is not None
        first = block.offsets_s[places[0]]
        offsets_s = [block.offsets_s[place] - first for place in places]
        if self.workers is None:
            start = time.perf_counter() + LEAD_S
            await send_stream(client, asks, offsets_s, start, self.config.in_flight, keep)
        else:
            await send_sharded(self.workers, self._shard(client, asks, offsets_s), self.config.workers, keep)
        if patience.wants_check:
            await self._check(client, patience)
        return taken

    def _shard(self, client: Client, asks: Sequence[Ask], offsets_s: Sequence[float]) -> Shard:
        """The whole stream, not dealt out yet."""
        config, now = self.config, time.time()
        return Shard(
            client.name, self.endpoints[client.name].url, self.images.classes, config.timeout_s, self.options.token,
            config.fresh, self.endpoints[client.name].keepalive_s, config.in_flight, tuple(asks), tuple(offsets_s),
            start_unix_s=now + SHARD_LEAD_S, origin_unix_s=now - (time.perf_counter() - self.origin),
        )  # fmt: skip

    async def _search(self, clients: Mapping[str, Client], counting: Counting) -> None:
        """The highest rate of every target, one step of each in turn."""
        steps: dict[str, list[rate_search.Step]] = {name: [] for name in clients}
        searching = list(clients)
        while searching:
            for name in list(searching):
                rate_rps = rate_search.next_rate(steps[name], self.config.rate_rps, SEARCH_STEPS)
                if rate_rps is None or self._patience[name].lost:
                    searching.remove(name)
                    continue
                number = SEARCH_BLOCKS + len(steps[name]) * len(self.names) + self.names.index(name)
                block = search_block(self.config, len(self.images.pictures), number, name, len(steps[name]), rate_rps)
                left = len(self._left(block))
                self.planned += len(block.images)
                self.measured += len(block.images) - left
                counting.more(left)
                samples = self.past.steps.get(number, []) + await self._step(clients[name], block, counting)
                steps[name].append(rate_search.judged(rate_rps, samples, self.config.slo_ms))

    async def _step(self, client: Client, block: Block, counting: Counting) -> list[Sample]:
        gc.collect()
        counting.now = f"{block.target} at {block.rate_rps:.3g}/s"
        counting.breathe()
        return await self._ask_in_stream(client, block, counting)

    async def _leave_alone(self, clients: Mapping[str, Client], blocks: Sequence[Block], counting: Counting) -> None:
        """Gaps without a request, those of all targets at the same time, and one request after each."""
        left = {name: [block for block in blocks if block.target == name] for name in clients}
        began = time.perf_counter()
        self._last_asked = dict.fromkeys(clients, began)
        config = self.config
        for due_s, name in idle_schedule(list(clients), config.idle, config.gap_s, config.seed):
            if left[name]:
                counting.now = f"{name} is left alone"
                counting.draw()
                due = max(began + due_s, self._last_asked[name] + config.gap_s)  # a slow start shortens no gap
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await self._do(clients[name], left[name].pop(0), counting)

    async def _cold(self, client: Client, ask: Ask) -> tuple[Sample, float]:
        """Start the target anew, and ask it once."""
        forcing = self._forcings.get(client.name)
        if forcing is None:
            now = time.perf_counter()
            return client.not_sent(ask, now, NO_FORCING.format(client.name)), now
        return await force(forcing, client, ask)

    async def _check(self, client: Client, patience: Patience) -> None:
        """Nothing answers any more: wait a little for the target, then give it up."""
        patience.checked(await _becomes_ready(client))
        if patience.lost:
            kind, detail = patience.lost
            self.failures[client.name] = f"given up after {patience.in_a_row} failures in a row, {kind}: {detail}"
            self.screen.say(f"{client.name}: {self.failures[client.name]}; the rest counts as failed")

    def _ask(self, block: Block, place: int) -> Ask:
        image = block.images[place]
        picture = None if image < 0 else self.images.pictures[image]
        gap_s = round(time.perf_counter() - self._last_asked[block.target], 3) if block.scenario == IDLE else None
        return Ask(block.scenario, block.phase, block.number, image, picture, place, block.rate_rps, gap_s)

    def _keep(self, sample: Sample, patience: Patience, counting: Counting) -> None:
        self.journal.keep(sample)
        self.measured += sample.phase == "measure"
        counting.count(failed=sample.error is not None)
        patience.note(sample)
        self.tally.add(sample)
        cap = self.options.max_usd
        if cap is not None and self.tally.over(cap, self.elapsed_s()):
            raise BudgetExceeded(
                f"the run has cost {self.tally.usd(self.elapsed_s()):.4f} dollars, --max-usd is {cap:g}"
            )

    def elapsed_s(self) -> float:
        """Since the run began, whatever it was ended and gone on with in between."""
        return time.perf_counter() - self.origin


async def _becomes_ready(client: Client) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECOVERY_S):
            while not await client.ready():
                await asyncio.sleep(RECOVERY_POLL_S)
            return True
    return False


@contextlib.contextmanager
def quiet_memory() -> Iterator[None]:
    """No garbage collection of Python's choosing: it would stop the clock's own process in the middle of a request.

    What is there already (the pictures, the libraries) is frozen, so that a collection by hand takes a millisecond.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _forcing(endpoint: Endpoint, commands: Mapping[str, Sequence[str]]) -> Forcing | None:
    """How the endpoint is made to start anew, if there is a way."""
    if command := commands.get(endpoint.name):
        return command_forcing(command, TARGETS.get(endpoint.target or ""))
    return twin_forcing(endpoint.twin) if endpoint.twin else None
