"""Draw the golden set: 100 pictures that the shipped network itself dreams up, and what it says of each.

    ./cloudtrial golden        (or: make golden)

It checks a deployment, not the model: a correct deployment answers as the reference does. The pictures are noise that
gradient descent turns into what the network takes for each class, held to natural statistics by what its batch norm
remembers of the training pictures (Yin et al., "Dreaming to Distill", 2020) and by smoothness. Nothing in them comes
from CIFAR-10, so they can be shipped. Written to eval/golden: the PNGs and manifest.json.
"""

from __future__ import annotations

import argparse
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
from service.model import Bundle, load_bundle
from service.preprocess import read_picture
from service.schema import PROBABILITY_DIGITS

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "models" / "resnet18-cifar10"
OUT = ROOT / "eval" / "golden"
PER_CLASS = 10
SEED = 0

STEPS = 150
LEARNING_RATE = 0.1  # Adam, cosine to zero
NOISE = 0.3  # standard deviation of the first pictures, in the network's units
STATISTICS_WEIGHT = 0.05  # distance of each layer's mean and variance from the training pictures'
SMOOTHNESS_WEIGHT = 0.3  # difference between neighbouring pixels
ENERGY_WEIGHT = 0.001
SHIFT_PX = 2


def watch_statistics(net: nn.Module) -> list[Tensor]:
    """After each forward pass the list holds, per batch norm, how far its input is from what it remembers."""
    distances: list[Tensor] = []

    def hook(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        mean, var = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        distances.append((mean - norm.running_mean).norm() + (var - norm.running_var).norm())

    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(hook)  # type: ignore[arg-type]  # declared for any module
    return distances


def dream(bundle: Bundle, steps: int) -> np.ndarray:
    """uint8 [N, S, S, 3]: PER_CLASS pictures of every class, in class order."""
    torch.manual_seed(SEED)
    net = load_network(bundle).to(memory_format=torch.channels_last)
    distances = watch_statistics(net)
    wanted = torch.arange(len(bundle.classes)).repeat_interleave(PER_CLASS)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (bundle.mean, bundle.std))
    low, high = -mean / std, (1 - mean) / std
    pictures = (NOISE * torch.randn(len(wanted), 3, bundle.size_px, bundle.size_px)).requires_grad_()
    optimiser = torch.optim.Adam([pictures], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in tqdm(range(steps), desc="golden set", mininterval=2):
        distances.clear()
        shift = torch.randint(-SHIFT_PX, SHIFT_PX + 1, (2,)).tolist()
        seen = pictures.roll(shift, (2, 3))
        seen = seen.flip(3) if torch.rand(()) < 0.5 else seen
        loss = F.cross_entropy(net(seen), wanted)
        loss = loss + STATISTICS_WEIGHT * torch.stack(distances).sum() + SMOOTHNESS_WEIGHT * roughness(pictures)
        loss = loss + ENERGY_WEIGHT * pictures.square().sum((1, 2, 3)).sqrt().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            pictures.copy_(pictures.clamp(low, high))
    colours = (pictures.detach() * std + mean).clamp(0, 1) * 255
    return colours.round().byte().permute(0, 2, 3, 1).numpy()


def roughness(pictures: Tensor) -> Tensor:
    """Mean size of the steps between neighbouring pixels, across, down and on both diagonals."""
    across = pictures[..., :, 1:] - pictures[..., :, :-1]
    down = pictures[..., 1:, :] - pictures[..., :-1, :]
    diagonal = pictures[..., 1:, 1:] - pictures[..., :-1, :-1]
    other = pictures[..., 1:, :-1] - pictures[..., :-1, 1:]
    return torch.stack([d.square().sum((1, 2, 3)).sqrt().mean() for d in (across, down, diagonal, other)]).mean()


def write_set(folder: Path, bundle: Bundle, pictures: np.ndarray) -> int:
    """Write the PNGs and the manifest; returns how many the network names as intended."""
    engine = TorchEngine(bundle, "float32")  # on any processor
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    entries = []
    for number, pixels in enumerate(pictures):
        label = number // PER_CLASS
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        row = engine.probabilities(read_picture(data, bundle)[None])[0].tolist()
        name = f"{number:03d}-{bundle.classes[label]}.png"
        (folder / name).write_bytes(data)
        probabilities = [round(p, PROBABILITY_DIGITS) for p in row]
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"name": name, "sha256": digest, "label": label, "probabilities": probabilities})
    lines = ",\n".join("  " + json.dumps(entry) for entry in entries)
    head = f' "classes": {json.dumps(bundle.classes)},\n "model_version": "{bundle.version(WEIGHTS)}",\n'
    (folder / "manifest.json").write_text(f'{{\n{head} "images": [\n{lines}\n ]\n}}\n')
    return sum(max(range(10), key=e["probabilities"].__getitem__) == e["label"] for e in entries)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="./cloudtrial golden", description="Draw the golden set from the shipped network."
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"model bundle (default: {BUNDLE})")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder to write (default: {OUT})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"more gives calmer pictures (default: {STEPS})")
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    named = write_set(args.out, bundle, dream(bundle, args.steps))
    print(f"{args.out}: {len(bundle.classes) * PER_CLASS} pictures, {named} named as intended")


if __name__ == "__main__":
    main()
