"""A control group with too little memory for two models: the kernel's own limit, not a number of the test's."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import NOT_ALLOWED, ROOT
from tests.helpers.model_stores import add_version, perturbed_copy, point
from tests.helpers.running_service import ready_service

pytestmark = pytest.mark.integration

NAME, TOKEN, MIB = "resnet18-cifar10", "0123456789abcdef", 2**20
CGROUPS = Path("/sys/fs/cgroup/memory")


def writable_group() -> Path | None:
    """This process's control group of version 1, where it may make others in it."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else ():
        _, controllers, group = line.split(":", 2)
        folder = CGROUPS / group.strip("/")
        if controllers == "memory" and os.access(folder, os.W_OK) and (folder / "memory.limit_in_bytes").exists():
            return folder
    return None


@pytest.fixture
def group():
    parent = writable_group()
    if parent is None:
        pytest.skip(f"{NOT_ALLOWED}a memory control group of its own")
    folder = parent / f"cloudtrial-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()


def test_a_real_limit_refuses_a_second_model_until_it_rises(group, tmp_path):
    limit, store = group / "memory.limit_in_bytes", tmp_path / "store"
    shipped = ROOT / "models" / NAME
    bundles = {"prod": shipped, "gamma": perturbed_copy(shipped, tmp_path / "other", seed=1)}
    versions = {alias: add_version(store, NAME, bundle) for alias, bundle in bundles.items()}
    for alias, version in versions.items():
        point(store, NAME, alias, version)
    command = ("sh", "-c", f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -m service.server")
    env = {"ENGINE": "onnx", "MODEL_STORE": str(store), "MODEL": f"{NAME}@prod", "MODEL_POLL_S": "0"}
    with ready_service(tmp_path / "log", command, MANAGE_TOKEN=TOKEN, **env) as server:

        def load_with(free_mib: int):
            used = int((group / "memory.usage_in_bytes").read_text(encoding="utf-8"))
            limit.write_text(str(used + free_mib * MIB), encoding="utf-8")
            body = json.dumps({"parameters": {"alias": "gamma"}}).encode()
            return server.post(f"/v2/repository/models/{NAME}/load", body, Authorization=f"Bearer {TOKEN}")

        refused = load_with(free_mib=20)
        assert refused.status == 507 and "needs about 41 MiB beside the present one" in refused.json["detail"]
        assert server.get("/version").json["store"]["version"] == versions["prod"]
        loaded = load_with(free_mib=60)
        assert loaded.status == 200 and loaded.json["version"] == versions["gamma"]
        assert "oom_kill 0" in (group / "memory.oom_control").read_text(encoding="utf-8")
