"""Starts one twin: its service, and what stands in front of it or runs beside it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import PortInUse, TwinError
from infra.local.following.twin_store import TwinStore
from infra.local.health import free_ports, wait_until_ready
from infra.local.invoke_endpoint.process import invoke_endpoint_process, invoke_url
from infra.local.nginx import find_nginx, nginx_process
from infra.local.process import Process
from infra.local.process_spec import ProcessSpec
from infra.local.running.twin import Twin, ready_route, ready_timeout_s
from infra.local.staging import stage_model, stage_mounted
from infra.local.start_commands import HOST, START_COMMANDS, mounted_model
from infra.targets import AWS_EC2, AWS_SAGEMAKER, Target
from service.engines.names import twin_name
from service.model import Bundle

PORT_ATTEMPTS = 3  # another program may take a free port before ours does


def cores_for(target: Target, available: Iterable[int]) -> list[int]:
    """As many cores as the target has vCPUs, from the top, so that the client keeps the lowest where it can."""
    return sorted(available)[-math.ceil(target.vcpus) :]


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class TwinStarter:
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
        running, platform = [self._run(ProcessSpec(service.command, env))], list[Process]()
        if nginx:
            front = nginx_process(nginx, self.root.parent / "nginx", front_port, port)
            running.append(self._run(front, "-nginx"))
        if timer:
            running.append(self._run(timer, "-models"))
        if self.target is AWS_SAGEMAKER:  # the front is AWS's, and takes none of the instance's cores
            platform.append(self._run(invoke_endpoint_process(front_port, port), "-front", available_cores()))
        proxy = "nginx" if nginx else "InvokeEndpoint" if platform else None
        entry = front_port if proxy else port
        wait_until_ready(entry, [*running, *platform], ready_timeout_s(self.target), ready_route(self.target))
        startup_ms = (time.monotonic() - started_at) * 1000
        url = invoke_url(entry) if platform else f"http://{HOST}:{entry}"
        ship = self._ship if self.store and not followed else None
        return Twin(
            self.target, self.engine, model, url, entry, startup_ms, len(self._cores()), proxy, tuple(running),
            self.title, tuple(platform), ship,
        )  # fmt: skip

    def _ship(self) -> str:
        """Stage what the alias points to now. Returns the version."""
        assert self.store
        stored = self.store.pull(self.root.parent / "pulled")
        if self.target is AWS_SAGEMAKER:
            stage_mounted(mounted_model(self.root), self.engine, stored.bundle)
        else:
            stage_model(self.root, self.engine, stored.bundle)
        return stored.version

    def _run(self, launch: ProcessSpec, log_suffix: str = "", cores: Sequence[int] = ()) -> Process:
        log = self.logs / f"{twin_name(self.target.name, self.engine)}{log_suffix}.log"
        env = {"HOME": str(self.root.parent), **launch.env}
        process = Process(launch.command, env, self.root, cores or self._cores(), log)
        self.processes.append(process)
        return process

    def _cores(self) -> list[int]:
        return cores_for(self.target, available_cores())
