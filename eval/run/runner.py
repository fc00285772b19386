"""Runs a benchmark: writes run.json first and last, and a sample as each request finishes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eval.adapters.loading import ready_forms
from eval.cost.price_list import load_price_list
from eval.cost.run_cost import CostMeter, demand_of_schedule, estimate_run_cost, rate_card_for
from eval.dataset.image_set import ImageSet
from eval.errors import (
    BudgetExceeded,
    ClockUncertain,
    EndpointError,
    EvalError,
    ReferenceUnavailable,
    Unreachable,
    WorkerLost,
)
from eval.formatting import plural
from eval.load.client import Client, RequestSpec
from eval.load.foreign import find_adapter, first_images, forms_at
from eval.load.load_generator import LoadGenerator, RunContext, RunOptions
from eval.load.open_files import allow_connections
from eval.load.pauses import COMPUTING, STOPPED, SUSPENDED, ClientPause
from eval.load.refusals import is_other_format
from eval.load.workers.cores import cores_warning
from eval.load.workers.pool import WorkerPool
from eval.plan.config import OPEN_LOOPS, SINGLE, Config
from eval.plan.schedule import Block, fewer_restarts
from eval.progress import Reporter
from eval.run.environment import collect_environment, collect_versions
from eval.run.record_size import check_readable
from eval.run.reference import reference_samples
from eval.run.run_dir import lock_run_dir, update_latest
from eval.samples.model import (
    MAX_PAUSES,
    MAX_SENDERS,
    RUN_SCHEMA_VERSION,
    RUNNING,
    PauseRecord,
    Run,
    TargetRun,
)
from eval.samples.store import (
    ResumeState,
    SampleWriter,
    os_errors_as_eval_error,
    read_samples,
    write_run,
)
from eval.targets.endpoints import Endpoint, TargetSet, stack_target_name, target_for_name
from eval.targets.engines import engine_of, reported_engine
from eval.targets.tokens import is_loopback
from infra.models import DEFAULT_MODEL, choose_engine, read_model
from service.engines.names import engine_named
from service.system import usable_cpus

PAUSE_TEXTS = {  # by cause
    SUSPENDED: "{} was suspended",
    STOPPED: "{} got no processor, or was stopped,",
    COMPUTING: "{} was busy with itself",
}
OWN_ADDRESS = (
    "{} is at {}, which on {} is that machine itself: name an address that leads to the target from every machine of"
    " --cluster; twins have none"
)
INTERRUPTED_PREFIX = "interrupted"  # starts the incomplete_reason of a run that a signal ended
WORKER_LOST_PREFIXES = (WorkerLost.what, ClockUncertain.what)  # of one that ended because of a process that sends


def execute_run(
    run_dir: Path, run: Run, target_set: TargetSet, image_set: ImageSet, config: Config, options: RunOptions,
    reporter: Reporter,
    resume_state: ResumeState | None = None,
    *,
    latest: bool = False,
) -> Run:  # fmt: skip
    """Execute the run, or the rest of a resumed one, and return its record. A signal ends it early, which is recorded.

    No other process can measure into the folder meanwhile; who resumes a run has locked it before reading it.
    latest: point the link `latest` to the run as soon as it is recorded, so that it can be found if it is killed.
    Raises EvalError if the folder cannot be written. A second signal raises KeyboardInterrupt.
    """
    with reporter.activity("Preparing the run"):
        importlib.import_module("scipy.stats")  # takes a second, which must not fall into the measurement
        cost_meter, measured_until_s = _earlier_part(run, run_dir)
    with contextlib.ExitStack() as stack:
        if resume_state is None:
            stack.enter_context(lock_run_dir(run_dir))
        check_readable(run)
        if set(config.scenarios) & OPEN_LOOPS:  # the others have one request at a time
            allow_connections(config.in_flight, len(target_set.endpoints))
        with os_errors_as_eval_error(run_dir):
            write_run(run_dir, run, options.scrub)
        if latest:
            update_latest(run_dir)
        sample_writer = stack.enter_context(SampleWriter(run_dir, create=resume_state is None, scrub=options.scrub))
        context = RunContext(
            target_names=[target.name for target in run.targets],
            endpoints={endpoint.name: endpoint for endpoint in target_set.endpoints},
            image_set=image_set,
            config=config,
            options=options,
            reporter=reporter,
            sample_writer=sample_writer,
            resume_state=resume_state or ResumeState(),
            cost_meter=cost_meter,
            run_start=_run_start(run, measured_until_s),
        )
        session = RunSession(run, context)
        try:
            options.interruptions.run(session.run())
        finally:
            final_run = session.finished_run()
            with os_errors_as_eval_error(run_dir):
                write_run(run_dir, final_run, options.scrub)
    return final_run


def new_run(run_id: str, target_set: TargetSet, image_set: ImageSet, config: Config, options: RunOptions) -> Run:
    """The record of a run that starts."""
    stack_names = {stack_target_name(stack) for stack in config.stacks}
    failed_targets = [
        TargetRun(name, target_for_name(name), "", name not in stack_names, failure=reason,
                  engine=None if name in stack_names else engine_named(name))
        for name, reason in target_set.start_failures.items()
    ]  # fmt: skip
    return Run(
        schema_version=RUN_SCHEMA_VERSION,
        id=run_id,
        started_at=_utc_now(),
        ended_at=None,
        complete=False,
        incomplete_reason=RUNNING,
        command=list(options.command_line),
        seed=config.seed,
        scenarios=list(config.scenarios),
        images_source=image_set.source,
        images_sha256=image_set.sha256,
        image_manifest=image_set.entries,
        classes=list(image_set.classes),
        prices_sha256=load_price_list().sha256,
        targets=[_new_target_run(endpoint) for endpoint in target_set.endpoints] + failed_targets,
        client_environment=collect_environment(),
        versions=collect_versions(),
        planned_requests=0,
        config=config.to_json(),
        input_kind=image_set.kind,
        model=image_set.model,
        reference_engine=choose_engine(read_model(image_set.model or DEFAULT_MODEL)),
    )


class RunSession:
    """Executes one run."""

    def __init__(self, run: Run, context: RunContext):
        self.run_record = run
        self.context = context
        config, options = context.config, context.options
        self._workers = (
            WorkerPool(
                config.workers, context.run_start, self._note_pause, options.scrub, options.nodes, self._write_run
            )
            if config.workers > 1 or options.nodes
            else None
        )
        self.load_generator = LoadGenerator(context, self._note_pause, self._workers)
        self.incomplete_reason: str | None = RUNNING
        self.unreachable: dict[str, str] = {}  # target -> why

    async def run(self) -> None:
        """Execute all phases. On cancellation (Ctrl-C) it returns early and records why."""
        try:
            self.load_generator.plan_blocks(self.context.endpoints)  # what an interruption from here on is told of
            self._warn_of_few_cores()
            self._tell_fewer_restarts()
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(self._create_client(endpoint))
                    for endpoint in self.context.endpoints.values()
                ]
                with self.context.reporter.activity("Reaching the targets"):
                    usable, blocks = await self._reach_targets(clients)
                if usable:
                    await self._start_workers(stack)
                    await self._run_reference(usable)
                    await self.load_generator.run(usable, blocks)
            self.incomplete_reason = self._unfinished_text(usable) if usable else "no target could be measured"
        except BudgetExceeded as error:
            self.incomplete_reason = f"ended after {self._progress_text()}: {error}"
            self.context.reporter.event(f"Ended: {error}")
        except WorkerLost as error:
            self.incomplete_reason = f"{error.what} after {self._progress_text()}: {error}"
        except asyncio.CancelledError:
            self.incomplete_reason = f"{INTERRUPTED_PREFIX} after {self._progress_text()}"
        except Exception as error:
            self.incomplete_reason = f"ended after {self._progress_text()}: {error}"
            raise

    def _unfinished_text(self, usable: Collection[str]) -> str | None:
        """Why the run is not complete if an earlier part has measured a target, and this one could not go on."""
        for target in self.run_record.targets:
            if target.name not in usable and self.load_generator.is_partly_measured(target.name):
                return f"{target.name} is measured in part: {self._failure_of(target)}"
        return None

    def _warn_of_few_cores(self) -> None:
        twins = [endpoint.twin for endpoint in self.context.endpoints.values() if endpoint.twin]
        pinned = max((twin.cpus for twin in twins), default=0)  # all of them to the same, and one is asked at a time
        own_workers = self._workers.per_machine if self._workers and self._workers.is_local else 0
        if warning := cores_warning(own_workers, usable_cpus(), pinned):
            self.context.reporter.event(warning)

    def _tell_fewer_restarts(self) -> None:
        commands = self.context.options.restart_commands
        restartable = any(each.twin or each.name in commands for each in self.context.endpoints.values())
        text = fewer_restarts(self.context.config, len(self.context.image_set.images))
        if restartable and text:
            self.context.reporter.event(text)

    async def _start_workers(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the processes that send the open loops, and wait until they are ready: before anything is measured."""
        if self._workers is None:
            return
        with self.context.reporter.activity(f"Starting {plural(self._workers.count, 'worker')}"):
            await stack.enter_async_context(self._workers)
        for warning in self._workers.warnings:
            self.context.reporter.event(warning)
        elsewhere = self._workers.elsewhere()
        for name, endpoint in self.context.endpoints.items():
            if elsewhere and is_loopback(endpoint.url):
                raise EvalError(OWN_ADDRESS.format(name, endpoint.url, elsewhere[0]))
        self._write_run()

    def _record_so_far(self) -> Run:
        """The run's record, with the machines that have sent in this part of it."""
        senders = self._workers.records if self._workers else []
        return replace(self.run_record, senders=[*self.run_record.senders, *senders][-MAX_SENDERS:])

    def _write_run(self) -> None:
        """At once: the run may be killed later."""
        context = self.context
        with os_errors_as_eval_error(context.sample_writer.run_dir):
            write_run(context.sample_writer.run_dir, self._record_so_far(), context.options.scrub)

    def finished_run(self) -> Run:
        """The record of the finished run."""
        targets = [self._finished_target(target) for target in self.run_record.targets]
        return replace(
            self._record_so_far(), targets=targets, ended_at=_utc_now(), complete=self.incomplete_reason is None,
            incomplete_reason=self.incomplete_reason,
            planned_requests=self.load_generator.planned_requests or self.run_record.planned_requests,
            cost=self.context.cost_meter.run_cost(self.context.elapsed_s()).to_report(),
        )  # fmt: skip

    def _note_pause(self, pause: ClientPause) -> None:
        """Record a pause of this process, or of a worker."""
        context = self.context
        record = PauseRecord(round(pause.start - context.run_start, 3), round(pause.duration_s, 3), pause.cause)
        self.run_record = replace(self.run_record, pauses=[*self.run_record.pauses, record][:MAX_PAUSES])
        cause = PAUSE_TEXTS[pause.cause].format(pause.whose)
        context.reporter.event(f"Not measured: {cause} for {pause.duration_s:.1f} s")
        self._write_run()

    def _progress_text(self) -> str:
        return f"{self.load_generator.measured_requests:,} of {self.load_generator.planned_requests:,} requests"

    def _create_client(self, endpoint: Endpoint) -> Client:
        config = self.context.config
        return Client(
            endpoint.name, endpoint.url, self.context.image_set.classes, config.timeout_s, self.context.run_start,
            endpoint.token,
            scrub=self.context.options.scrub,
            max_connections=config.in_flight, no_connection_reuse=config.fresh, keepalive_s=endpoint.keepalive_s,
            access=endpoint.access, signer=endpoint.signer,
        )  # fmt: skip

    async def _reach_targets(self, clients: Sequence[Client]) -> tuple[dict[str, Client], list[Block]]:
        """The targets that take part, by name, and their schedule: what they run, and their first request."""
        await self._identify_targets(clients)
        await asyncio.gather(*map(self._adapt, clients))
        usable = {client.name: client for client in clients if client.name not in self.unreachable}
        blocks = self.load_generator.plan_blocks(usable)
        if usable:
            self._print_cost_estimate(blocks)
            await self.load_generator.send_first_requests(usable, blocks)
            for name in self.load_generator.failures:
                del usable[name]
            blocks = self.load_generator.plan_blocks(usable)
        return usable, blocks

    async def _identify_targets(self, clients: Sequence[Client]) -> None:
        """Fetch /version of every target. An unreachable target gets no requests."""
        image = self.context.image_set.images[0]
        responses = await asyncio.gather(*(client.fetch_version(image) for client in clients), return_exceptions=True)
        versions_by_target, targets_by_name = {}, {target.name: target for target in self.run_record.targets}
        for client, response in zip(clients, responses, strict=True):
            if isinstance(response, Unreachable):
                self.unreachable[client.name] = f"not reached before the run: {response}"
                self.context.reporter.event(f"{client.name}: {self.unreachable[client.name]}")
            elif isinstance(response, BaseException):
                raise response
            elif mismatch := _engine_mismatch(targets_by_name[client.name], response):
                self.unreachable[client.name] = mismatch
                self.context.reporter.event(f"{client.name}: {mismatch}")
            else:
                versions_by_target[client.name] = response
        targets = [
            replace(target, version=versions_by_target.get(target.name, target.version))  # of a part before this one
            for target in self.run_record.targets
        ]
        self.run_record = replace(self.run_record, targets=targets)

    async def _adapt(self, client: Client) -> None:
        """Find how an endpoint is asked that has an --adapter, or that does not answer as this project's service.

        Not where /version responds as this service's, or its first prediction. One that is not understood gets no more
        requests.
        """
        endpoint, option = self.context.endpoints[client.name], self.context.options.adapters.get(client.name)
        images = first_images(self.context.image_set.images)
        if client.name in self.unreachable or endpoint.twin:
            return
        is_bare, is_failing = not urlsplit(endpoint.url).path, False
        if not option:
            if next(target.version for target in self.run_record.targets if target.name == client.name):
                return
            sample, _ = await client.send(RequestSpec(SINGLE, "warmup", -1, 0, images[0]))
            if sample.error is None:
                return
            is_failing = is_bare and (sample.status or 0) >= 500  # ill, or it cannot read this body
            if is_bare and not is_failing and not is_other_format(sample):
                return
        forms = forms_at(endpoint.url, [option.request] if option else ready_forms().values())
        try:
            client.adapter = await find_adapter(client, images, forms, option.answer if option else None)
        except EndpointError as error:
            if is_failing:
                return  # it is measured as it is
            self.unreachable[client.name] = self.context.options.scrub(str(error))
            self.context.reporter.event(f"{client.name}: {error}")
            return
        text = client.adapter.text()
        self.context.reporter.event(f"{client.name}: {text}")
        targets = [replace(t, adapter=text) if t.name == client.name else t for t in self.run_record.targets]
        self.run_record = replace(self.run_record, targets=targets)

    async def _run_reference(self, clients: Mapping[str, Client]) -> None:
        """Record the reference's samples before the measurement, because it uses the twins' cores.

        There are none where no target serves a model of models/.
        """
        if self.context.image_set.model is None or all(client.adapter for client in clients.values()):
            return
        if all(
            (-1, index) in self.context.resume_state.completed for index in range(len(self.context.image_set.images))
        ):
            return
        try:
            async with (
                self.context.reporter.progress_bar("Reference", len(self.context.image_set.images)) as progress,
                contextlib.aclosing(reference_samples(self.context.image_set)) as samples,
            ):
                async for sample in samples:
                    if (sample.block, sample.index_in_block) not in self.context.resume_state.completed:
                        self.context.sample_writer.append(sample)
                    progress.advance()
                    progress.maybe_refresh()
        except (ReferenceUnavailable, OSError) as error:
            self.context.reporter.event(f"No reference predictions, so no comparison with the model itself: {error}")

    def _print_cost_estimate(self, blocks: Sequence[Block]) -> None:
        """Print what the run will cost, if it costs anything."""
        reporter, max_usd = self.context.reporter, self.context.options.max_usd
        demand = demand_of_schedule(blocks, self.context.config)
        rate_cards = self.context.cost_meter.rate_cards
        estimate = estimate_run_cost(
            demand.requests_by_target, rate_cards, demand.duration_s, starts_by_target=demand.starts_by_target
        )
        if estimate.total_usd or max_usd is not None:
            reporter.event(estimate.summary_line())
        if max_usd is not None and estimate.total_usd > max_usd:
            reporter.event(f"That may exceed --max-usd {max_usd:g}, at which the run would end")

    def _failure_of(self, target: TargetRun) -> str | None:
        return self.unreachable.get(target.name) or self.load_generator.failures.get(target.name) or target.failure

    def _finished_target(self, target: TargetRun) -> TargetRun:
        """The target with its failure and peak memory."""
        endpoint = self.context.endpoints.get(target.name)
        failure = self._failure_of(target)
        if endpoint is None or endpoint.twin is None:
            return replace(target, failure=failure)
        twin = endpoint.twin
        if twin.crashed():
            exit_message = f"its process ended; the last lines of its log:\n{twin.log_tail()}"
            failure = f"{failure}; {exit_message}" if failure else exit_message
        peak_mib = max(twin.peak_memory_mib(), target.peak_memory_mib or 0.0)  # that of a run before it was resumed
        return replace(target, failure=failure, peak_memory_mib=round(peak_mib, 1))


