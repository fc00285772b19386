"""One run of `./cloudtrial run`, killed at one moment and resumed: what the server got, and what was kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from eval.mock_server.profile import EndpointProfile
from eval.plan.config import config_from_json
from eval.plan.schedule import build_schedule
from eval.samples.model import RUN_JSON, SAMPLES_FILE, Sample
from eval.samples.store import read_run, read_samples
from scripts.paths import ROOT
from scripts.simulations.kills.request_counts import RequestCounts, Snapshot, count_requests
from scripts.simulations.kills.server import CountingServer, counting_server
from scripts.simulations.ssh_nodes import ADDRESSES, Cluster, is_worker, ssh_nodes

# SIGKILL to one of its workers, to the run itself, or to all that runs on a machine that sends for it by ssh
WORKER, RUN, NODE = "worker", "run", "node"
KINDS = (WORKER, RUN, "SIGTERM", "SIGINT", "SIGHUP", NODE)
TARGET, LOG = "a", "log"
PROFILE = EndpointProfile(median_ms=100, sigma=0.5)  # slow, so that several requests are under way at a kill
SENDING_S = 3.0
PLAN = ("--images", "golden", "--scenario", "poisson", "--rate", "30", "--duration", f"{SENDING_S:g}", "--warmup", "0",
        "--baseline-rtt", "0")  # fmt: skip
POLL_S = 0.1
END_TIMEOUT_S = 600.0  # for a run that was killed, or has all its time


@dataclass(frozen=True)
class Senders:
    """What sends for a run."""

    count: int
    are_machines: bool  # else worker processes of this one


@dataclass(frozen=True)
class Moment:
    """When a run is killed, and how."""

    kind: str
    workers: int  # of the run; of NODE the machines with a worker each
    while_sending: bool  # else at any time
    fraction: float  # of the time in which it sends; else of an undisturbed run, or of its workers' lives

    @property
    def senders(self) -> Senders:
        return Senders(self.workers, self.kind == NODE)


@dataclass(frozen=True)
class Spans:
    """How long an undisturbed run takes, and how long its workers live."""

    run_s: float
    workers_s: float


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    killed: bool  # False: the run had ended before
    fell: str  # one of FELL
    counts: RequestCounts
    ended_after_s: float  # from the kill until the last process had ended
    problem: str = ""  # what is wrong beside the counts


FELL = BEFORE, WHILE, AFTER = "before the first request", "while sending", "after the last answer"


@dataclass
class _Run:
    """A run, and the processes that send for it."""

    process: asyncio.subprocess.Process
    workers: dict[int, psutil.Process]

    def find_workers(self) -> list[psutil.Process]:
        """Those that live."""
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(self.process.pid).children():
                if each.pid not in self.workers and is_worker(each):
                    self.workers[each.pid] = each
        return [each for each in self.workers.values() if each.is_running()]

    async def ended(self) -> int:
        """Its exit code, when its workers have ended as well."""
        code = await asyncio.wait_for(self.process.wait(), END_TIMEOUT_S)
        await asyncio.to_thread(psutil.wait_procs, list(self.workers.values()), END_TIMEOUT_S)
        return code

    async def reaches(self, is_there: Callable[[], object]) -> bool:
        """Wait until something is there. Returns False if the run ends before."""
        while self.process.returncode is None:
            if is_there():
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def live_for(self, seconds: float) -> bool:
        """Whether it still lives then."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.process.wait()), seconds)
        return self.process.returncode is None


@contextlib.asynccontextmanager
async def _started(folder: Path, url: str, options: Sequence[str], machines: Cluster | None) -> AsyncIterator[_Run]:
    """A run in a session of its own, which ends with the context at the latest."""
    command = [str(ROOT / "cloudtrial"), "run", "--target", f"{TARGET}={url}", *options]
    with open(folder / LOG, "a", encoding="utf-8") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=os.environ | (machines.environment if machines else {}),
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield _Run(process, {})
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def _machines(folder: Path, senders: Senders) -> AsyncIterator[Cluster | None]:
    """Those that send in place of this one."""
    if not senders.are_machines:
        yield None
        return
    with contextlib.ExitStack() as stack:
        nodes = ssh_nodes(folder / "machines", find_sshd(), ADDRESSES[: senders.count])
        yield await asyncio.to_thread(stack.enter_context, nodes)


def find_sshd() -> str:
    """Its path. Raises FileNotFoundError."""
    if found := shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin"):
        return found
    raise FileNotFoundError(f"kind {NODE} needs an sshd: apt-get install openssh-server")


def _options(folder: Path, workers: int, machines: Cluster | None) -> list[str]:
    """Of a new run."""
    senders = ["--cluster", machines.names] if machines else ["--workers", str(workers)]
    return [*PLAN, *senders, "--out", str(folder / "run")]


