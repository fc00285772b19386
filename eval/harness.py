"""Runs the schedule against the endpoints and writes the run: run.json first and last, a sample as each one finishes.

Single stream: one request at a time over all targets, the next one due the moment the last one's answer was there.
What this program does in between is therefore lateness, recorded with each sample and part of its latency. Between
two blocks nothing is due, so the garbage is collected and the screen is drawn there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from eval.client import Ask, Client, Unreachable
from eval.endpoints import Endpoint, Fleet
from eval.folder import writing
from eval.images import ImageSet
from eval.machine import machine_facts, versions
from eval.patience import Patience
from eval.prices import load_prices
from eval.progress import Counting, Screen
from eval.reference import NoReference, reference_samples
from eval.samples import RUN_SCHEMA_VERSION, SAMPLES, Run, Sample, TargetRun, append_sample, write_run
from eval.schedule import Block, schedule

SINGLE = "single"
RUNNING = "running"  # the note of a run that has not ended, or was killed
INTERRUPTED = "interrupted"  # begins the note of one that Ctrl-C has ended
RECOVERY_S = 5.0  # that a target which stopped answering has to become ready again
RECOVERY_POLL_S = 0.5


@dataclass(frozen=True)
class Options:
    """How to ask, as the command line says."""

    seed: int
    warmup: int  # requests a target before the measured ones
    block: int  # requests in a row to one target
    timeout_s: float
    token: str | None  # bearer token; goes into no file
    command: tuple[str, ...]  # the command line, for the record


def run_comparison(folder: Path, run_id: str, fleet: Fleet, images: ImageSet, options: Options, screen: Screen) -> Run:
    """Do the run and give what its run.json says. Ctrl-C ends it early; the run then says so.

    Raises RunError when the folder cannot be written. A second Ctrl-C goes through as KeyboardInterrupt.
    """
    run = opening(run_id, fleet, images, options)
    with contextlib.ExitStack() as stack:
        with writing(folder):
            write_run(folder, run)
            samples = stack.enter_context((folder / SAMPLES).open("x"))
        session = Session(run, fleet.endpoints, images, options, screen, samples)
        try:
            asyncio.run(session.go())
        finally:
            closed = session.closed()
            with writing(folder):
                write_run(folder, closed)
    return closed


def opening(run_id: str, fleet: Fleet, images: ImageSet, options: Options) -> Run:
    """The run as it begins."""
    failed = [TargetRun(name, name, "", True, failure=why) for name, why in fleet.failures.items()]
    return Run(
        schema_version=RUN_SCHEMA_VERSION,
        id=run_id,
        started_at=_now(),
        ended_at=None,
        complete=False,
        note=RUNNING,
        command=list(options.command),
        seed=options.seed,
        scenarios=[SINGLE],
        images_source=images.source,
        images_sha256=images.sha256,
        images=images.entries,
        classes=list(images.classes),
        prices_sha256=load_prices().sha256,
        targets=[_target_run(endpoint) for endpoint in fleet.endpoints] + failed,
        machine=machine_facts(),
        versions=versions(),
        planned=len(images.pictures) * len(fleet.endpoints),
    )


class Session:
    """One run while it runs."""

    def __init__(
        self,
        run: Run,
        endpoints: Sequence[Endpoint],
        images: ImageSet,
        options: Options,
        screen: Screen,
        samples: IO[str],
    ):
        self.run = run
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.images = images
        self.options = options
        self.screen = screen
        self.samples = samples
        self.folder = Path(samples.name).parent
        self.origin = time.perf_counter()
        self.measured = 0
        self.note: str | None = RUNNING
        self.patience = {name: Patience() for name in self.endpoints}
        self.failures: dict[str, str] = {}  # target -> why it could not be measured, or why it ended early

    async def go(self) -> None:
        """All phases. Cancelled (by Ctrl-C), it returns early and leaves a note."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(self._client(e)) for e in self.endpoints.values()]
                await self._meet(clients)
                reached = {client.name: client for client in clients if client.name not in self.failures}
                if reached:
                    await self._ask_reference()
                    await self._ask_all(reached)
            self.note = None if reached else "no target could be reached"
        except asyncio.CancelledError:
            self.note = f"{INTERRUPTED} after {self.measured:,} of {self.run.planned:,} requests"
        except Exception as error:
            self.note = f"ended after {self.measured:,} of {self.run.planned:,} requests: {error}"
            raise

    def closed(self) -> Run:
        """The run as it has ended."""
        targets = [self._closed_target(target) for target in self.run.targets]
        return replace(self.run, targets=targets, ended_at=_now(), complete=self.note is None, note=self.note)

    def _client(self, endpoint: Endpoint) -> Client:
        options = self.options
        return Client(endpoint.name, endpoint.url, self.images.classes, options.timeout_s, self.origin, options.token)

    async def _meet(self, clients: Sequence[Client]) -> None:
        """Ask everyone who they are. Who cannot be reached at all is out, and none of its requests is planned."""
        answers = await asyncio.gather(*(client.version() for client in clients), return_exceptions=True)
        versions_of = {}
        for client, answer in zip(clients, answers, strict=True):
            if isinstance(answer, Unreachable):
                self.failures[client.name] = f"not reached before the run: {answer}"
                self.screen.say(f"{client.name}: {self.failures[client.name]}")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                versions_of[client.name] = answer
        targets = [replace(target, version=versions_of.get(target.name, {})) for target in self.run.targets]
        self.run = replace(self.run, targets=targets, planned=len(self.images.pictures) * len(versions_of))

    async def _ask_reference(self) -> None:
        """The reference's samples, before the measuring: it would take the twins' cores."""
        try:
            with self.screen.counting("Reference", len(self.images.pictures)) as counting:
                async with contextlib.aclosing(reference_samples(self.images)) as found:
                    async for sample in found:
                        self._keep(sample)
                        counting.count()
                        counting.breathe()
        except (NoReference, OSError) as error:
            self.screen.say(f"No reference answers, so no parity to the model itself: {error}")

    async def _ask_all(self, clients: dict[str, Client]) -> None:
        options = self.options
        blocks = schedule(list(clients), len(self.images.pictures), options.seed, options.warmup, options.block)
        total = sum(len(block.images) for block in blocks)
        with quiet_memory(), self.screen.counting("Requests", total) as counting:
            for block in blocks:
                gc.collect()
                counting.now = block.target
                counting.breathe()
                await self._ask_block(clients[block.target], block, counting)

    async def _ask_block(self, client: Client, block: Block, counting: Counting) -> None:
        patience = self.patience[client.name]
        due = time.perf_counter()
        for image in block.images:
            ask = Ask(SINGLE, block.phase, block.number, image, self.images.pictures[image])
            if patience.lost:
                sample = client.unsent(ask, patience.lost)
            else:
                sample, due = await client.ask(ask, due)
            self._keep(sample)
            self.measured += block.phase == "measure"
            counting.count(failed=sample.error is not None)
            patience.note(sample)
            if patience.wants_check:
                await self._check(client, patience)
                due = time.perf_counter()

    async def _check(self, client: Client, patience: Patience) -> None:
        """Nothing answers any more: wait a little for the target, then give it up."""
        patience.checked(await _becomes_ready(client))
        if patience.lost:
            kind, detail = patience.lost
            self.failures[client.name] = f"given up after {patience.in_a_row} failures in a row, {kind}: {detail}"
            self.screen.say(f"{client.name}: {self.failures[client.name]}; the rest counts as failed")

    def _keep(self, sample: Sample) -> None:
        with writing(self.folder):
            append_sample(self.samples, sample)

    def _closed_target(self, target: TargetRun) -> TargetRun:
        """With what only the end can tell."""
        endpoint, failure = self.endpoints.get(target.name), self.failures.get(target.name, target.failure)
        if endpoint is None or endpoint.twin is None:
            return replace(target, failure=failure)
        twin = endpoint.twin
        if not twin.alive():
            ended = f"its process ended; the log's last lines:\n{twin.log_tail()}"
            failure = f"{failure}; {ended}" if failure else ended
        return replace(target, failure=failure, peak_memory_mib=round(twin.peak_memory_mib(), 1))


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


def _target_run(endpoint: Endpoint) -> TargetRun:
    twin = endpoint.twin
    known = TargetRun(endpoint.name, endpoint.target, endpoint.url, twin is not None)
    if twin is None:
        return known
    return replace(known, startup_ms=round(twin.startup_ms, 1), cpus=twin.cpus, behind=twin.behind)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
