"""ONNX Runtime: the network in 8-bit integers, with softmax inside, as training/export.py wrote it.

The file holds the network as it was quantised, for any processor. ONNX Runtime could save what it makes of it while
loading, which would start sooner; but that is laid out for the processor it was made on, and clouds mix theirs.
"""

from __future__ import annotations

import numpy as np
import onnxruntime

from service.errors import BundleError
from service.model import Bundle
from service.system import usable_cpus

INPUT, OUTPUT = "images", "probabilities"  # of the graph
ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging


class OnnxEngine:
    """Runs a bundle's quantised network with ONNX Runtime."""

    name = "onnx"
    caller_may_run = True  # its compute threads belong to the session

    def __init__(self, bundle: Bundle):
        self.libraries = {"onnxruntime": str(onnxruntime.__version__)}
        threads, own = usable_cpus(), bundle.engine(self.name)
        self.details: dict[str, object] = {"form": own.precision, "threads": threads}
        self._session = open_session(str(bundle.path(own.file)), threads)
        _check_fit(self._session, bundle)

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run([OUTPUT], {INPUT: batch})[0])


def open_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX file, ready to run on this many threads. Raises BundleError when it is none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # left alone, it counts the host's cores, not the container's
    options.inter_op_num_threads = 1  # the network is one chain of layers
    # Between two passes its threads would else wait in a loop, on cores that the requests' own threads need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # with it, passes take as long and the process 8 MB more (batches of 16)
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own errors have no class in common
        message = " ".join(str(error).split())
        raise BundleError(f"{path} cannot be run as an ONNX file: {message}; make export writes it again") from None


def _check_fit(session: onnxruntime.InferenceSession, bundle: Bundle) -> None:
    """Raises BundleError when the graph does not take the bundle's images, or give its classes."""
    wanted = {
        "input": (INPUT, "tensor(float)", [3, bundle.image.size_px, bundle.image.size_px]),
        "output": (OUTPUT, "tensor(float)", [len(bundle.classes)]),
    }
    for kind, ends in (("input", session.get_inputs()), ("output", session.get_outputs())):
        found = [(end.name, end.type, list(end.shape[1:])) for end in ends]
        if found != [wanted[kind]] or isinstance(ends[0].shape[0], int):
            shown = ", ".join(f"{end.name} {end.type} {end.shape}" for end in ends)
            name, dtype, shape = wanted[kind]
            path = bundle.path(bundle.engine(OnnxEngine.name).file)
            path = bundle.path(bundle.engine(OnnxEngine.name).file)
            raise BundleError(
                f"{path} has the {kind} {shown}, not {name} {dtype} {['N', *shape]}; make export writes it again"
            )
