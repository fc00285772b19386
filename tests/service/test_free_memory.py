"""How much memory is free under control groups of both versions, and what a model needs."""

from pathlib import Path

import pytest

from service.errors import InsufficientStorage
from service.lifecycle import memory
from service.lifecycle.memory import available_mib, check_memory
from service.model import load_bundle
from tests.helpers.bundles import write_bundle

MIB = 2**20
SECOND = ("memory.max", "memory.current", "inactive_file")
FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def write_group(folder: Path, names: tuple[str, str, str], limit: str | int, used_mib: int, cached_mib: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n", encoding="utf-8")
    (folder / names[1]).write_text(f"{used_mib * MIB}\n", encoding="utf-8")
    stat = f"anon 1\n{names[2]} {cached_mib * MIB}\nactive_file 7\n"
    (folder / "memory.stat").write_text(stat, encoding="utf-8")


def free(tmp_path: Path, membership: str, meminfo: str = "MemFree: 1 kB\nMemAvailable: 1048576 kB\n") -> float | None:
    (tmp_path / "membership").write_text(membership, encoding="utf-8")
    (tmp_path / "meminfo").write_text(meminfo, encoding="utf-8")
    return available_mib(tmp_path / "cgroup", tmp_path / "membership", tmp_path / "meminfo")


def test_the_limit_of_a_group_of_version_two_counts(tmp_path):
    write_group(tmp_path / "cgroup/a/b", SECOND, 512 * MIB, 300, 20)
    assert free(tmp_path, "0::/a/b\n") == 232


def test_a_group_further_up_may_leave_less(tmp_path):
    write_group(tmp_path / "cgroup/a/b", SECOND, "max", 300, 0)
    write_group(tmp_path / "cgroup/a", SECOND, 512 * MIB, 500, 0)
    assert free(tmp_path, "0::/a/b\n") == 12


@pytest.mark.parametrize("group", ["", "docker/abc"], ids=["a container", "the host"])
def test_the_limit_of_a_group_of_version_one_counts(tmp_path, group):
    write_group(tmp_path / "cgroup/memory" / group, FIRST, 512 * MIB, 400, 50)
    assert free(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n") == 162


def test_without_a_limit_the_machine_counts(tmp_path):
    write_group(tmp_path / "cgroup/memory", FIRST, 2**63 - 4096, 1, 0)
    assert free(tmp_path, "4:memory:/\n0::/\n") == 1024


def test_nothing_is_known_without_proc_and_groups(tmp_path):
    assert available_mib(tmp_path, tmp_path / "none", tmp_path / "none") is None


def test_over_its_limit_a_group_has_nothing_free(tmp_path):
    write_group(tmp_path / "cgroup", SECOND, 100 * MIB, 200, 0)
    assert free(tmp_path, "0::/\n") == 0


def test_this_machine_says_what_is_free():
    found = available_mib()
    assert found is None or found > 0


def test_a_model_needs_a_multiple_of_its_file(tmp_path, monkeypatch):
    folder = write_bundle(tmp_path, ["dark", "bright"])
    with (folder / "float32.onnx").open("ab") as file:
        file.truncate(10 * MIB)
    bundle = load_bundle(folder, [])
    monkeypatch.setattr(memory, "available_mib", lambda: 38.5)
    check_memory(bundle, "onnx")
    monkeypatch.setattr(memory, "available_mib", lambda: 37.5)
    with pytest.raises(InsufficientStorage, match="tiny needs about 38 MiB beside the present one, 37 MiB are free"):
        check_memory(bundle, "onnx")
