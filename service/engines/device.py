"""What a network runs on: the processor, or a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import SettingsError

CPU, CUDA = "cpu", "cuda"


def choose_device(wanted: str, finds_gpu: Callable[[], bool], library: str) -> str:
    """CPU or CUDA, by DEVICE and what the library finds. Raises SettingsError for cuda where it finds none."""
    if wanted == CPU:
        return CPU
    if finds_gpu():
        return CUDA
    if wanted == CUDA:
        raise no_gpu(library)
    return CPU


def no_gpu(library: str) -> SettingsError:
    """What to do where a GPU is asked for, and there is none."""
    return SettingsError(
        f"DEVICE is {CUDA!r}, and {library} finds no GPU: install its CUDA build (service/requirements-gpu.in) and "
        "NVIDIA's driver, or set DEVICE to auto or cpu"
    )
