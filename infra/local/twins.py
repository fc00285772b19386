"""The four targets as processes on this machine, started from the clouds' own files.

    with local_twins(["heroku", "aws_ec2"], engines=["torch", "onnx"]) as twins:
        for twin in twins.running: ...

Every target has a twin for each engine, started from the same files, in what is shipped for that engine. They start one
after another, so that each start-up time is its own. Each can be started again at the same address, to measure that or
because it has ended. Leaving the context ends them all, however it is left; on Linux they also end when this process is
killed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import ModelError, PortInUse, TwinError
from infra.local.following.twin_store import TwinStore
from infra.local.health import free_ports, wait_until_ready
from infra.local.nginx import find_nginx, nginx_process
from infra.local.process import CpuClock, Process
from infra.local.process_spec import ProcessSpec
from infra.local.staging import stage, stage_model
from infra.local.start_commands import HOST, START_COMMANDS
from infra.models import DEFAULT_MODEL, as_bundle, choose_engine
from infra.targets import AWS_EC2, TARGETS, TWIN_TARGETS, Target
from service.engines.names import PLAIN_ENGINE, titled, twin_name
from service.model import Bundle

READY_TIMEOUT_S = 120  # at most; a target's own limit where that is lower
PORT_ATTEMPTS = 3  # another program may take a free port before ours does


@dataclass(frozen=True)
class Restart:
    """When a twin was started again, by time.perf_counter()."""

    started_at: float  # just before its process
    ready_at: float  # first success of /readyz


@dataclass(frozen=True)
class Twin:
    """One target with one engine, running here."""

    target: Target
    engine: str  # as ENGINE has it
    model: str  # the name of what it serves
    url: str
    port: int  # of the URL
    startup_ms: float  # from starting the process to the first success of /readyz
    cpus: int  # cores that it is pinned to; all of the machine's where pinning is impossible (macOS)
    proxy: str | None  # "nginx", or None without one
    processes: tuple[Process, ...]  # the service first
    title: str  # as people write it
    ship: Callable[[], str] | None = None  # stages what the store's alias points to now; returns the version

    @property
    def name(self) -> str:
        return twin_name(self.target.name, self.engine)

    @property
    def pid(self) -> int:
        """The service's first process."""
        return self.processes[0].pid

    def peak_memory_mib(self) -> float:
        """Peak memory so far; see Process.peak_memory_mib for how exact it is."""
        return sum(process.peak_memory_mib() for process in self.processes)

    def cpu_clock(self) -> CpuClock:
        """The CPU time of all its processes, from now until one of them ends or is started again."""
        return CpuClock(pid for process in self.processes for pid in process.members())

    def fits(self) -> bool:
        """Whether that fits the target's memory."""
        return fits(self.target, self.peak_memory_mib())

    def log_tail(self) -> str:
        """The last lines that the service printed."""
        return self.processes[0].log_tail()

    def alive(self) -> bool:
        """Whether all of its processes run."""
        return all(process.exit_status() is None for process in self.processes)

    def crashed(self) -> bool:
        """Whether one of them has ended by itself, rather than because the twin was stopped to be started again."""
        return any(process.crashed() for process in self.processes)

    def stop(self, everything: bool = False) -> None:
        """End the service as its platform does: SIGTERM, a time of grace, SIGKILL. nginx stays, as on the VM.

        With `everything` it goes too, and the next start is one from nothing. Any thread may call this.
        """
        _stop_all(self.processes if everything else self.processes[:1])

    def start(self) -> float:
        """Start what does not run, at the same address. Returns time.perf_counter() just before.

        Does not wait until it is ready. Call it in the thread that entered the context: see pinned_exec.py.
        """
        ended = [process for process in self.processes if process.exit_status() is not None]
        for process in ended:
            process.reap()  # its children
        started_at = time.perf_counter()
        for process in ended:
            process.start()
        return started_at

    def restart(self, everything: bool = False) -> Restart:
        """Stop it, or what is left of it, start it and wait until it is ready.

        Raises TwinError when that fails; however this is left early, nothing of the twin runs then.
        """
        try:
            self.stop(everything)
            started_at = self.start()
            wait_until_ready(self.port, self.processes, ready_timeout_s(self.target))
        except BaseException:
            self.stop(everything=True)
            raise
        return Restart(started_at, time.perf_counter())

    def release(self) -> str | None:
        """What brings a new version of the store's model to a platform that ships it: stage it, and start again.

        Returns the version; None, with nothing done, of a twin that follows the store by itself. Raises as `restart`.
        """
        if self.ship is None:
            return None
        version = self.ship()
        self.restart()
        return version


@dataclass(frozen=True)
class Twins:
    """The running twins, and why the others could not be started."""

    running: list[Twin] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # twin's name -> reason, with the last lines of its log


def fits(target: Target, peak_mib: float) -> bool:
    """Whether a process of this size fits the target's memory."""
    return peak_mib <= target.memory_mib


def ready_timeout_s(target: Target) -> float:
    """How long after its start a twin has to be ready."""
    return min(target.boot_timeout_s, READY_TIMEOUT_S)


def cores_for(target: Target, available: Iterable[int]) -> list[int]:
    """As many cores as the target has vCPUs, from the top, so that the client keeps the lowest where it can."""
    return sorted(available)[-math.ceil(target.vcpus) :]


