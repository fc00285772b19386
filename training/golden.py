"""Generate the golden set: 100 images synthesised from the shipped network, with its predictions for each.

    ./cloudtrial golden        (or: make golden)

It checks a deployment, not the model: a correct deployment predicts as the reference does. Each image starts as noise;
gradient descent turns it into what the network labels as one class. The batch norm statistics of the training images
(Yin et al., "Dreaming to Distill", 2020) and a smoothness prior keep it natural. Nothing in the images comes from
CIFAR-10, so they can be shipped. Written to eval/golden/MODEL: the PNGs and manifest.json.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from service.engines.torch_engine import WEIGHTS, TorchEngine, load_network
from service.images.preprocess import decode_image
from service.model import Bundle
from service.schema import PROBABILITY_DIGITS
from training.folders import GOLDEN_MANIFEST, golden_files

PER_CLASS = 10
SEED = 0

LEARNING_RATE = 0.1  # Adam, cosine to zero
NOISE = 0.3  # standard deviation of the initial images, in the network's units
STATISTICS_WEIGHT = 0.05  # distance of each layer's mean and variance from those of the training images
SMOOTHNESS_WEIGHT = 0.3  # difference between neighbouring pixels
NORM_WEIGHT = 0.001  # L2 norm of the image
SHIFT_PX = 2


def track_batch_norm_distances(net: nn.Module) -> list[Tensor]:
    """Returns a list to which a forward pass adds how far each batch norm's input is from its running statistics."""
    distances: list[Tensor] = []

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        mean, var = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        distances.append((mean - norm.running_mean).norm() + (var - norm.running_var).norm())

    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(hook)  # type: ignore[arg-type]  # declared for any module
    return distances


def generate(bundle: Bundle, steps: int) -> np.ndarray:
    """uint8 [N, S, S, 3]: PER_CLASS images of every class, in class order."""
    torch.manual_seed(SEED)
    net = load_network(bundle).to(memory_format=torch.channels_last)
    distances = track_batch_norm_distances(net)
    targets = torch.arange(len(bundle.classes)).repeat_interleave(PER_CLASS)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (bundle.image.mean, bundle.image.std))
    low, high = -mean / std, (1 - mean) / std
    images = (NOISE * torch.randn(len(targets), 3, bundle.image.size_px, bundle.image.size_px)).requires_grad_()
    optimizer = torch.optim.Adam([images], LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc="golden set", mininterval=2):
        distances.clear()
        shift = torch.randint(-SHIFT_PX, SHIFT_PX + 1, (2,)).tolist()
        view = images.roll(shift, (2, 3))
        view = view.flip(3) if torch.rand(()) < 0.5 else view
        loss = F.cross_entropy(net(view), targets)
        loss = loss + STATISTICS_WEIGHT * torch.stack(distances).sum() + SMOOTHNESS_WEIGHT * total_variation(images)
        loss = loss + NORM_WEIGHT * images.square().sum((1, 2, 3)).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            images.copy_(images.clamp(low, high))
    pixels = (images.detach() * std + mean).clamp(0, 1) * 255
    return pixels.round().byte().permute(0, 2, 3, 1).numpy()


def total_variation(images: Tensor) -> Tensor:
    """Mean difference between neighbouring pixels: horizontal, vertical and on both diagonals."""
    horizontal = images[..., :, 1:] - images[..., :, :-1]
    vertical = images[..., 1:, :] - images[..., :-1, :]
    diagonal = images[..., 1:, 1:] - images[..., :-1, :-1]
    antidiagonal = images[..., 1:, :-1] - images[..., :-1, 1:]
    differences = (horizontal, vertical, diagonal, antidiagonal)
    return torch.stack([d.square().sum((1, 2, 3)).sqrt().mean() for d in differences]).mean()


def write_golden_set(folder: Path, bundle: Bundle, images: np.ndarray) -> int:
    """Write the PNGs and the manifest, in place of an earlier set's, and nothing else's, which raises FolderError.

    Returns how many the network classifies as intended.
    """
    engine = TorchEngine(bundle, "float32")  # on any processor
    for name in golden_files(folder):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, pixels in enumerate(images):
        label = number // PER_CLASS
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        row = engine.probabilities(decode_image(data, bundle)[None])[0].tolist()
        name = f"{number:03d}-{bundle.classes[label]}.png"
        (folder / name).write_bytes(data)
        probabilities = [round(p, PROBABILITY_DIGITS) for p in row]
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"name": name, "sha256": digest, "label": label, "probabilities": probabilities})
    lines = ",\n".join("  " + json.dumps(entry) for entry in entries)
    head = f' "classes": {json.dumps(bundle.classes)},\n "model_version": "{bundle.version(WEIGHTS)}",\n'
    (folder / GOLDEN_MANIFEST).write_text(f'{{\n{head} "images": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    return sum(max(range(len(bundle.classes)), key=e["probabilities"].__getitem__) == e["label"] for e in entries)
