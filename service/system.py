"""What this process runs on: its CPUs, its CPU model, its memory, its age."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CGROUPS = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")
# The instruction sets that decide how fast a network runs, by the kernel's names, each with the one that people know
INSTRUCTION_SETS = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX-BF16", "amx_int8": "AMX-INT8",  # x86-64
    "asimd": "NEON", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "SVE",  # Arm
}  # fmt: skip
LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")  # variables that keep PyTorch from what the processor could do
# AMD's generations by family and ranges of models, as the Linux kernel tells them apart (arch/x86/kernel/cpu/amd.c)
ZEN = {
    "Zen 1": (0x17, (0x00, 0x2F), (0x50, 0x5F)),
    "Zen 2": (0x17, (0x30, 0x4F), (0x60, 0x7F), (0x90, 0x91), (0xA0, 0xAF)),
    "Zen 3": (0x19, (0x00, 0x0F), (0x20, 0x5F)),
    "Zen 4": (0x19, (0x10, 0x1F), (0x60, 0xAF)),
    "Zen 5": (0x1A, (0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F)),
}
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # options of glibc's mallopt
LARGE_BLOCK_BYTES = 8 * 2**20  # what is larger goes back to the kernel when it is freed; a pass of 16 images has less
LOWEST_PRIORITY = 19
ARENAS = 2  # of which each may keep what it once held
_IMPORTED_AT = time.time()


def usable_cpus() -> int:
    """Cores this process may use: its affinity, cut by the CPU quota of its control groups. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, _cgroup_quota())))


def _cgroup_quota(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """The smallest cpu.max from this process's group up to the root, in cores; infinite when none is set."""
    try:
        group = membership.read_text(encoding="utf-8").split("::", 1)[1].split("\n", 1)[0].strip("/")
    except (OSError, IndexError):  # not Linux, or control groups of version 1
        group = ""
    quota = _first_version_quota(root / "cpu")
    folder = root / group
    for level in (folder, *folder.parents):
        try:
            limit, period = (level / "cpu.max").read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            continue
        if limit != "max":
            quota = min(quota, int(limit) / int(period))
    return quota


def _first_version_quota(folder: Path) -> float:
    """The same under control groups of version 1, where a container sees its own group as the root."""
    try:
        quota, period = (
            int((folder / f"cpu.cfs_{part}_us").read_text(encoding="utf-8")) for part in ("quota", "period")
        )
    except (OSError, ValueError):
        return float("inf")
    return quota / period if quota > 0 else float("inf")


def processor() -> dict[str, Any]:
    """What tells this processor from others, as /version and a run's record have it.

    A name is not enough: clouds' "AMD EPYC" may be a Zen 3, or a Zen 5 that takes a fraction of its time.

    cpu_model: its name. cpu_generation: AMD's generation, or the maker's numbers; None where neither is known.
    instruction_sets: of INSTRUCTION_SETS, those it has; None where the system does not say (macOS).
    instruction_limits: the variables of LIMITS that are set, and so may leave some of those unused.
    """
    flags = cpu_flags()
    sets = [name for flag, name in INSTRUCTION_SETS.items() if flag in flags]
    return {
        "cpu_model": cpu_model(),
        "cpu_generation": cpu_generation(),
        "instruction_sets": sets if flags else None,
        "instruction_limits": {name: os.environ[name] for name in LIMITS if os.environ.get(name)},
    }


def cpu_model() -> str:
    """The processor's name, as /proc/cpuinfo has it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_generation() -> str | None:
    """As "Zen 3" of AMD, "family 6, model 143" of Intel, "implementer 0x41, part 0xd40" of Arm; None when not known."""
    fields = _cpuinfo()
    if "CPU part" in fields:
        return f"implementer {fields.get('CPU implementer')}, part {fields['CPU part']}"
    try:
        family, model = int(fields["cpu family"]), int(fields["model"])
    except (KeyError, ValueError):
        return None
    if fields.get("vendor_id") == "AuthenticAMD":
        for name, (its_family, *ranges) in ZEN.items():
            if family == its_family and any(low <= model <= high for low, high in ranges):
                return name
    return f"family {family}, model {model}"


def cpu_flags() -> set[str]:
    """The processor's abilities by the kernel's names ("avx512_bf16"); none without /proc/cpuinfo."""
    fields = _cpuinfo()
    return set((fields.get("flags") or fields.get("Features", "")).split())  # x86-64, or Arm


def _cpuinfo() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor; nothing where there is none."""
    try:
        first = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def limit_kept_memory() -> None:
    """Have glibc keep little of what is freed: left alone, each of many threads' arenas keeps a decoded image."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        libc.mallopt(M_ARENA_MAX, ARENAS)


def give_back_memory() -> None:
    """Let the kernel have the pages that were freed: glibc keeps them, 100 MB after the torch engine's start."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def at_low_priority(work: Callable[[], T]) -> T:
    """Do the work in a thread to which the kernel gives what others leave; returns or raises what the work does.

    It is a thread of its own, since none may raise its priority again. Only Linux has priorities of single threads.
    """

    def run() -> T:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        return work()

    with ThreadPoolExecutor(1, "low-priority") as pool:
        return pool.submit(run).result()


def process_started_at() -> float:
    """When this process began, as seconds since 1970; without /proc, when this module was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except (OSError, IndexError, ValueError):
        return _IMPORTED_AT
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
