"""Whether a second model fits into memory beside the first: what it would take, and what is free.

Nothing is tried that the kernel would kill the process for: a process at its limit gets no error, but SIGKILL.
"""

from __future__ import annotations

from contextlib import suppress
from math import ceil, floor
from pathlib import Path

from service.errors import InsufficientStorage
from service.model import Bundle
from service.system import CGROUPS

MIB = 2**20
# Engine -> MiB at the peak of a load and self-test for each MiB of the engine's file, and MiB for any file. Measured on
# the shipped models (docs/switch.md): ONNX Runtime 29 MiB for 10.8 and 20 for 5.0; PyTorch 125 for 21.3 in float16
PEAK_FACTOR = {"onnx": 3.0, "torch": 6.0}
PEAK_BASE_MIB = {"onnx": 8.0, "torch": 16.0}
UNLIMITED_BYTES = 2**60  # control groups of version 1 say "no limit" by a number near 2**63


def check_memory(bundle: Bundle, engine: str) -> None:
    """Raise InsufficientStorage when the bundle would not fit beside all that this process holds now."""
    file = bundle.path(bundle.engine(engine).file)
    size_mib = file.stat().st_size / MIB if file.is_file() else 0.0  # what is missing is said by the load
    needed_mib = PEAK_BASE_MIB[engine] + PEAK_FACTOR[engine] * size_mib
    free_mib = available_mib()
    if free_mib is not None and needed_mib > free_mib:
        raise InsufficientStorage(
            f"{bundle.name} needs about {ceil(needed_mib)} MiB beside the present one, {floor(free_mib)} MiB are free; "
            "the present model stays: use a larger size, or restart with the new one"
        )


def available_mib(
    root: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup"), meminfo: Path = Path("/proc/meminfo")
) -> float | None:
    """What this process may still take: the least that its control groups and the machine leave; None if none says."""
    found = [*_second_version(root, _group(membership, "")), *_first_version(root, _group(membership, "memory"))]
    with suppress(OSError, StopIteration, ValueError):
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    return max(0.0, min(found) / MIB) if found else None


def _group(membership: Path, controller: str) -> str:
    """The control group of this process for a controller; the empty one is version 2's."""
    with suppress(OSError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controller in controllers.split(",") and (controller or not controllers):
                return group.strip("/")
    return ""


def _second_version(root: Path, group: str) -> list[float]:
    return _free_bytes(root, group, "memory.max", "memory.current", "inactive_file")


def _first_version(root: Path, group: str) -> list[float]:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return _free_bytes(root / "memory", group, *names)


def _free_bytes(root: Path, group: str, limit: str, usage: str, reclaimable: str) -> list[float]:
    """What each group from this process's own up to the root leaves; file pages that are not in use count as free."""
    found: list[float] = []
    folder = root / group
    levels = [folder, *(each for each in folder.parents if each.is_relative_to(root))]
    for level in levels:
        with suppress(OSError, ValueError):  # "max" is no number, and a root has no such file
            limit_bytes = int((level / limit).read_text(encoding="utf-8"))
            if limit_bytes < UNLIMITED_BYTES:
                used_bytes = int((level / usage).read_text(encoding="utf-8"))
                found.append(limit_bytes - used_bytes + _stat(level / "memory.stat", reclaimable))
    return found


def _stat(path: Path, key: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