@contextlib.contextmanager
def local_twins(
    names: Iterable[str] = TWIN_TARGETS,
    log_dir: Path | None = None,
    env: Mapping[str, Mapping[str, str]] | None = None,
    on_event: Callable[[str], None] = lambda text: None,
    engines: Iterable[str] = (PLAIN_ENGINE,),
    model: str | Bundle = DEFAULT_MODEL,
    store: TwinStore | None = None,
) -> Iterator[Twins]:
    """Start the named targets' twins; end them when the context is left, in the thread that entered it.

    They serve `model`, a bundle or the name of one in models/, or else what `store` says, with each of `engines`; where
    none is named, with the model's default. `log_dir` keeps NAME.log of each. `env` holds settings of the service by
    the twin's name, as one would set them on that platform. `on_event` receives a line for every event; a failure has
    the last lines of the log.
    """
    twins = Twins()
    with tempfile.TemporaryDirectory(prefix="twins-") as folder, contextlib.ExitStack() as stack:
        logs = log_dir or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        try:
            bundle = store.pull(Path(folder) / "pulled").bundle if store else as_bundle(model)
            chosen = list(engines) or [choose_engine(bundle)]
            shipped = list(itertools.product([_target(name) for name in names], chosen))
            roots = {each: _stage(Path(folder), *each, bundle, store) for each in shipped}
        except ModelError as error:
            raise TwinError(str(error)) from None
        processes: list[Process] = []
        stack.callback(_stop_all, processes)
        for target, engine in shipped:
            name, title = twin_name(target.name, engine), _title(target, engine, bundle)
            on_event(f"{title}: starting")
            own_env = (env or {}).get(name, {})
            starter = _TwinStarter(
                target, engine, bundle, title, roots[target, engine], logs, own_env, processes, store
            )
            try:
                twin = starter.start()
            except TwinError as error:
                twins.failures[name] = str(error)
                on_event(f"{title}: not started: {error}")
            else:
                twins.running.append(twin)
                on_event(f"{title}: ready after {twin.startup_ms / 1000:.1f} s at {twin.url}")
        yield twins


def _stage(folder: Path, target: Target, engine: str, bundle: Bundle, store: TwinStore | None) -> Path:
    """The root of what is shipped. With a store each twin has its own, for a release changes it."""
    root = folder / engine / (target.name if store else "") / "app"
    return root if root.exists() else stage(root, engine, bundle, store=store is not None)


def _title(target: Target, engine: str, bundle: Bundle) -> str:
    """As people write it; with its engine, where that is not the model's plain one."""
    return target.title if engine == choose_engine(bundle) else titled(target.title, engine)


def _target(name: str) -> Target:
    if name not in TWIN_TARGETS:
        raise TwinError(f"no target is called {name!r}: choose from {', '.join(TWIN_TARGETS)}")
    return TARGETS[name]


def _stop_all(processes: Sequence[Process]) -> None:
    """End them all at once, then wait for each."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.reap()


@dataclass(frozen=True)
class _TwinStarter:
    """Starts one twin."""

    target: Target
    engine: str
    bundle: Bundle
    title: str
    root: Path  # what is shipped for that engine
    logs: Path
    env: Mapping[str, str]
    processes: list[Process]  # everything that is running, for the one who ends it
    store: TwinStore | None

    def start(self) -> Twin:
        """The twin, ready. Raises TwinError; nothing of it runs then."""
        for _ in range(PORT_ATTEMPTS - 1):
            with contextlib.suppress(PortInUse):
                return self._attempt()
        return self._attempt()

    def _attempt(self) -> Twin:
        before = len(self.processes)
        try:
            return self._start_once()
        except TwinError:
            for process in self.processes[before:]:
                process.reap(grace_s=0)  # it serves no request yet
            del self.processes[before:]
            raise

    def _start_once(self) -> Twin:
        port, front_port = free_ports(2)
        nginx = find_nginx() if self.target is AWS_EC2 else None
        model = self.bundle.folder.name
        service = START_COMMANDS[self.target.name](self.root, port, self.engine, model)
        followed = self.store.settings(self.target, self.root.parent) if self.store else {}
        timer = self.store.timer(followed, self.root) if self.store and self.target is AWS_EC2 else None
        started_at = time.monotonic()
        # As precise as the target's processor lets PyTorch be: bfloat16 that it lacks would be twice as fast here.
        env = {"ONEDNN_MAX_CPU_ISA": self.target.cpu_isa, **service.env}
        # service/ is linked, and so finds the models of this checkout by itself: the twin is to read what is shipped
        env |= {"MODEL_DIR": str(self.root / env["MODEL_DIR"])} if "MODEL_DIR" in env else {}
        env |= {"DEPLOYMENT": f"a local twin of {self.target.title}", **followed, **self.env}
        running = [self._run(ProcessSpec(service.command, env))]
        if nginx:
            front = nginx_process(nginx, self.root.parent / "nginx", front_port, port)
            running.append(self._run(front, "-nginx"))
        if timer:
            running.append(self._run(timer, "-models"))
        entry = front_port if nginx else port
        wait_until_ready(entry, running, ready_timeout_s(self.target))
        startup_ms = (time.monotonic() - started_at) * 1000
        proxy = "nginx" if nginx else None
        url = f"http://{HOST}:{entry}"
        cpus = len(self._cores())
        ship = self._ship if self.store and not followed else None
        return Twin(
            self.target, self.engine, model, url, entry, startup_ms, cpus, proxy, tuple(running), self.title, ship
        )

    def _ship(self) -> str:
        """Stage what the alias points to now. Returns the version."""
        assert self.store
        stored = self.store.pull(self.root.parent / "pulled")
        stage_model(self.root, self.engine, stored.bundle)
        return stored.version

    def _run(self, launch: ProcessSpec, log_suffix: str = "") -> Process:
        log = self.logs / f"{twin_name(self.target.name, self.engine)}{log_suffix}.log"
        env = {"HOME": str(self.root.parent), **launch.env}
        process = Process(launch.command, env, self.root, self._cores(), log)
        self.processes.append(process)
        return process

    def _cores(self) -> list[int]:
        return cores_for(self.target, available_cores())


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
