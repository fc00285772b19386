"""Clouds whose deployments are alive: over tests/pulumi_engine/fake_cloud.py, a version that answers for each.

The programs' own readiness commands run, by the interpreter that they name, against the versions' real ports.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.procfile import read_procfile
from service.model import load_bundle
from tests.pulumi_engine.fake_cloud import CloudError, Existing, FakeCloud, UnreadyError
from tests.pulumi_engine.live_servers import Front, Version

READY_TIMEOUT_S, POLL_S = "3", "0.05"  # instead of the programs' own


@dataclass
class LiveCloud:
    """The front, the versions behind it, and whether the next version is to be a broken one."""

    root: Path  # the checkout that is deployed
    cloud: FakeCloud = field(default_factory=FakeCloud)
    front: Front = field(default_factory=Front)
    broken: bool = False
    build_fails: bool = False  # Heroku's
    versions: dict[str, Version] = field(default_factory=dict)  # by the resource's id; Google's by their numbers, too
    association: str = ""  # the one that the front's address has now

    def __post_init__(self) -> None:
        self.cloud.effects |= {
            "aws:ec2/instance:Instance": self._instance,
            "aws:ec2/eipAssociation:EipAssociation": self._association,
            "command:local:Command": self._command,
            "gcp:cloudrunv2/service:Service": self._service,
            "gcp:cloudfunctionsv2/function:Function": self._function,
            "heroku:app/app:App": self._app,
            "heroku:build/build:Build": self._build,
        }

    def start(self, env: Mapping[str, str]) -> Version:
        """Starts what is described by the environment that the program sends."""
        bundle = load_bundle(self.root / env["MODEL_DIR"], ())
        sha256 = bundle.files[bundle.engine(env["ENGINE"]).file]
        return Version(env["GIT_SHA"], sha256, broken=self.broken)

    def stop(self) -> None:
        for server in (self.front, *self.versions.values()):
            server.stop()

    def _instance(self, operation: str, vm: Existing) -> None:
        if operation == "create":
            env = dict(re.findall(r"(\w+)=(\S+)", vm.plain_inputs["userData"]))
            self.versions[vm.id] = version = self.start(env)
            vm.computed["publicIp"] = version.address
        elif operation == "delete":
            self.versions.pop(vm.id).stop()

    def _association(self, operation: str, association: Existing) -> None:
        if operation == "create":
            self.association = association.id
            self.front.version = self.versions[association.plain_inputs["instanceId"]]
        elif self.association == association.id:  # an older one is gone by itself, as another has the address
            self.front.version = None

    def _service(self, operation: str, service: Existing) -> None:
        (container,) = service.plain_inputs["template"]["containers"]
        self._revise(operation, {entry["name"]: entry.get("value", "") for entry in container["envs"]})

    def _function(self, operation: str, function: Existing) -> None:
        self._revise(operation, function.plain_inputs["serviceConfig"]["environmentVariables"])

    def _revise(self, operation: str, env: Mapping[str, str]) -> None:
        """As Google does: requests go to the new revision once it is ready, and to the last one for as long as not."""
        if operation == "delete":
            return
        name = f"revision-{len(self.versions)}"
        self.versions[name] = revision = self.start(env)
        if not revision.wait():
            raise UnreadyError(f"Revision '{name}' is not ready and cannot serve traffic")
        self.front.version = revision

    def _app(self, operation: str, app: Existing) -> None:
        """As Heroku does: another config var restarts the dyno at once, with the slug that it has."""
        if operation == "update" and (slug := self.front.version):
            self._restart(slug)

    def _build(self, operation: str, build: Existing) -> None:
        if operation != "create":
            return
        if self.build_fails:
            raise CloudError("build failed: see its log")
        with tarfile.open(self.root / build.plain_inputs["source"]["path"]) as tarball:
            procfile = tarball.extractfile("Procfile")
            assert procfile
            spec = read_procfile(procfile.read().decode(), {})
        self.versions[build.id] = slug = self.start(spec.env)
        self._restart(slug)

    def _restart(self, slug: Version) -> None:
        """The old dyno ends as the new one starts: for as long as it boots, nobody answers."""
        self.front.version = None
        slug.boot()
        slug.wait()
        self.front.version = slug

    def _command(self, operation: str, command: Existing) -> None:
        inputs = command.plain_inputs
        env = inputs.get("environment", {})
        if operation == "delete" or "URL" not in env:
            return
        if "ADDRESS_FILE" not in env:
            env = {**env, "URL": f"http://{self.front.address}"}
        if operation == "update":
            env = {**env, "PULUMI_COMMAND_STDOUT": command.computed.get("stdout", "")}
        self._run([*inputs["interpreter"], inputs["create"]], env)

    def _run(self, command: list[str], env: Mapping[str, Any]) -> None:
        timing = {"TIMEOUT_S": READY_TIMEOUT_S, "POLL_S": POLL_S}
        done = subprocess.run(
            command, cwd=self.root, env={**os.environ, **env, **timing}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise CloudError(done.stdout)


@contextmanager
def live_cloud(root: Path) -> Iterator[LiveCloud]:
    """Clouds for the checkout there, whose servers end with the block."""
    live = LiveCloud(root)
    try:
        yield live
    finally:
        live.stop()