async def undisturbed(folder: Path, senders: Senders) -> Spans:
    """The times of a run that nothing kills."""
    async with (
        _machines(folder, senders) as machines,
        counting_server(PROFILE) as server,
        _started(folder, server.url, _options(folder, senders.count, machines), machines) as run,
    ):
        if machines:
            began = time.perf_counter()
            await run.ended()
            return Spans(time.perf_counter() - began, 0.0)
        began = time.perf_counter()
        await run.reaches(run.find_workers)
        first = time.perf_counter()
        while run.find_workers():
            await asyncio.sleep(POLL_S)
        last = time.perf_counter()
        await run.ended()
        return Spans(time.perf_counter() - began, last - first)


async def killed_and_resumed(moment: Moment, spans: Spans, folder: Path) -> Outcome:
    """Kill a run at that moment, resume it, and count."""
    async with _machines(folder, moment.senders) as machines, counting_server(PROFILE) as server:
        try:
            options = _options(folder, moment.workers, machines)
            async with _started(folder, server.url, options, machines) as run:
                killed, ended_after_s = await _kill(run, moment, spans, server, machines)
            await server.idle()
            before = server.arrived(), _samples(folder / "run")
            problem = await _resume(folder, server, moment.workers, machines)
        except TimeoutError:
            return Outcome(
                True, BEFORE, RequestCounts(), END_TIMEOUT_S, f"a run did not end within {END_TIMEOUT_S:.0f} s"
            )
        await server.idle()
        return _outcome(folder, killed, ended_after_s, before, server, problem)


async def _kill(
    run: _Run, moment: Moment, spans: Spans, server: CountingServer, machines: Cluster | None
) -> tuple[bool, float]:
    """Whether there was something to kill, and how long the last process lived on."""
    of_worker = moment.kind == WORKER
    span_s = spans.workers_s if of_worker else spans.run_s
    if moment.while_sending:
        lives, span_s = await run.reaches(lambda: server.is_reached), SENDING_S
    else:
        lives = await run.reaches(run.find_workers) if of_worker else True
    lives = lives and await run.live_for(moment.fraction * span_s)
    workers, began = run.find_workers(), time.perf_counter()
    killed = lives and (bool(workers) or not of_worker)
    if killed and machines:
        machines.nodes[int(moment.fraction * 1e6) % len(machines.nodes)].kill()
    elif killed and of_worker:
        workers[int(moment.fraction * 1e6) % len(workers)].kill()
    elif killed:
        run.process.send_signal(signal.SIGKILL if moment.kind == RUN else signal.Signals[moment.kind])
    await run.ended()
    return killed, time.perf_counter() - began if killed else 0.0


async def _resume(folder: Path, server: CountingServer, workers: int, machines: Cluster | None) -> str:
    """Measure what is missing; a run that has no record yet is begun anew. Returns what went wrong."""
    if _recorded(folder / "run") and read_run(folder / "run").complete:
        return ""
    left = replace(machines, nodes=machines.living()) if machines else None
    options = _options(folder, workers, left)
    if _recorded(folder / "run"):
        options = ["--resume", str(folder / "run"), *(["--cluster", left.names] if left else [])]
    async with _started(folder, server.url, options, left) as run:
        code = await run.ended()
    return f"the resumed run ended with exit code {code}" if code else ""


def _outcome(
    folder: Path, killed: bool, ended_after_s: float, before: tuple[Counter[str], Sequence[Sample]],
    server: CountingServer, problem: str,
) -> Outcome:  # fmt: skip
    if not _recorded(folder / "run"):
        return Outcome(
            killed, BEFORE, RequestCounts(), ended_after_s, problem or "there is no record of the resumed run"
        )
    record = read_run(folder / "run")
    requests = {index: image.sha256 for index, image in enumerate(record.image_manifest)}
    blocks = build_schedule(config_from_json(record.config), [TARGET], len(requests))
    planned = [requests[index] for block in blocks for index in block.image_indices]
    if len(planned) > len(set(planned)):
        raise ValueError(f"{len(planned)} requests with {len(set(planned))} images: they cannot be told apart")
    at_kill = Snapshot.of(before[0], before[1], requests)
    counts = count_requests(planned, at_kill, Snapshot.of(server.arrived(), _samples(folder / "run"), requests))
    said, traceback, frames = (folder / LOG).read_text(encoding="utf-8").partition("Traceback")
    if traceback:  # told here, as a folder of CI's is gone with its machine
        problem = problem or f"{said[-200:]}{traceback}{frames}"
    fell = BEFORE if not at_kill.arrived else WHILE if counts.missing else AFTER
    return Outcome(killed, fell, counts, ended_after_s, problem)


def _recorded(run_dir: Path) -> bool:
    return (run_dir / RUN_JSON).exists()


def _samples(run_dir: Path) -> list[Sample]:
    if not (run_dir / SAMPLES_FILE).exists():
        return []
    return [sample for sample in read_samples(run_dir) if sample.target == TARGET]
