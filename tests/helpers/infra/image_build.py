"""The Dockerfile built by buildah, on a base that stands in for the official one, and run; no daemon, no registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from infra.local.process import GRACE_PERIOD_S, Process
from tests.helpers.infra.debian_trees import LOG_TAIL, MORE_SETTINGS, TORCH_SETTINGS, Torch, furnish

PYTHON_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE, IMAGE = "localhost/python", "localhost/classifier"


class Builder:
    """buildah with a store of its own, in `folder`."""

    def __init__(self, program: str, folder: Path, torch: Torch):
        self.folder = folder
        self.log = folder / "build.log"
        self._buildah = [program, "--storage-driver", "vfs", "--root", folder / "store", "--runroot", folder / "run"]
        self._mounts = [f"--volume={here}:{there}:ro" for here, there in torch.mounts]
        self._torch = torch

    def make_base(self, tree: Path) -> None:
        """BASE: the tree, with Python first on the path."""
        furnish(self.folder / "furniture", self._torch)
        container = self._do("from", "scratch")
        self._do("add", "--quiet", container, tree, "/")
        self._do("add", "--quiet", container, self.folder / "furniture", "/")
        self._do("config", "--env", f"PATH={PYTHON_PATH}", "--cmd", "python3", container)
        self._do("commit", "--quiet", "--rm", container, BASE)

    def build(self, dockerfile: Path, context: Path, args: Mapping[str, str], stage: str = "") -> None:
        """IMAGE, from the Dockerfile on BASE, with these build arguments. With ENGINE=onnx pip is shown no torch.

        Its last stage, or the one that is named.
        """
        mounts = [*self._mounts]
        if self._torch.mounts and args["ENGINE"] == "torch":
            mounts.append(f"--volume={self.folder / 'furniture'}{TORCH_SETTINGS}:{MORE_SETTINGS}:ro")
        self._do(
            *("build", "--pull-never", "--isolation", "chroot", "--network", "host", "--format", "docker"),
            *("--from", BASE),  # in place of the first FROM
            *(*mounts, *(f"--build-arg={name}={value}" for name, value in args.items())),
            *(("--target", stage) if stage else ()),
            *("--file", dockerfile, "--tag", IMAGE, context),
        )

    def config(self) -> dict:
        """What the image says of itself: User, Cmd, Env, ExposedPorts."""
        return json.loads(self._do("inspect", "--type", "image", IMAGE))["Docker"]["config"]

    def installed(self) -> list[str]:
        """What pip has installed in the image, by name."""
        container = self._do("from", "--pull-never", IMAGE)
        command = ("python3", "-m", "pip", "list", "--format=json")
        listed = self._do("run", "--isolation", "chroot", container, "--", *command)
        return [package["name"] for package in json.loads(listed)]

    @contextmanager
    def run(
        self, nspawn: str, env: Mapping[str, str], command: Sequence[str] = (), mounts: Mapping[str, Path] | None = None
    ) -> Iterator[Process]:
        """The image's own command, or another, as its own user, with what the platform sets.

        Only /tmp and /dev/shm, which are in memory, and `mounts` can be written. An image without a user runs as root.
        systemd-nspawn's own --user would make a home.
        """
        config = self.config()
        root = self._do("mount", self._do("from", "--pull-never", IMAGE))
        starter = [nspawn, "--quiet", "--read-only", "--as-pid2", "--register=no", "--keep-unit", "--console=pipe"]
        starter += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--directory={root}"]
        starter += [f"--chdir={config['WorkingDir']}"]
        starter += [f"--bind={here}:{there}" for there, here in (mounts or {}).items()]
        starter += [mount.replace("--volume=", "--bind-ro=").removesuffix(":ro") for mount in self._mounts]
        starter += [f"--setenv={pair}" for pair in (*config["Env"], *(f"{k}={v}" for k, v in env.items()))]
        user = config.get("User") or "0"
        restricted = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        process = Process(
            [*starter, "--", *restricted, "--no-new-privs", "--bounding-set=-all", *(command or config["Cmd"])],
            {},
            self.folder,
            sorted(os.sched_getaffinity(0)),
            self.folder / "run.log",
        )
        try:
            yield process
        finally:
            inside = family(process)
            for each in inside:
                with suppress(psutil.NoSuchProcess):
                    each.terminate()
            process.reap()
            for each in psutil.wait_procs(inside, timeout=GRACE_PERIOD_S)[1]:
                each.kill()

    def _do(self, *arguments: str | Path) -> str:
        with self.log.open("ab") as log:
            start = log.tell()
            done = subprocess.run([*self._buildah, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
            log.write(done.stdout.encode())
        output = self.log.read_text(errors="replace")[start:][-LOG_TAIL:]
        assert done.returncode == 0, f"buildah {arguments[0]} failed:\n{output}"
        return done.stdout.strip()


def family(process: Process) -> list[psutil.Process]:
    """What the command has started, itself left out."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def base_of(dockerfile: Path) -> str:
    """The image that a Dockerfile's first stage builds on."""
    return re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)[0]
