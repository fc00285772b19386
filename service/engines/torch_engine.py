"""PyTorch: batch norm folded into the convolutions, fused by oneDNN, in bfloat16 where the processor has it.

What was tried, and what it gave: docs/performance.md.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.engines.fused import FusedResNet18, can_fuse
from service.machine import cpu_flags, usable_cpus
from service.model import Bundle, BundleError
from service.network import ARCHITECTURE, ResNet18, build_network

WEIGHTS = "weights.safetensors"
CONV_AND_NORM = (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1"))  # the last one: inside `downsample`

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86-64, and of Arm; on others it is emulated, slowly
TRIAL_PICTURES, TRIAL_ROUNDS = 4, 4
# How much faster a form must be to be taken instead: noise must not decide, or equal machines would answer unequally.
# bfloat16 takes half the time where it pays; oneDNN has its own ideas of memory formats, and next to nothing is left
PRECISION_WORTH, FORMAT_WORTH = 1.1, 1.5

Form = Callable[[Tensor], Tensor]  # float32 [N, 3, S, S] -> scores float32 [N, classes]


class TorchEngine:
    """Runs a bundle's weights with PyTorch, in the precision that is named or else in the fastest of this processor.

    `details` says which form was taken, and the measurement that decided it.
    """

    name = "torch"
    weights = WEIGHTS

    def __init__(self, bundle: Bundle, precision: str | None = None):
        self.libraries = {"torch": str(torch.__version__)}
        if "OMP_NUM_THREADS" not in os.environ:  # left alone, PyTorch counts the host's cores, not the container's
            torch.set_num_threads(usable_cpus())
        self.any_thread = torch.get_num_threads() == 1  # OpenMP would make a team of threads for each that asks
        net = load_network(bundle)
        fold_batch_norm(net)
        self._scores, self.details = fastest_form(net, [precision] if precision else own_precisions(), bundle.size_px)

    @torch.inference_mode()
    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        return self._scores(torch.from_numpy(batch)).softmax(1).numpy()


def own_precisions() -> list[str]:
    """The precisions that this processor has instructions for, float32 first."""
    return list(PRECISIONS) if cpu_flags() & BFLOAT16_FLAGS else ["float32"]


@torch.inference_mode()
def fastest_form(net: ResNet18, precisions: Sequence[str], size_px: int) -> tuple[Form, dict[str, object]]:
    """The fastest precision for a folded network, then its fastest memory format, and the milliseconds that decided."""
    make = FusedResNet18 if can_fuse() else LayeredResNet18
    pictures = torch.zeros(TRIAL_PICTURES, 3, size_px, size_px)
    trial_ms: dict[str, float] = {}

    def trial(precision: str, layout: str) -> tuple[Form, float]:
        form = make(net, PRECISIONS[precision], MEMORY_FORMATS[layout], size_px)
        ms = trial_ms[f"{precision}, {layout}"] = milliseconds(form, pictures)
        return form, ms

    chosen, layout = precisions[0], "channels_last"
    form, ms = trial(chosen, layout)
    for precision in precisions[1:]:
        other, other_ms = trial(precision, layout)
        if other_ms * PRECISION_WORTH < ms:
            form, ms, chosen = other, other_ms, precision
    other, other_ms = trial(chosen, "contiguous")
    if other_ms * FORMAT_WORTH < ms:
        form, layout = other, "contiguous"
    return form, {"form": f"{chosen}, {layout}, {make.how}", "threads": torch.get_num_threads(), "trial_ms": trial_ms}


def milliseconds(form: Form, pictures: Tensor) -> float:
    """The shortest of a few runs, after one in which oneDNN makes its code."""
    form(pictures)
    took = []
    for _ in range(TRIAL_ROUNDS):
        begun = time.perf_counter()
        form(pictures)
        took.append(time.perf_counter() - begun)
    return round(min(took) * 1000, 3)


class LayeredResNet18:
    """The network as PyTorch runs it, where oneDNN cannot fuse. The last layer stays in float32."""

    how = "layer by layer"

    def __init__(self, net: ResNet18, precision: torch.dtype, memory_format: torch.memory_format, size_px: int):
        self._precision, self._memory_format = precision, memory_format
        self._net = copy.deepcopy(net).to(precision).to(memory_format=memory_format)
        self._net.fc = net.fc

    def __call__(self, x: Tensor) -> Tensor:
        return self._net(x.to(self._precision, memory_format=self._memory_format))


def load_network(bundle: Bundle) -> ResNet18:
    """The bundle's network in float32, ready to answer. Raises BundleError when the weights do not fit it."""
    if bundle.architecture != ARCHITECTURE:
        raise BundleError(f"{bundle.folder} holds a {bundle.architecture!r}; the torch engine runs {ARCHITECTURE!r}")
    path = bundle.path(WEIGHTS)
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
