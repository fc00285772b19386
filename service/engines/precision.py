"""Which precisions this processor has instructions for, found by trying them.

A list of CPU flags would say what the processor promises, not what PyTorch makes of it here: oneDNN emulates bfloat16
where it is missing, many times slower than float32, and its limits can be set from outside (ONEDNN_MAX_CPU_ISA).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Hardware bfloat16 takes half of float32's time, emulation several times as long; 1.25 lies well between
MIN_SPEEDUP = 1.25
CHANNELS, SIDE_PX, IMAGES, ROUNDS = 64, 16, 4, 3  # of the convolution that is timed; a tenth of a second in all


@dataclass(frozen=True)
class PrecisionProbe:
    """Whether a precision is worth using on this processor, and what was seen."""

    usable: bool
    reason: str


@functools.cache
def probe_precision(precision: str) -> PrecisionProbe:
    """Time one convolution in that precision (a key of PRECISIONS) against float32, once in this process."""
    if precision == "float32":
        return PrecisionProbe(True, "computed in hardware on every processor")
    try:
        with torch_threads(1):  # several would wait for each other on a busy machine, longer than they compute
            float32_ms, found_ms = map(_convolution_ms, (torch.float32, PRECISIONS[precision]))
    except RuntimeError as error:
        return PrecisionProbe(False, f"refused: {str(error).splitlines()[0]}")
    times = f"a convolution takes {found_ms:.2f} ms, {float32_ms:.2f} ms in float32"
    usable = found_ms * MIN_SPEEDUP <= float32_ms
    return PrecisionProbe(usable, times if usable else f"emulated or too slow: {times}")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many threads here, and in threads that first use torch meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_precisions() -> list[str]:
    """The precisions that this processor computes in hardware, float32 first."""
    return [precision for precision in PRECISIONS if probe_precision(precision).usable]


@torch.inference_mode()
def _convolution_ms(dtype: torch.dtype) -> float:
    """The shortest of a few runs, after one in which oneDNN generates its code."""
    images = torch.zeros(IMAGES, CHANNELS, SIDE_PX, SIDE_PX, dtype=dtype)
    filters = torch.zeros(CHANNELS, CHANNELS, 3, 3, dtype=dtype)
    images, filters = (t.contiguous(memory_format=torch.channels_last) for t in (images, filters))
    return min(_timed_ms(images, filters) for _ in range(1 + ROUNDS))


def _timed_ms(images: Tensor, filters: Tensor) -> float:
    start = time.perf_counter()
    F.conv2d(images, filters, padding=1)
    return (time.perf_counter() - start) * 1000
