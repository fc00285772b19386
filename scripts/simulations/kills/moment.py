"""One run of `./cloudtrial run`, killed at one moment and resumed: what the server got, and what was kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from eval.mock_server.profile import EndpointProfile
from eval.plan.config import config_from_json
from eval.plan.schedule import build_schedule
from eval.samples.model import RUN_JSON, SAMPLES_FILE, Sample
from eval.samples.store import read_run, read_samples
from scripts.paths import ROOT
from scripts.simulations.kills.server import CountingServer, counting_server
from scripts.simulations.kills.tally import Look, Tally, tally

WORKER, RUN = "worker", "run"  # SIGKILL to one of its workers, or to the run itself
KINDS = (WORKER, RUN, "SIGTERM", "SIGINT", "SIGHUP")
TARGET, LOG = "a", "log"
PROFILE = EndpointProfile(median_ms=100, sigma=0.5)  # slow, so that several requests are under way at a kill
SENDING_S = 3.0
PLAN = ("--images", "golden", "--scenario", "poisson", "--rate", "30", "--duration", f"{SENDING_S:g}", "--warmup", "0",
        "--baseline-rtt", "0")  # fmt: skip
POLL_S = 0.1
END_TIMEOUT_S = 600.0  # for a run that was killed, or has all its time


@dataclass(frozen=True)
class Moment:
    """When a run is killed, and how."""

    kind: str
    workers: int  # of the run
    while_sending: bool  # else at any time
    fraction: float  # of the time in which it sends; else of an undisturbed run, or of its workers' lives


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
    tally: Tally
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
                if each.pid not in self.workers and "eval.load.workers" in each.cmdline():
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
async def _started(folder: Path, url: str, *options: str) -> AsyncIterator[_Run]:
    """A run in a session of its own, which ends with the context at the latest."""
    command = [str(ROOT / "cloudtrial"), "run", "--target", f"{TARGET}={url}", *options]
    with open(folder / LOG, "a", encoding="utf-8") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield _Run(process, {})
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _options(folder: Path, workers: int) -> list[str]:
    return [*PLAN, "--workers", str(workers), "--out", str(folder / "run")]


async def undisturbed(folder: Path, workers: int) -> Spans:
    """The times of a run that nothing kills."""
    async with counting_server(PROFILE) as server, _started(folder, server.url, *_options(folder, workers)) as run:
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
    async with counting_server(PROFILE) as server:
        try:
            async with _started(folder, server.url, *_options(folder, moment.workers)) as run:
                killed, ended_after_s = await _kill(run, moment, spans, server)
            await server.idle()
            before = server.arrived(), _samples(folder / "run")
            problem = await _resume(folder, server, moment.workers)
        except TimeoutError:
            return Outcome(True, BEFORE, Tally(), END_TIMEOUT_S, f"a run did not end within {END_TIMEOUT_S:.0f} s")
        await server.idle()
        return _outcome(folder, killed, ended_after_s, before, server, problem)


async def _kill(run: _Run, moment: Moment, spans: Spans, server: CountingServer) -> tuple[bool, float]:
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
    if killed and of_worker:
        workers[int(moment.fraction * 1e6) % len(workers)].kill()
    elif killed:
        run.process.send_signal(signal.SIGKILL if moment.kind == RUN else signal.Signals[moment.kind])
    await run.ended()
    return killed, time.perf_counter() - began if killed else 0.0


async def _resume(folder: Path, server: CountingServer, workers: int) -> str:
    """Measure what is missing; a run that has no record yet is begun anew. Returns what went wrong."""
    if _recorded(folder / "run") and read_run(folder / "run").complete:
        return ""
    options = ["--resume", str(folder / "run")] if _recorded(folder / "run") else _options(folder, workers)
    async with _started(folder, server.url, *options) as run:
        code = await run.ended()
    return f"the resumed run ended with exit code {code}" if code else ""


def _outcome(
    folder: Path, killed: bool, ended_after_s: float, before: tuple[Counter[str], Sequence[Sample]],
    server: CountingServer, problem: str,
) -> Outcome:  # fmt: skip
    if not _recorded(folder / "run"):
        return Outcome(killed, BEFORE, Tally(), ended_after_s, problem or "there is no record of the resumed run")
    record = read_run(folder / "run")
    requests = {index: image.sha256 for index, image in enumerate(record.image_manifest)}
    blocks = build_schedule(config_from_json(record.config), [TARGET], len(requests))
    planned = [requests[index] for block in blocks for index in block.image_indices]
    if len(planned) > len(set(planned)):
        raise ValueError(f"{len(planned)} requests with {len(set(planned))} images: they cannot be told apart")
    at_kill = Look.of(before[0], before[1], requests)
    counts = tally(planned, at_kill, Look.of(server.arrived(), _samples(folder / "run"), requests))
    if "Traceback" in (folder / LOG).read_text(encoding="utf-8"):
        problem = problem or "a traceback"
    fell = BEFORE if not at_kill.arrived else WHILE if counts.missing else AFTER
    return Outcome(killed, fell, counts, ended_after_s, problem)


def _recorded(run_dir: Path) -> bool:
    return (run_dir / RUN_JSON).exists()


def _samples(run_dir: Path) -> list[Sample]:
    if not (run_dir / SAMPLES_FILE).exists():
        return []
    return [sample for sample in read_samples(run_dir) if sample.target == TARGET]
