"""One run: engines alone, cold starts, then rounds in which every server has its turn, in an order drawn anew."""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from eval.dataset.images import ImageSet, Picture
from infra.errors import TwinError
from infra.local.health import free_ports
from infra.local.process import PINNED_EXEC, bare_environment
from infra.local.process_spec import ProcessSpec
from scripts.bench_serve.ceiling import CeilingError, EngineAlone
from scripts.bench_serve.load import Load, ServerGone
from scripts.bench_serve.record import Ceiling, Cell, Record, Weight
from scripts.bench_serve.servers import RAW, ROOT, Server, Site, Start, missing
from scripts.bench_serve.tree import Tree
from scripts.bench_serve.wire import HOST
from service.schema import VERSION

NEAR_TIE = 0.05  # two classes this close may change places from one precision to the next
CLIENT_C, CLIENT_S = (1, 64), 1.0  # how the client itself is tried


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    concurrency: tuple[int, ...] = (1, 16, 64, 256)
    rounds: int = 3
    warmup_s: float = 0.75  # of each cell, before its window
    window_s: float = 3.0
    drain_s: float = 5.0  # at most, for the answers still open before the next cell
    starts: int = 3  # of each server before the rounds; the first warms the file cache and does not count
    ceiling_s: float = 2.0  # of each look at an engine alone
    seed: int = 1

    def estimate_s(self, servers: int) -> float:
        """About how long it takes: a start 4 s, the end of a server and what is still open 3 s."""
        cells_s = len(self.concurrency) * (self.warmup_s + self.window_s)
        visits_s = servers * (self.rounds * (cells_s + 7) + self.starts * 5)
        return visits_s + 4 * self.rounds * self.ceiling_s + 20


QUICK = Plan(rounds=1, warmup_s=0.3, window_s=1.0, drain_s=1.5, starts=0, ceiling_s=1.0)


