"""One run from its beginning to its end: run.json first and last, a sample as each request finishes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.cost.price_list import load_prices
from eval.cost.run_cost import Tally, planned, predicted, tariff
from eval.dataset.images import ImageSet
from eval.errors import BudgetExceeded, NoReference, Unreachable
from eval.load.client import Client
from eval.load.distributed import open_workers
from eval.load.load_generator import Asker, Options
from eval.plan.config import Config
from eval.plan.schedule import Block
from eval.progress import Screen
from eval.run.environment import machine_facts, versions
from eval.run.reference import reference_samples
from eval.samples.model import RUN_SCHEMA_VERSION, Run, TargetRun
from eval.samples.store import Journal, Past, read_samples, write_run, writing
from eval.targets.endpoints import Endpoint, Fleet, target_of
from eval.targets.engines import engine_of, told_engine
from infra.local.names import engine_named

RUNNING = "running"  # the note of a run that has not ended, or was killed
INTERRUPTED = "interrupted"  # begins the note of one that Ctrl-C has ended


def run_comparison(
    folder: Path, run: Run, fleet: Fleet, images: ImageSet, config: Config, options: Options, screen: Screen,
    past: Past | None = None,
) -> Run:  # fmt: skip
    """Do the run, or what is left of it, and give what its run.json says. Ctrl-C ends it early; the run then says so.

    Raises EvalError when the folder cannot be written. A second Ctrl-C goes through as KeyboardInterrupt.
    """
    importlib.import_module("scipy.stats")  # takes a second, which must not fall into the measuring
    with contextlib.ExitStack() as stack:
        with writing(folder):
            write_run(folder, run)
        journal = stack.enter_context(Journal(folder, new=past is None))
        workers = stack.enter_context(open_workers(config.workers, options.scheduler))
        session = Session(run, fleet.endpoints, images, config, options, screen, journal, past or Past(), workers)
        try:
            asyncio.run(session.go())
        finally:
            closed = session.closed()
            with writing(folder):
                write_run(folder, closed)
    return closed


def opening(run_id: str, fleet: Fleet, images: ImageSet, config: Config, options: Options) -> Run:
    """The run as it begins."""
    failed = [
        TargetRun(name, target_of(name), "", True, failure=why, engine=engine_named(name))
        for name, why in fleet.failures.items()
    ]
    return Run(
        schema_version=RUN_SCHEMA_VERSION,
        id=run_id,
        started_at=_now(),
        ended_at=None,
        complete=False,
        note=RUNNING,
        command=list(options.command),
        seed=config.seed,
        scenarios=list(config.scenarios),
        images_source=images.source,
        images_sha256=images.sha256,
        images=images.entries,
        classes=list(images.classes),
        prices_sha256=load_prices().sha256,
        targets=[_target_run(endpoint) for endpoint in fleet.endpoints] + failed,
        machine=machine_facts(),
        versions=versions(),
        planned=0,
        config=config.to_json(),
    )


class Session:
    """One run while it runs."""

    def __init__(
        self,
        run: Run,
        endpoints: Sequence[Endpoint],
        images: ImageSet,
        config: Config,
        options: Options,
        screen: Screen,
        journal: Journal,
        past: Past,
        workers: Executor | None,
    ):
        self.run = run
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.images = images
        self.config = config
        self.options = options
        self.screen = screen
        self.journal = journal
        self.past = past
        since = (datetime.now(UTC) - datetime.fromisoformat(run.started_at)).total_seconds() if run.resumed else 0.0
        self.origin = time.perf_counter() - since
        self.tariffs = {t.name: tariff(t.target, t.twin, load_prices()) for t in run.targets}
        tally = Tally(self.tariffs)
        if run.resumed:
            for sample in read_samples(journal.folder):
                tally.add(sample)
        self.asker = Asker(
            [t.name for t in run.targets], self.endpoints, images, config, options, screen, journal, past, workers,
            tally, self.origin,
        )  # fmt: skip
        self.note: str | None = RUNNING
        self.unreached: dict[str, str] = {}  # target -> why

    async def go(self) -> None:
        """All phases. Cancelled (by Ctrl-C), it returns early and leaves a note."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(self._client(e)) for e in self.endpoints.values()]
                await self._meet(clients)
                reached = {client.name: client for client in clients if client.name not in self.unreached}
                if reached:
                    blocks = self.asker.plan(reached)
                    self._say_cost(blocks)
                    await self._ask_reference()
                    await self.asker.ask_all(reached, blocks)
            self.note = None if reached else "no target could be reached"
        except BudgetExceeded as error:
            self.note = f"ended after {self._done()}: {error}"
            self.screen.say(f"Ended: {error}")
        except asyncio.CancelledError:
            self.note = f"{INTERRUPTED} after {self._done()}"
        except Exception as error:
            self.note = f"ended after {self._done()}: {error}"
            raise

    def closed(self) -> Run:
        """The run as it has ended."""
        targets = [self._closed_target(target) for target in self.run.targets]
        return replace(
            self.run, targets=targets, ended_at=_now(), complete=self.note is None, note=self.note,
            planned=self.asker.planned, spent=self.asker.tally.spent(self.asker.elapsed_s()).to_json(),
        )  # fmt: skip

    def _done(self) -> str:
        return f"{self.asker.measured:,} of {self.asker.planned:,} requests"

    def _client(self, endpoint: Endpoint) -> Client:
        config = self.config
        return Client(
            endpoint.name, endpoint.url, self.images.classes, config.timeout_s, self.origin, self.options.token,
            connections=config.in_flight, fresh=config.fresh, keepalive_s=endpoint.keepalive_s,
        )  # fmt: skip

    async def _meet(self, clients: Sequence[Client]) -> None:
        """Ask everyone who they are. Who cannot be reached at all is out, and none of its requests is planned."""
        answers = await asyncio.gather(*(client.version() for client in clients), return_exceptions=True)
        versions_of, known = {}, {target.name: target for target in self.run.targets}
        for client, answer in zip(clients, answers, strict=True):
            if isinstance(answer, Unreachable):
                self.unreached[client.name] = f"not reached before the run: {answer}"
                self.screen.say(f"{client.name}: {self.unreached[client.name]}")
            elif isinstance(answer, BaseException):
                raise answer
            elif other := _other_engine(known[client.name], answer):
                self.unreached[client.name] = other
                self.screen.say(f"{client.name}: {other}")
            else:
                versions_of[client.name] = answer
        targets = [replace(target, version=versions_of.get(target.name, {})) for target in self.run.targets]
        self.run = replace(self.run, targets=targets)

    async def _ask_reference(self) -> None:
        """The reference's samples, before the measuring: it would take the twins' cores."""
        if all((-1, index) in self.past.keys for index in range(len(self.images.pictures))):
            return
        try:
            with self.screen.counting("Reference", len(self.images.pictures)) as counting:
                async with contextlib.aclosing(reference_samples(self.images)) as found:
                    async for sample in found:
                        if (sample.block, sample.place) not in self.past.keys:
                            self.journal.keep(sample)
                        counting.count()
                        counting.breathe()
        except (NoReference, OSError) as error:
            self.screen.say(f"No reference answers, so no parity to the model itself: {error}")

    def _say_cost(self, blocks: Sequence[Block]) -> None:
        """What the run will cost, where it costs anything."""
        plan = planned(blocks, self.config)
        ahead = predicted(plan.requests, self.tariffs, plan.duration_s, starts=plan.starts)
        if ahead.total_usd or self.options.max_usd is not None:
            self.screen.say(ahead.line("The run will cost"))
        if self.options.max_usd is not None and ahead.total_usd > self.options.max_usd:
            self.screen.say(f"That may be more than --max-usd {self.options.max_usd:g}, at which it would end")

    def _closed_target(self, target: TargetRun) -> TargetRun:
        """With what only the end can tell."""
        endpoint = self.endpoints.get(target.name)
        failure = self.unreached.get(target.name) or self.asker.failures.get(target.name) or target.failure
        if endpoint is None or endpoint.twin is None:
            return replace(target, failure=failure)
        twin = endpoint.twin
        if twin.crashed():
            ended = f"its process ended; the log's last lines:\n{twin.log_tail()}"
            failure = f"{failure}; {ended}" if failure else ended
        return replace(target, failure=failure, peak_memory_mib=round(twin.peak_memory_mib(), 1))


def _target_run(endpoint: Endpoint) -> TargetRun:
    twin = endpoint.twin
    known = TargetRun(endpoint.name, endpoint.target, endpoint.url, twin is not None)
    if twin is None:
        return known
    return replace(
        known, startup_ms=round(twin.startup_ms, 1), cpus=twin.cpus, behind=twin.proxy, engine=twin.engine,
        shipped=_shipped(twin.engine, twin.target.name),
    )  # fmt: skip


@functools.cache
def _shipped(engine: str, target: str) -> dict[str, Any]:
    from infra.local.artifact_size import measure_artifact

    return dataclasses.asdict(measure_artifact(engine, target))


def _other_engine(known: TargetRun, version: Mapping[str, Any]) -> str | None:
    """Why an endpoint is not what it was started as, or what it was before; None when it is, or nobody knows."""
    before, told = engine_of(known), told_engine(version)
    return f"is to run {before} and says that it runs {told}" if before and told and before != told else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