def _earlier_part(run: Run, run_dir: Path) -> tuple[CostMeter, float]:
    """The cost meter, which has counted the samples of a resumed run, and when the last of these ended."""
    prices, measured_until_s = load_price_list(), 0.0
    cost_meter = CostMeter({target.name: rate_card_for(target, prices) for target in run.targets})
    if run.resumed_at:
        for sample in read_samples(run_dir, run):
            cost_meter.record(sample)
            measured_until_s = max(measured_until_s, sample.scheduled_s + sample.latency_ms / 1000)
    return cost_meter, measured_until_s


def _run_start(run: Run, measured_until_s: float) -> float:
    """Of time.perf_counter(). How long ago a resumed run began, the wall clock alone tells, and it may be set back."""
    elapsed_s = (datetime.now(UTC) - datetime.fromisoformat(run.started_at)).total_seconds() if run.resumed_at else 0.0
    return time.perf_counter() - max(elapsed_s, measured_until_s)


def _new_target_run(endpoint: Endpoint) -> TargetRun:
    twin = endpoint.twin
    target_run = TargetRun(
        endpoint.name, endpoint.target, endpoint.url, twin is not None, size=endpoint.size, region=endpoint.region
    )
    if twin is None:
        return target_run
    return replace(
        target_run, startup_ms=round(twin.startup_ms, 1), cpus=twin.cpus, reverse_proxy=twin.proxy, engine=twin.engine,
        artifact=_artifact_sizes(twin.engine, twin.target.name, twin.model),
    )  # fmt: skip


@functools.cache
def _artifact_sizes(engine: str, target: str, model: str) -> dict[str, Any]:
    from infra.local.artifact_size import measure_artifact

    return dataclasses.asdict(measure_artifact(engine, target, model))


def _engine_mismatch(target_run: TargetRun, version: Mapping[str, Any]) -> str | None:
    """Why an endpoint does not run the engine it was started with; None if it does, or if unknown."""
    expected, reported = engine_of(target_run), reported_engine(version)
    return (
        f"engine mismatch: expected {expected}, /version reports {reported}"
        if expected and reported and expected != reported
        else None
    )


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
