"""One run: engines alone, cold starts, then rounds that visit every server once, in a new random order."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass

from eval.dataset.image_set import ImageSet
from infra.errors import TwinError
from infra.local.health import free_ports
from infra.local.process import bare_environment
from scripts.benchmarks.http_load import ClosedLoop, ServerGone
from scripts.benchmarks.http_messages import HOST
from scripts.benchmarks.serving.engine_throughput import EngineError, EngineProcess
from scripts.benchmarks.serving.process_tree import ProcessTree, Start, pinned, running
from scripts.benchmarks.serving.record import Cell, EngineSample, MemorySample, Record
from scripts.benchmarks.serving.servers import RAW, Server, Workspace, missing
from scripts.paths import ROOT
from service.schema import VERSION

NEAR_TIE = 0.05  # two probabilities this close may swap order between precisions
CLIENT_CONCURRENCIES, CLIENT_WINDOW_S = (1, 64), 1.0  # of the client against the null server


@dataclass(frozen=True)
class Plan:
    """The size of a run."""

    concurrency: tuple[int, ...] = (1, 16, 64, 256)
    rounds: int = 3
    warmup_s: float = 0.75  # of each cell, before its window
    window_s: float = 3.0
    drain_s: float = 5.0  # at most, for the requests still open before the next cell
    starts: int = 3  # of each server before the rounds; the first warms the file cache and does not count
    engine_s: float = 2.0  # of each measurement of an engine alone
    seed: int = 1

    def estimate_s(self, servers: int) -> float:
        """About how long a run takes: 4 s for a start, 3 s for a server's open requests and end."""
        cells_s = len(self.concurrency) * (self.warmup_s + self.window_s)
        visits_s = servers * (self.rounds * (cells_s + 7) + self.starts * 5)
        return visits_s + 4 * self.rounds * self.engine_s + 20


QUICK = Plan(rounds=1, warmup_s=0.3, window_s=1.0, drain_s=1.5, starts=0, engine_s=1.0)


