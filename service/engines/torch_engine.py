"""PyTorch in float32: batch norm folded into the convolutions, channels last."""

from __future__ import annotations

import os

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.machine import usable_cpus
from service.model import Bundle, BundleError
from service.network import ARCHITECTURE, build_network

WEIGHTS = "weights.safetensors"
CONV_AND_NORM = (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1"))  # the last one: inside `downsample`


class TorchEngine:
    """Runs a bundle's weights with PyTorch."""

    name = "torch"
    weights = WEIGHTS

    def __init__(self, bundle: Bundle):
        self.libraries = {"torch": str(torch.__version__)}
        if "OMP_NUM_THREADS" not in os.environ:  # left alone, PyTorch counts the host's cores, not the container's
            torch.set_num_threads(usable_cpus())
        net = load_network(bundle)
        fold_batch_norm(net)
        self._net = net.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(batch).to(memory_format=torch.channels_last)
        return self._net(inputs).softmax(1).numpy()


def load_network(bundle: Bundle) -> nn.Module:
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
    return net.requires_grad_(False)


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
