"""PyTorch: batch norm folded into the convolutions, fused by oneDNN and in bfloat16 where a trial says that it pays.

What was tried, and what it gave: docs/performance.md.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.engines.device import CPU, CUDA, choose_device
from service.engines.fused import FusedResNet18
from service.engines.precision import PRECISIONS, probe_precision, torch_threads, usable_precisions
from service.engines.resnet import ARCHITECTURE, ResNet18, build_network
from service.errors import BundleError
from service.model import Bundle
from service.system import usable_cpus

WEIGHTS = "weights.safetensors"  # as training writes them
CONV_AND_NORM = (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1"))  # the last one: inside `downsample`

TRIAL_IMAGES, TRIAL_ROUNDS = 4, 4
# How much faster a precision must be to be taken instead of float32: noise must not decide, or equal machines would
# answer unequally. bfloat16 takes half the time where it pays
MIN_PRECISION_SPEEDUP = 1.1
MAX_PROBABILITY_ERROR = {"float32": 1e-3, "bfloat16": 0.05}  # from the plain network: more is a fault, not rounding


class Variant(Protocol):
    """One way to run a folded network."""

    how: str

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [N, 3, S, S] -> scores float32 [N, classes]."""
        ...


class TorchEngine:
    """Runs a bundle's weights with PyTorch, in the precision that is named or else in the fastest of this processor.

    `details` says which variant was taken, the measurement that decided it, and what was refused and why. The first
    engine of a process measures; one that is loaded later, while that one answers, takes what was found then.
    """

    name = "torch"
    starts_threads = False  # while it is loaded; those of OpenMP belong to the thread that asks for a pass
    reference_options: ClassVar[dict[str, str]] = {"precision": "float32"}  # so that all processors answer alike

    def __init__(self, bundle: Bundle, precision: str | None = None, *, device: str = CPU):
        self.libraries = {"torch": str(torch.__version__)}
        if not os.environ.get("OMP_NUM_THREADS"):  # left alone, PyTorch counts the host's cores, not the container's
            torch.set_num_threads(usable_cpus())
        threads = torch.get_num_threads()
        self.caller_may_run = threads == 1  # OpenMP would make a team of threads for each that asks
        self.device = choose_device(device, torch.cuda.is_available, "torch")
        size_px = bundle.image.size_px
        known = None if precision else _trials.get(size_px)
        with torch_threads(1 if known else threads):  # a second team would take the cores from the first in mid-pass
            net = load_network(bundle)
            fold_batch_norm(net)
            if self.device == CUDA:
                self._scores: Variant = GpuResNet18(net, torch.device(CUDA))
                self.details: dict[str, object] = {"form": f"float32, {GpuResNet18.how}", "threads": threads}
                return
            precisions = [precision] if precision else [known.precision] if known else usable_precisions()
            self._scores, trial = autotune(net, precisions, size_px)
        if precision is None:
            known = known or _trials.setdefault(size_px, trial)
        trial_ms = known.trial_ms if known else trial.trial_ms
        self.details = {"form": f"{trial.precision}, {self._scores.how}", "threads": threads, "trial_ms": trial_ms}
        if trial.refused:
            self.details["refused"] = trial.refused
        if precision is None:
            self.details["precisions"] = {name: probe_precision(name).reason for name in PRECISIONS}

    @torch.inference_mode()
    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        return self._scores(torch.from_numpy(batch)).softmax(1).numpy()


@dataclass(frozen=True)
class Trial:
    """What decided a precision."""

    precision: str
    trial_ms: dict[str, float]  # by precision; empty where there was one to choose from
    refused: dict[str, str]  # variant -> why


_trials: dict[int, Trial] = {}  # of this process, by the side of its images in pixels


