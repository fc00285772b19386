import os
import subprocess
import sys
import threading
import time

import pytest

from service import system
from service.system import (
    LIMITS,
    LOWEST_PRIORITY,
    _cgroup_quota,
    at_low_priority,
    cpu_flags,
    cpu_model,
    process_started_at,
    processor,
    usable_cpus,
)


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


def test_cgroup_v1_cpu_quota_is_honoured(tmp_path):
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


MILAN = """vendor_id : AuthenticAMD
cpu family : 25
model : 1
model name : AMD EPYC
flags : fpu sse4_2 avx avx2 vaes

model name : another one, with
flags : avx512f
"""
TURIN = """vendor_id : AuthenticAMD
cpu family : 26
model : 2
model name : AMD EPYC
flags : fpu avx2 avx512f avx512_bf16 avx512_vnni avx_vnni
"""
SAPPHIRE_RAPIDS = """vendor_id : GenuineIntel
cpu family : 6
model : 143
model name : Intel(R) Xeon(R) Processor
flags : fpu avx2 avx512f avx512_bf16 avx512_vnni avx_vnni amx_bf16 amx_int8
"""
GRAVITON3 = """processor : 0
Features : fp asimd asimddp sve i8mm bf16
CPU implementer : 0x41
CPU part : 0xd40
"""


@pytest.mark.parametrize(
    ("cpuinfo", "generation", "sets"),
    [
        (MILAN, "Zen 3", ["AVX2"]),
        (TURIN, "Zen 5", ["AVX2", "AVX-512", "AVX-VNNI", "AVX-512 VNNI", "AVX-512 BF16"]),
        (SAPPHIRE_RAPIDS, "family 6, model 143",
         ["AVX2", "AVX-512", "AVX-VNNI", "AVX-512 VNNI", "AVX-512 BF16", "AMX-BF16", "AMX-INT8"]),
        (GRAVITON3, "implementer 0x41, part 0xd40", ["NEON", "dotprod", "i8mm", "bf16", "SVE"]),
        ("cpu family : 6\nmodel : 1\nflags : fpu sse\n", "family 6, model 1", []),
        ("vendor_id : IBM/S390\n", None, None),
    ],
    ids=["zen 3", "zen 5", "intel", "arm", "old", "another kind"],
)  # fmt: skip
def test_processors_of_one_name_are_told_apart(monkeypatch, tmp_path, cpuinfo, generation, sets):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(system, "CPUINFO", tmp_path / "cpuinfo")
    found = processor()
    assert (found["cpu_generation"], found["instruction_sets"]) == (generation, sets)
    assert found["cpu_model"] == cpu_model()


def test_without_cpuinfo_nothing_is_made_up(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "CPUINFO", tmp_path / "none")
    assert (processor()["cpu_generation"], processor()["instruction_sets"], cpu_flags()) == (None, None, set())


def test_variable_that_limits_instruction_sets_is_reported(monkeypatch):
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert processor()["instruction_limits"] == {}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert processor()["instruction_limits"] == {"ONEDNN_MAX_CPU_ISA": "AVX2"}


RESIDENT_AFTER = """
import psutil
from service.system import give_back_memory
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of single threads")
def test_work_at_low_priority_leaves_its_caller_as_it_was():
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert at_low_priority(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == LOWEST_PRIORITY
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    with pytest.raises(ZeroDivisionError):
        at_low_priority(lambda: 1 // 0)
