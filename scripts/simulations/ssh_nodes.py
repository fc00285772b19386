"""Machines that send, on this one: a real sshd each, with keys, a known_hosts and a home of their own.

Without root they are addresses of this machine's loopback (127.0.0.2, 127.0.0.3). With root they can be network
namespaces, with links that can be cut and a monotonic clock that is hours off.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ADDRESSES = ("127.0.0.2", "127.0.0.3")
PRIVILEGE_SEPARATION_DIR = Path("/run/sshd")  # which an sshd of root insists on, and Debian's service makes


@dataclass(frozen=True)
class SshNode:
    """One machine with its sshd."""

    address: str
    port: int
    home: Path
    sshd: subprocess.Popen[bytes]
    log_file: Path  # of sshd

    @property
    def senders(self) -> Path:
        return self.home / ".cache" / "cloudtrial" / "senders"

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[psutil.Process]:
        """All that runs on it, but for the sshd that listens."""
        return psutil.Process(self.sshd.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """The Pythons that send from it."""
        return [each for each in self.processes() if is_worker(each)]

    def kill(self) -> None:
        """As if the plug was pulled: its sshd and all that runs on it end at once."""
        everything = [psutil.Process(self.sshd.pid), *self.processes()]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.sshd.wait()


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return "-m" in words and "eval.load.workers" in words and "python" in Path(words[0]).name
    return False


@dataclass(frozen=True)
class Cluster:
    """Machines, and how a run reaches them."""

    nodes: tuple[SshNode, ...]
    config: Path  # of ssh: host keys, the user's key, ports

    @property
    def names(self) -> str:
        """For --cluster."""
        return ",".join(node.address for node in self.nodes)

    def living(self) -> tuple[SshNode, ...]:
        """Those that were not killed."""
        return tuple(node for node in self.nodes if node.sshd.poll() is None)

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which a run finds them, and their Python: this one."""
        return {
            "CLOUDTRIAL_SSH_COMMAND": shlex.join(["ssh", "-F", str(self.config)]),
            "CLOUDTRIAL_SENDER_PYTHON": sys.executable,
        }


@contextlib.contextmanager
def ssh_nodes(
    folder: Path, sshd: str, addresses: Sequence[str] = ADDRESSES, prefixes: Sequence[Sequence[str]] = (), **env: str
) -> Iterator[Cluster]:
    """Start an sshd at each address. sshd: its path. prefixes: what starts each one's, such as in a namespace.

    env: what their sessions have set beside HOME.
    """
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION_DIR.mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    _make_key(folder / "user_key")
    with contextlib.ExitStack() as stack:
        nodes = []
        for address, prefix in zip(addresses, prefixes or [()] * len(addresses), strict=True):
            nodes.append(stack.enter_context(_sshd(folder / address, sshd, address, prefix, env)))
        yield Cluster(tuple(nodes), _write_client_config(folder, nodes))


@contextlib.contextmanager
def _sshd(folder: Path, program: str, address: str, prefix: Sequence[str], env: dict[str, str]) -> Iterator[SshNode]:
    home, log = folder / "home", folder / "sshd.log"
    home.mkdir(parents=True)
    _make_key(folder / "host_key")
    port = 22 if prefix else free_port(address)
    variables = {"HOME": str(home)} | env
    (folder / "sshd_config").write_text(
        encoding="utf-8",
        data=f"""ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder.parent}/user_key.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
LogLevel DEBUG1
SetEnv {" ".join(f"{name}={value}" for name, value in variables.items())}
""",
    )
    command = [*prefix, program, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        node = SshNode(address, port, home, process, log)
        try:
            _wait_for(node)
            yield node
        finally:
            if process.poll() is None:
                node.kill()


def _wait_for(node: SshNode) -> None:
    """Until it listens. Its log says why it does not."""
    while f"Server listening on {node.address} port {node.port}" not in (node.log() if node.log_file.exists() else ""):
        if node.sshd.poll() is not None:
            raise RuntimeError(f"sshd ended with {node.sshd.returncode}: {node.log()}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.sshd.wait(0.01)


def _write_client_config(folder: Path, nodes: Sequence[SshNode]) -> Path:
    hosts = "".join(f"Host {node.address}\n    Port {node.port}\n" for node in nodes)
    config = folder / "ssh_config"
    config.write_text(
        f"""{hosts}Host *
    User {getpass.getuser()}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile none
""",
        encoding="utf-8",
    )
    keys = [
        (_named(node), (node.log_file.parent / "host_key.pub").read_text(encoding="utf-8").split()[:2])
        for node in nodes
    ]
    (folder / "known_hosts").write_text("".join(f"{name} {' '.join(key)}\n" for name, key in keys), encoding="utf-8")
    return config


def _named(node: SshNode) -> str:
    """As known_hosts has it."""
    return node.address if node.port == 22 else f"[{node.address}]:{node.port}"


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cloudtrial", "-f", str(path)], check=True)


def free_port(address: str) -> int:
    with socket.socket() as one:
        one.bind((address, 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def namespace(name: str, own: str, other: str, clock_offset_s: int) -> Iterator[Namespace]:
    """A network of its own, linked to this one: `own` is this machine's address, `other` the namespace's.

    clock_offset_s: by which its monotonic clock, and that alone, differs. Needs root.
    """
    holder = subprocess.Popen(
        ["unshare", "--net", "--time", "--monotonic", str(clock_offset_s), "--fork", "--kill-child",
         "sh", "-c", "echo ready; exec sleep infinity"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout and holder.stdout.readline() == b"ready\n"
        (child,) = psutil.Process(holder.pid).children()
        inside = ["nsenter", "--target", str(child.pid), "--net", "--time"]
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(child.pid))
        _ip("addr", "add", f"{own}/24", "dev", name)
        _ip("link", "set", name, "up")
        for words in (("addr", "add", f"{other}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                      ("link", "set", "lo", "up"), ("route", "add", "default", "via", own)):  # fmt: skip
            subprocess.run([*inside, "ip", *words], check=True)
        yield Namespace(name, other, tuple(inside))
    finally:
        if holder.stdout:
            holder.stdout.close()
        subprocess.run(["ip", "link", "delete", name])  # which goes some time after its namespace otherwise
        holder.send_signal(signal.SIGKILL)  # and with it its child
        holder.wait()


@dataclass(frozen=True)
class Namespace:
    """A network namespace, and its link to this one."""

    link: str
    address: str
    inside: tuple[str, ...]  # what a command starts with to run in it

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        _ip("link", "set", self.link, "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
