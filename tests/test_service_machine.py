import os
import subprocess
import sys
import time

import pytest

from service.machine import _cgroup_quota, cpu_flags, cpu_model, process_started_at, usable_cpus


def test_at_least_one_cpu_and_at_most_those_of_the_affinity():
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def test_the_smallest_quota_on_the_way_to_the_root_holds(tmp_path):
    group = tmp_path / "outer" / "inner"
    group.mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text("50000 100000\n")
    (group / "cpu.max").write_text("max 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    assert _cgroup_quota(tmp_path, membership) == 0.5


def test_a_quota_of_the_first_version_of_control_groups_holds_too(tmp_path):
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    (folder / "cpu.cfs_quota_us").write_text("150000\n")
    assert _cgroup_quota(tmp_path, tmp_path / "none") == 1.5
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert _cgroup_quota(tmp_path, tmp_path / "none") == float("inf")


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert _cgroup_quota(tmp_path, tmp_path / "none") == float("inf")


def test_the_process_began_before_now():
    assert 0 < time.time() - process_started_at() < 24 * 3600


def test_the_cpu_has_a_name():
    assert cpu_model()


def test_the_flags_are_those_the_kernel_lists():
    assert cpu_flags() == set() or {"fp", "fpu"} & cpu_flags()


RESIDENT_AFTER = """
import psutil
from service.machine import give_back_memory
blocks = [b"x" * 65536 for _ in range(1600)]
last = b"x" * 65536  # above the others, so that freeing them does not shorten the heap
del blocks
before = psutil.Process().memory_info().rss
give_back_memory()
print(before - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")),
    reason="only glibc keeps what is freed",
)
def test_freed_memory_goes_back_to_the_kernel():
    given_back = subprocess.run([sys.executable, "-c", RESIDENT_AFTER], capture_output=True, text=True, check=True)
    assert int(given_back.stdout) > 80 * 2**20
