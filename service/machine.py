"""What this process runs on: its CPUs, its CPU model, its memory, its age."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

M_ARENA_MAX, ARENAS = -8, 2  # glibc's name for the places that its malloc takes memory from, and how many are enough
CGROUPS = Path("/sys/fs/cgroup")
_IMPORTED_AT = time.time()


def usable_cpus() -> int:
    """Cores this process may use: its affinity, cut by the CPU quota of its control groups. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, _cgroup_quota())))


def _cgroup_quota(root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> float:
    """The smallest cpu.max from this process's group up to the root, in cores; infinite when none is set."""
    try:
        group = membership.read_text().split("::", 1)[1].split("\n", 1)[0].strip("/")
    except (OSError, IndexError):  # not Linux, or control groups of version 1
        group = ""
    quota = _first_version_quota(root / "cpu")
    folder = root / group
    for level in (folder, *folder.parents):
        try:
            limit, period = (level / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if limit != "max":
            quota = min(quota, int(limit) / int(period))
    return quota


def _first_version_quota(folder: Path) -> float:
    """The same under control groups of version 1, where a container sees its own group as the root."""
    try:
        quota, period = (int((folder / f"cpu.cfs_{part}_us").read_text()) for part in ("quota", "period"))
    except (OSError, ValueError):
        return float("inf")
    return quota / period if quota > 0 else float("inf")


def cpu_model() -> str:
    """The processor's name, as /proc/cpuinfo has it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The processor's abilities by the kernel's names ("avx512_bf16"); none without /proc/cpuinfo."""
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())  # x86-64, or Arm


def _cpuinfo(key: str) -> str:
    """The first processor's entry, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def few_arenas() -> None:
    """Left alone, glibc gives the threads up to eight arenas for each of the host's cores, which keep what they had."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def give_back_memory() -> None:
    """Let the kernel have the pages that were freed: glibc keeps them, 100 MB after the torch engine's start."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def process_started_at() -> float:
    """When this process began, as seconds since 1970; without /proc, when this module was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return _IMPORTED_AT
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