@torch.inference_mode()
def autotune(net: ResNet18, precisions: Sequence[str], size_px: int) -> tuple[Variant, Trial]:
    """The fastest precision for a folded network, and the milliseconds that decided.

    Fused operators are taken where they run and answer as the plain network does.
    """
    images = torch.randn(TRIAL_IMAGES, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    expected = net(images).softmax(1)
    variants: dict[str, Variant] = {}
    trial_ms: dict[str, float] = {}
    refused: dict[str, str] = {}
    for precision in precisions:
        try:
            variant: Variant = FusedResNet18(net, PRECISIONS[precision], size_px)
            _check_answers(variant(images).softmax(1), expected, MAX_PROBABILITY_ERROR[precision])
        except (RuntimeError, AttributeError) as error:  # an operator that this processor or this PyTorch lacks
            refused[f"{precision}, {FusedResNet18.how}"] = str(error).splitlines()[0]
            variant = LayeredResNet18(net, PRECISIONS[precision])
            variant(images)  # in the first run oneDNN generates its code
        variants[precision] = variant
        if len(precisions) > 1:
            trial_ms[precision] = time_variant(variant, images)
    chosen = precisions[0]
    for precision in precisions[1:]:
        if trial_ms[precision] * MIN_PRECISION_SPEEDUP < trial_ms[chosen]:
            chosen = precision
    return variants[chosen], Trial(chosen, trial_ms, refused)


def _check_answers(found: Tensor, expected: Tensor, limit: float) -> None:
    """Raises RuntimeError where the probabilities differ by more than rounding."""
    error = float((found - expected).abs().max())
    if not error <= limit:  # NaN too
        raise RuntimeError(f"a probability is {error:.3g} away from the plain network's; {limit} is allowed")


def time_variant(variant: Variant, images: Tensor) -> float:
    """Milliseconds of the shortest of a few runs."""
    durations_s = []
    for _ in range(TRIAL_ROUNDS):
        start = time.perf_counter()
        variant(images)
        durations_s.append(time.perf_counter() - start)
    return round(min(durations_s) * 1000, 3)


class LayeredResNet18:
    """The network as PyTorch runs it, where oneDNN cannot fuse. The last layer stays in float32."""

    how = "layer by layer"

    def __init__(self, net: ResNet18, precision: torch.dtype, memory_format: torch.memory_format = torch.channels_last):
        self._precision, self._memory_format = precision, memory_format
        self._net = copy.deepcopy(net).to(precision).to(memory_format=memory_format)
        self._net.fc = net.fc

    def __call__(self, x: Tensor) -> Tensor:
        return self._net(x.to(self._precision, memory_format=self._memory_format))


class GpuResNet18:
    """The network in float32 on another device, to which images go and from which scores come."""

    how = "layer by layer, on the GPU"

    def __init__(self, net: ResNet18, device: torch.device):
        torch.backends.cudnn.allow_tf32 = False  # the default rounds the factors of float32 convolutions to 10 bits
        self._device = device
        self._net = copy.deepcopy(net).to(device).to(memory_format=torch.channels_last)

    def __call__(self, x: Tensor) -> Tensor:
        return self._net(x.to(self._device, torch.float32, memory_format=torch.channels_last)).cpu()


def load_network(bundle: Bundle) -> ResNet18:
    """The bundle's network in float32, ready to answer. Raises BundleError when the weights do not fit it."""
    own = bundle.engine(TorchEngine.name)
    if own.architecture != ARCHITECTURE:
        raise BundleError(f"{bundle.folder} holds a {own.architecture!r}; the torch engine runs {ARCHITECTURE!r}")
    path = bundle.path(own.file)
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file: {error}; export it again") from None
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        net = build_network(len(bundle.classes)).eval()
    state = {name: tensor.float() for name, tensor in stored.items() if not _is_counter(name)}
    _check_fit(str(path), state, {k: v for k, v in net.state_dict().items() if not _is_counter(k)})
    net.load_state_dict(state, strict=False, assign=True)
    net.requires_grad_(False)
    return net


def _is_counter(name: str) -> bool:
    """Batch norm counts its training steps; inference has no use for that."""
    return name.endswith(".num_batches_tracked")


def _check_fit(path: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    faults = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    faults += [f"{name} is not part of the network" for name in found.keys() - wanted.keys()]
    faults += [
        f"{name} has shape {list(found[name].shape)}, not {list(wanted[name].shape)}"
        for name in wanted.keys() & found.keys()
        if found[name].shape != wanted[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise BundleError(f"{path} does not fit {ARCHITECTURE}: {'; '.join(sorted(faults)[:3])}{more}; export it again")


def fold_batch_norm(net: nn.Module) -> None:
    """Multiply each batch norm into the convolution before it: the same function, fewer steps."""
    for module in net.modules():
        for conv_name, norm_name in CONV_AND_NORM:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
