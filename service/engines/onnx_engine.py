"""ONNX Runtime: any model of images or of rows, with softmax inside, such as the networks that training/ exports.

The file holds the network as it was exported, for any processor. ONNX Runtime could save what it makes of it while
loading, which would start sooner; but that is laid out for the processor it was made on, and clouds mix theirs.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnxruntime

from service.engines.device import CPU, CUDA, choose_device, no_gpu
from service.errors import BundleError
from service.manifest.records import ImageInput
from service.model import Bundle
from service.system import usable_cpus

INPUT, ROWS, OUTPUT = "images", "features", "probabilities"  # of the graph: one of two inputs
CUDA_PROVIDER = "CUDAExecutionProvider"
PROVIDERS = {CPU: ["CPUExecutionProvider"], CUDA: [CUDA_PROVIDER, "CPUExecutionProvider"]}  # device -> in this order
ERRORS_ONLY = 3  # of ONNX Runtime's levels of logging


class OnnxEngine:
    """Runs a bundle's ONNX file, on the GPU where DEVICE allows it and ONNX Runtime has one."""

    name = "onnx"
    caller_may_run = True  # its compute threads belong to the session
    starts_threads = True  # while it is loaded; they run the network later
    reference_options: ClassVar[dict[str, str]] = {}  # the file has its precision

    def __init__(self, bundle: Bundle, *, device: str = CPU):
        self.libraries = {"onnxruntime": str(onnxruntime.__version__)}
        threads, own = usable_cpus(), bundle.engine(self.name)
        self.details: dict[str, object] = {"form": own.precision, "threads": threads}
        self.device = choose_device(device, finds_gpu, "onnxruntime")
        self._session = open_session(str(bundle.path(own.file)), threads, self.device)
        if CUDA_PROVIDER not in self._session.get_providers():  # without CUDA's libraries it takes the processor
            if device == CUDA:
                raise no_gpu("onnxruntime")
            self.device = CPU
        self._input = INPUT if isinstance(bundle.input, ImageInput) else ROWS
        _check_fit(self._session, bundle)

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run([OUTPUT], {self._input: batch})[0])


def finds_gpu() -> bool:
    """Whether this ONNX Runtime can use a GPU: onnxruntime-gpu can."""
    return CUDA_PROVIDER in onnxruntime.get_available_providers()


def open_session(path: str, threads: int, device: str = CPU) -> onnxruntime.InferenceSession:
    """An ONNX file, ready to run on this many threads. Raises BundleError when it is none."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # left alone, it counts the host's cores, not the container's
    options.inter_op_num_threads = 1  # the network is one chain of layers
    # Between two passes its threads would else wait in a loop, on cores that the requests' own threads need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # with it, passes take as long and the process 8 MB more (batches of 16)
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(path, options, providers=PROVIDERS[device])
    except Exception as error:  # its own errors have no class in common
        message = " ".join(str(error).split())
        raise BundleError(f"{path} cannot be run as an ONNX file: {message}; make export writes it again") from None


def _check_fit(session: onnxruntime.InferenceSession, bundle: Bundle) -> None:
    """Raises BundleError when the graph does not take the bundle's images or rows, or give its classes."""
    if isinstance(bundle.input, ImageInput):
        takes = (INPUT, "tensor(float)", [3, bundle.input.size_px, bundle.input.size_px])
    else:
        takes = (ROWS, "tensor(float)", [len(bundle.input.features)])
    wanted = {
        "input": takes,
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