class Benchmark:
    """Fills the record, which keeps its measurements however the run ends."""

    def __init__(
        self,
        record: Record,
        plan: Plan,
        servers: list[Server],
        workspace: Workspace,
        images: ImageSet,
        cpus: dict[str, int],  # "server", "client"
        show: Callable[[str, str], None],  # text and line ending
    ):
        self.record, self.plan, self.servers, self.workspace = record, plan, servers, workspace
        self._image_set, self._cpus, self._show_text = images, cpus, show
        self._engines: dict[str, EngineProcess] = {}
        self._images: list[tuple[bytes, str, str]] = []  # bytes, media type, label

    def run(self) -> None:
        """Run all steps in order."""
        self._started_at = time.perf_counter()
        rng = random.Random(self.plan.seed)
        with ExitStack() as stack:
            self._drop_unusable()
            self._start_engines(stack)
            self._choose_images()
            self._measure_client()
            for k in range(self.plan.starts):
                self._show(f"starts, {k + 1} of {self.plan.starts}: ")
                for server in rng.sample(self.servers, len(self.servers)):
                    self._measure_start(server, counts=k > 0)
                self._show("", "\n")
            visits = [(k, s) for k in range(self.plan.rounds) for s in rng.sample(self.servers, len(self.servers))]
            for number, (k, server) in enumerate(visits, 1):
                if server.name not in self.record.failures:
                    self._show(f"{number:2} of {len(visits)}, {self._elapsed_s() / 60:4.1f} min  {server.title:40}")
                    self._visit(server, k)
        self.record.complete = True

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._started_at

    def _show(self, text: str, end: str = "") -> None:
        self._show_text(text, end)

    def _fail(self, server: Server, reason: object) -> None:
        """Record and print the failure; the run continues."""
        self.record.failures[server.name] = " ".join(str(reason).split())
        self._show(f"{server.title}: not measured: {self.record.failures[server.name]}", "\n")

    # Before the rounds

    def _drop_unusable(self) -> None:
        for server in self.servers:
            if reason := missing(server, self.workspace.baselines_python):
                self._fail(server, reason)
        self.servers = [server for server in self.servers if server.name not in self.record.failures]

    def _start_engines(self, stack: ExitStack) -> None:
        """Start each engine that a server of ours runs."""
        paths = []
        for index, image in enumerate(self._image_set.images):
            paths.append(self.workspace.folder / f"image-{index:05d}")
            paths[-1].write_bytes(image.data)
        for server in [server for server in self.servers if server.ours]:
            try:
                engine = self._engines[server.engine] = EngineProcess(server.engine, paths, self._cpus["server"])
            except EngineError as error:
                self._fail(server, error)
                continue
            stack.callback(engine.close)
            info = {key: value for key, value in engine.info.items() if key not in ("labels", "margins")}
            self.record.engines[server.engine] = info
            rates = ", ".join(f"{size}: {rate:.0f}" for size, rate in info["batch_rps_by_size"].items())
            self._show(f"{server.engine} alone, images a second by batch size: {rates}", "\n")
        if not self._engines:
            raise EngineError("no engine runs here, so there is no ceiling to compare with")

    def _choose_images(self) -> None:
        """Choose the images on which all engines, and the reference if there is one, agree."""
        infos, reference = [engine.info for engine in self._engines.values()], self._image_set.reference_probabilities
        for index, image in enumerate(self._image_set.images):
            labels = {info["labels"][index] for info in infos}
            if reference is not None:
                labels.add(self._image_set.classes[reference[index].index(max(reference[index]))])
            if len(labels) == 1 and min(info["margins"][index] for info in infos) >= NEAR_TIE:
                self._images.append((image.data, image.media_type, labels.pop()))
        left_out = len(self._image_set.images) - len(self._images)
        self.record.images = {"source": self._image_set.source, "n": len(self._images), "left_out": left_out}
        if not self._images:
            raise EngineError("the engines agree on no image; make golden draws the golden set for these weights")
        if left_out:
            self._show(f"{left_out} images left out: the engines disagree, or are near a tie", "\n")

    def _measure_client(self) -> None:
        """Measure client and network alone."""
        (port,), request = free_ports(1), RAW.request(*self._images[0])
        start = Start((sys.executable, "-m", "scripts.benchmarks.null_server", str(port), request.label), ROOT)
        with self._running(start, "null") as tree:
            tree.first_response_s(port, request)
            for c in CLIENT_CONCURRENCIES:
                result = ClosedLoop(port, [request], c).run(0.2, CLIENT_WINDOW_S, 1.0)
                self.record.client.append(Cell("null", 0, c, result))
                self._show(f"client alone, c={c}: {result.rate_rps:,.0f} a second, "
                           f"{result.client_cpu:.0%} of its core", "\n")  # fmt: skip

    def _measure_start(self, server: Server, *, counts: bool) -> None:
        if server.name in self.record.failures:
            return
        try:
            with self._started(server, counts=counts) as (_, _, seconds):
                self._show(f"{server.name} {seconds:.1f} s  ")
        except TwinError as error:
            self._fail(server, error)

    # The rounds

    def _visit(self, server: Server, k: int) -> None:
        """Start one server, load it at every concurrency, stop it; measure its engine before and after."""
        try:
            self._measure_engine(server, k)
            with self._started(server, counts=True) as (tree, port, seconds):
                self._show(f"{seconds:5.1f} s")
                if server.ours:
                    self.record.reported_versions[server.name] = _version(port)
                self._load(server, tree, port, k)
            self._measure_engine(server, k)
            self._show("", "\n")
        except (TwinError, ServerGone, EngineError) as error:
            self._show("", "\n")
            self._fail(server, error)

    def _load(self, server: Server, tree: ProcessTree, port: int, k: int) -> None:
        requests = [server.upload_format.request(*image) for image in self._images]
        for c in self.plan.concurrency:

            def sample_memory(c: int = c) -> None:
                self.record.memory_samples.append(MemorySample(server.name, k, c, tree.pss_mb()))

            drain_s = 0 if c == self.plan.concurrency[-1] else self.plan.drain_s
            load = ClosedLoop(port, requests, c)
            result = load.run(self.plan.warmup_s, self.plan.window_s, drain_s, sample_memory)
            self.record.cells.append(Cell(server.name, k, c, result))
            self._show(f"  c={c} {result.rate_rps:.0f}/s")
            if result.errors:
                self._show(f" ({', '.join(f'{n} {kind}' for kind, n in result.errors.items())})")
            if tree.ended():
                raise ServerGone(f"ended under load: {tree.last_words()}")

    def _measure_engine(self, server: Server, k: int) -> None:
        if server.ours:
            time_s = self._elapsed_s()
            figures = self._engines[server.engine].measure(self.plan.engine_s)
            self.record.engine_samples.append(EngineSample(server.engine, k, time_s, **figures))

    @contextmanager
    def _started(self, server: Server, *, counts: bool) -> Iterator[tuple[ProcessTree, int, float]]:
        """The server after its first correct response: processes, port, seconds since the start."""
        (port,), request = free_ports(1), server.upload_format.request(*self._images[0])
        if server.name == "ours-torch" and counts:
            self.record.import_torch_s.append(import_torch_s(self._cpus["server"]))
        with self._running(server.start(self.workspace, port), server.name) as tree:
            seconds = tree.first_response_s(port, request)
            if counts:
                self.record.cold_starts_s.setdefault(server.name, []).append(seconds)
            yield tree, port, seconds

    def _running(self, start: Start, name: str) -> AbstractContextManager[ProcessTree]:
        return running(start, [self._cpus["server"]], self.workspace.folder / f"{name}.log")


def import_torch_s(cpu: int) -> float:
    """How long Python takes to import torch and nothing else, started like a server."""
    started_at = time.perf_counter()
    command = pinned(cpu, sys.executable, "-c", "import torch")
    subprocess.run(command, check=True, env=bare_environment(), cwd=ROOT)
    return time.perf_counter() - started_at


def _version(port: int) -> dict[str, object]:
    """The /version of a server of ours; empty on failure."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    with suppress(OSError, ValueError, http.client.HTTPException):
        connection.request("GET", VERSION)
        return json.loads(connection.getresponse().read())
    return {}
