"""Engines: a batch of images in, probabilities out. Each is imported only where it is used."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from service.errors import SettingsError
from service.settings import ENGINES
from service.system import usable_cpus

if TYPE_CHECKING:  # infra and eval import the names of the engines, and start sooner without numpy
    import numpy as np

    from service.engines.onnx_engine import OnnxEngine
    from service.engines.torch_engine import TorchEngine
    from service.model import Bundle

LIBRARIES = {"torch", "safetensors", "onnxruntime"}  # of which each deployment has its own engine's alone


class Engine(Protocol):
    """One way to run the network. Called from one thread at a time."""

    name: str  # as ENGINE has it
    device: str  # CPU or CUDA of service/engines/device.py
    caller_may_run: bool  # whether it may be another thread each time
    libraries: dict[str, str]  # name -> version, of what it computes with
    details: dict[str, object]  # how it computes on this machine

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """float32 [N, 3, S, S], normalised, or [N, features] -> float32 [N, classes], each row summing to 1."""
        ...


def engine_class(name: str) -> type[TorchEngine] | type[OnnxEngine]:
    """The engine of that name, to be called with a bundle: that raises BundleError when the bundle's file does not fit.

    Raises SettingsError when there is none of that name, or its library is not installed.
    """
    try:
        match name:
            case "torch":
                # Read by OpenMP when it is loaded, for every thread; set_num_threads speaks for the calling one alone
                if "torch" not in sys.modules and not os.environ.get("OMP_NUM_THREADS"):
                    os.environ["OMP_NUM_THREADS"] = str(usable_cpus())
                from service.engines.torch_engine import TorchEngine

                return TorchEngine
            case "onnx":
                from service.engines.onnx_engine import OnnxEngine

                return OnnxEngine
    except ModuleNotFoundError as error:
        if error.name not in LIBRARIES:
            raise
        raise SettingsError(
            f"ENGINE is {name!r}, and {error.name} is not installed here; deploy for that engine, or set ENGINE to the "
            "one that this was deployed for"
        ) from None
    raise SettingsError(f"ENGINE is {name!r}; use one of: {', '.join(ENGINES)}")


def load_reference_engine(name: str, bundle: Bundle) -> Engine:
    """The engine in the precision that answers are compared with, the same on every processor.

    Raises what engine_class() and its engines raise.
    """
    engine = engine_class(name)
    return engine(bundle, **engine.reference_options)