@dataclass
class Bench:
    """Fills the record; whatever ends it, the record holds what was measured until then."""

    record: Record
    plan: Plan
    servers: list[Server]
    site: Site
    images: ImageSet
    cpus: dict[str, int]  # "server", "client"
    say: Callable[[str, str], None]  # a text, and what follows it
    alone: dict[str, EngineAlone] = field(default_factory=dict)
    pictures: list[tuple[Picture, str]] = field(default_factory=list)  # with their labels

    def run(self) -> None:
        """Everything, in order."""
        self._began = time.perf_counter()
        dice = random.Random(self.plan.seed)
        with ExitStack() as stack:
            self._drop_unusable()
            self._look_at_engines(stack)
            self._try_client()
            for k in range(self.plan.starts):
                self._say(f"starts, {k + 1} of {self.plan.starts}: ")
                for server in dice.sample(self.servers, len(self.servers)):
                    self._start_only(server, counts=k > 0)
                self._say("", "\n")
            turns = [(k, s) for k in range(self.plan.rounds) for s in dice.sample(self.servers, len(self.servers))]
            for turn, (k, server) in enumerate(turns, 1):
                if server.name not in self.record.failures:
                    self._say(f"{turn:2} of {len(turns)}, {(time.perf_counter() - self._began) / 60:4.1f} min  "
                              f"{server.title:40}")  # fmt: skip
                    self._visit(server, k)
        self.record.complete = True

    def _say(self, text: str, end: str = "") -> None:
        self.say(text, end)

    def _fail(self, server: Server, reason: object) -> None:
        """One line; the rest goes on."""
        self.record.failures[server.name] = " ".join(str(reason).split())
        self._say(f"{server.title}: not measured: {self.record.failures[server.name]}", "\n")

    # Before the rounds

    def _look_at_engines(self, stack: ExitStack) -> None:
        """Start each engine that a server of ours runs; choose the pictures on which all of them agree."""
        paths = []
        for index, picture in enumerate(self.images.pictures):
            paths.append(self.site.folder / f"picture-{index:05d}")
            paths[-1].write_bytes(picture.data)
        for server in [server for server in self.servers if server.ours]:
            try:
                alone = EngineAlone(server.engine, paths, self.cpus["server"])
            except CeilingError as error:
                self._fail(server, error)
                continue
            stack.callback(alone.close)
            self.alone[server.engine] = alone
            about = {key: value for key, value in alone.about.items() if key not in ("labels", "margins")}
            self.record.engines[server.engine] = about
            rates = ", ".join(f"{size}: {rate:.0f}" for size, rate in about["batch_rps_by_size"].items())
            self._say(f"{server.engine} alone, pictures a second by batch size: {rates}", "\n")
        if not self.alone:
            raise CeilingError("no engine can be run here, so there is nothing to hold a server against")
        abouts = [alone.about for alone in self.alone.values()]
        for index, picture in enumerate(self.images.pictures):
            labels = {about["labels"][index] for about in abouts}
            if self.images.reference is not None:
                row = self.images.reference[index]
                labels.add(self.images.classes[row.index(max(row))])
            if len(labels) == 1 and all(about["margins"][index] >= NEAR_TIE for about in abouts):
                self.pictures.append((picture, labels.pop()))
        left_out = len(self.images.pictures) - len(self.pictures)
        self.record.images = {"source": self.images.source, "n": len(self.pictures), "left_out": left_out}
        if not self.pictures:
            raise CeilingError("the engines agree on no picture; make golden draws the golden set for these weights")
        if left_out:
            self._say(f"{left_out} pictures left out: the engines disagree, or are near a tie", "\n")

    def _drop_unusable(self) -> None:
        for server in self.servers:
            if why := missing(server, self.site.peers_python):
                self._fail(server, why)
        self.servers = [server for server in self.servers if server.name not in self.record.failures]

    def _try_client(self) -> None:
        """What client and network alone can do."""
        (port,), (picture, label) = free_ports(1), self.pictures[0]
        request = RAW.request(picture.data, picture.media_type, label)
        command = (sys.executable, "-m", "scripts.bench_serve.nothing", str(port), label)
        with self._running(Start(ProcessSpec(command), ROOT), "nothing") as tree:
            tree.first_answer_s(port, request)
            for c in CLIENT_C:
                measured = Load(port, [request], c).run(0.2, CLIENT_S, 1.0)
                self.record.client.append(Cell("nothing", 0, c, measured))
                self._say(f"client alone, c={c}: {measured.per_second:,.0f} a second, "
                          f"{measured.client_cpu:.0%} of its core", "\n")  # fmt: skip

    def _start_only(self, server: Server, *, counts: bool) -> None:
        if server.name in self.record.failures:
            return
        try:
            with self._started(server, counts=counts) as (_, _, seconds):
                self._say(f"{server.name} {seconds:.1f} s  ")
        except TwinError as error:
            self._fail(server, error)

    # The rounds

    def _visit(self, server: Server, k: int) -> None:
        """One server's turn: started, loaded at every concurrency, weighed, ended; its engine before and after."""
        try:
            self._measure_alone(server, k)
            with self._started(server, counts=True) as (tree, port, seconds):
                self._say(f"{seconds:5.1f} s")
                if server.ours:
                    self.record.about[server.name] = _version(port)
                self._load(server, tree, port, k)
            self._measure_alone(server, k)
            self._say("", "\n")
        except (TwinError, ServerGone, CeilingError) as error:
            self._say("", "\n")
            self._fail(server, error)

    def _load(self, server: Server, tree: Tree, port: int, k: int) -> None:
        requests = [server.form.request(p.data, p.media_type, label) for p, label in self.pictures]
        for c in self.plan.concurrency:

            def weigh(c: int = c) -> None:
                memory = tree.memory()
                self.record.weights.append(Weight(server.name, k, c, memory.pss_mb, memory.peak_rss_mb))

            last = c == self.plan.concurrency[-1]
            load = Load(port, requests, c)
            measured = load.run(self.plan.warmup_s, self.plan.window_s, 0 if last else self.plan.drain_s, weigh)
            self.record.cells.append(Cell(server.name, k, c, measured))
            self._say(f"  c={c} {measured.per_second:.0f}/s")
            if measured.errors:
                self._say(f" ({', '.join(f'{n} {kind}' for kind, n in measured.errors.items())})")
            if tree.ended():
                raise ServerGone(f"it ended under load: {tree.last_words()}")

    def _measure_alone(self, server: Server, k: int) -> None:
        if server.ours:
            at_s = time.perf_counter() - self._began
            figures = self.alone[server.engine].measure(self.plan.ceiling_s)
            self.record.ceilings.append(Ceiling(server.engine, k, at_s, **figures))

    @contextmanager
    def _started(self, server: Server, *, counts: bool) -> Iterator[tuple[Tree, int, float]]:
        """The server after its first right answer: its processes, port, and how long that took."""
        (port,), (picture, label) = free_ports(1), self.pictures[0]
        if server.name == "ours-torch" and counts:
            self.record.import_torch_s.append(import_torch_s(self.cpus["server"]))
        with self._running(server.start(self.site, port), server.name) as tree:
            seconds = tree.first_answer_s(port, server.form.request(picture.data, picture.media_type, label))
            if counts:
                self.record.starts_s.setdefault(server.name, []).append(seconds)
            yield tree, port, seconds

    @contextmanager
    def _running(self, start: Start, name: str) -> Iterator[Tree]:
        tree = Tree(start, [self.cpus["server"]], self.site.folder / f"{name}.log")
        try:
            yield tree
        finally:
            tree.stop()


def import_torch_s(cpu: int) -> float:
    """How long Python takes that imports torch and nothing else, started like a server."""
    pinned = (sys.executable, "-I", "-S", str(PINNED_EXEC), str(os.getpid()), str(cpu))
    command = (*pinned, sys.executable, "-c", "import torch")
    began = time.perf_counter()
    subprocess.run(command, check=True, env=bare_environment(), cwd=ROOT)
    return time.perf_counter() - began


def _version(port: int) -> dict[str, object]:
    """What a server of ours says of itself; nothing when it does not."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    with suppress(OSError, ValueError, http.client.HTTPException):
        connection.request("GET", VERSION)
        return json.loads(connection.getresponse().read())
    return {}
