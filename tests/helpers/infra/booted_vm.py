"""A VM of sorts: a Debian tree booted by systemd-nspawn with its own systemd and cloud-init, on this machine's kernel
and network. Port 80 of it is port 80 here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from infra.local.process import Process
from tests.helpers.infra.debian_trees import LOG_TAIL, Torch, furnish
from tests.helpers.running_service import Reply, Server

HTTP_PORT, HTTPS_PORT, SERVICE_PORT, ACME_PORT = 80, 443, 8080, 14000
BUNDLE = "/var/tmp/bundle.tar.gz"  # in the VM: what it would fetch from S3
BOOT_LOG = "var/log/cloud-init-output.log"
TIMEOUT_S = 600  # of any one step
POLL_S = 0.2
NOT_YET = ("", "offline", "unknown")  # what systemctl says before systemd listens
NO_STAND_IN = Torch("none stands in")  # all that the VM installs is of the lock
REBOOT_STATUS = 133  # how systemd-nspawn, kept to its unit, ends when the system in it reboots

# The clouds' way of saying who a VM is needs a cloud; a folder in the tree says it here.
SEED = "var/lib/cloud/seed/nocloud"
CLOUD_INIT = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n"  # the tree has one locale


class Vm:
    """One system; `start` boots it, again after a reboot."""

    def __init__(self, nspawn: str, tree: Path, log: Path):
        self.tree = tree
        self.log = log
        self.process: Process | None = None
        self._command = [
            *(nspawn, "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "--machine=cloudtrial"),
            *("--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--directory={tree}"),
            # Debian 13's systemd refuses control groups of version 1, which this machine may have; a real VM has 2.
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        ]

    def start(self) -> None:
        self.process = Process(self._command, {}, self.tree, sorted(os.sched_getaffinity(0)), self.log)

    def stop(self) -> None:
        """End it in any case: asked first, killed then."""
        if self.process:
            self.process.terminate()
            self.process.reap()

    def do(self, *command: str, check: bool = True) -> str:
        """Run a command as root in the running system, and never in this one."""
        init = self._init_pid()
        assert init, f"{command}: the VM is not running"
        enter = ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def unit(self, name: str, unit: str = "classifier.service") -> str:
        """A property of a unit."""
        return self.do("systemctl", "show", "--value", f"--property={name}", unit)

    def write(self, path: str, text: str) -> None:
        """A file in the running system, as root writes it."""
        self.do("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', "sh", path, text)

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        wait_for("the end of the VM", lambda: self.process.exit_status() is not None, self)
        return self.process.exit_status()

    def boot_log(self) -> str:
        path = self.tree / BOOT_LOG
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until_booted(self) -> dict:
        """What cloud-init says of this boot, once all that it starts has been started: `status` and `errors`."""
        wait_for("the VM's systemd", lambda: self._init_pid() and self._state() not in NOT_YET, self)
        self._state("--wait")
        return json.loads(self.do("cloud-init", "status", "--format", "json", check=False))

    def _init_pid(self) -> int | None:
        """Its first process, by its number here; by name, for before it is systemd it is still in this system."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return next((p.pid for p in psutil.Process(self.process.pid).children() if p.name() == "systemd"), None)
        return None

    def _state(self, *options: str) -> str:
        return self.do("systemctl", "is-system-running", *options, check=False)


@contextlib.contextmanager
def vm_of(nspawn: str, tree: Path, folder: Path, user_data: str, bundle: Path) -> Iterator[Vm]:
    """A new VM, not booted yet, with its user data and its bundle in place; gone at the end, however that comes."""
    home = folder / "vm"
    subprocess.run(["cp", "--archive", "--reflink=auto", tree, home], check=True)
    furnish(home, NO_STAND_IN)
    shutil.copyfile("/etc/resolv.conf", home / "etc/resolv.conf")
    shutil.copyfile(bundle, home / BUNDLE.lstrip("/"))
    (home / "etc/cloud/cloud.cfg.d/99-here.cfg").write_text(CLOUD_INIT)
    (home / SEED).mkdir(parents=True)
    (home / SEED / "user-data").write_text(user_data)
    (home / SEED / "meta-data").write_text("instance-id: i-0123456789abcdef0\nlocal-hostname: classifier\n")
    vm = Vm(nspawn, home, folder / "console.log")
    try:
        yield vm
    finally:
        vm.stop()


def taken_ports() -> list[int]:
    """Those that the VM needs and another program here has."""

    def is_taken(port: int) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return True
            return False

    return [port for port in (HTTP_PORT, HTTPS_PORT, SERVICE_PORT, ACME_PORT) if is_taken(port)]


def readiness() -> Reply | None:
    """What the service says through nginx; None while nothing answers."""
    try:
        return Server(HTTP_PORT, None, None).ask("GET", "/readyz", timeout=5)
    except OSError:
        return None


def is_ready() -> bool:
    return (reply := readiness()) is not None and reply.status == 200


def wait_for(what: str, happened: Callable[[], object], vm: Vm) -> None:
    """Ask until it has happened. Fails with the VM's last words when its time is up, or it has ended before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        ended = vm.process.exit_status()
        if (ended is not None and not happened()) or time.monotonic() > deadline:
            why = f"the VM ended with status {ended}" if ended is not None else f"not within {TIMEOUT_S} s"
            raise AssertionError(f"{what}: {why}\n{vm.process.log_tail()}\n{vm.boot_log()[-LOG_TAIL:]}")
        time.sleep(POLL_S)
