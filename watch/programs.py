"""Prometheus and Alertmanager as processes on this machine, which listen on 127.0.0.1 alone and end with this one."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.errors import PortInUse
from infra.local.health import free_ports, wait_until_ready
from infra.local.process import Process
from infra.local.running.starter import available_cores
from infra.local.start_commands import HOST

READY_TIMEOUT_S = 60
READY_ROUTE = "/-/ready"  # of both
PORT_ATTEMPTS = 3  # another program may take a free port before ours does


@dataclass(frozen=True)
class Program:
    """How one of them is called and started."""

    title: str
    names: tuple[str, ...]  # of its executable: upstream's, Debian's
    port: int  # that people expect; another one where it is taken
    how_to_get: str

    def find(self) -> str | None:
        """Its path, or None where it is not installed."""
        return next(filter(None, map(shutil.which, self.names)), None)


PROMETHEUS = Program("Prometheus", ("prometheus",), 9090, "apt-get install prometheus, or brew install prometheus")
ALERTMANAGER = Program(
    "Alertmanager", ("alertmanager", "prometheus-alertmanager"), 9093, "apt-get install prometheus-alertmanager"
)


@dataclass(frozen=True)
class Running:
    """One of them, ready."""

    address: str  # HOST:PORT
    process: Process

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@contextlib.contextmanager
def prometheus(path: str, folder: Path, config: str) -> Iterator[Running]:
    """Start Prometheus with the text of a prometheus.yml; its data are in `folder`. Raises TwinError."""
    file = folder / "prometheus.yml"
    file.write_text(config, encoding="utf-8")
    options = (f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}", "--log.level=warn")
    with _running(PROMETHEUS, path, folder, options) as running:
        yield running


@contextlib.contextmanager
def alertmanager(path: str, folder: Path, config: Path) -> Iterator[Running]:
    """Start Alertmanager, without its cluster's port. Raises TwinError."""
    data = folder / "alertmanager"
    options = (f"--config.file={config}", f"--storage.path={data}", "--cluster.listen-address=", "--log.level=warn")
    with _running(ALERTMANAGER, path, folder, options) as running:
        yield running


@contextlib.contextmanager
def _running(program: Program, path: str, folder: Path, options: Sequence[str]) -> Iterator[Running]:
    running = _start(program, path, folder, options)
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.reap()


def _start(program: Program, path: str, folder: Path, options: Sequence[str]) -> Running:
    for _ in range(PORT_ATTEMPTS - 1):
        with contextlib.suppress(PortInUse):
            return _attempt(program, path, folder, options)
    return _attempt(program, path, folder, options)


def _attempt(program: Program, path: str, folder: Path, options: Sequence[str]) -> Running:
    port = program.port if _is_free(program.port) else free_ports(1)[0]
    command = (path, *options, f"--web.listen-address={HOST}:{port}")
    process = Process(command, {}, folder, available_cores(), folder / f"{program.names[0]}.log")
    try:
        wait_until_ready(port, [process], READY_TIMEOUT_S, READY_ROUTE)
        if not _listens(process, port):  # another Prometheus took the port in between, and it was that which answered
            raise PortInUse(f"another program took port {port}")
    except BaseException:
        process.reap(grace_s=0)
        raise
    return Running(f"{HOST}:{port}", process)


def _listens(process: Process, port: int) -> bool:
    sockets = psutil.Process(process.pid).net_connections("inet")
    return any(each.laddr.port == port and each.status == psutil.CONN_LISTEN for each in sockets)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
