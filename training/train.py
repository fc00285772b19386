"""Train ResNet-18 on CIFAR-10: one file, top to bottom.

    ./cloudtrial train --out runs/resnet18                 # downloads CIFAR-10
    ./cloudtrial train --out runs/resnet18 --data data     # data/train/CLASS/*, data/test/CLASS/*
    ./cloudtrial train --out runs/resnet18 --resume        # continues after the last finished epoch

The network is torchvision's resnet18 with the CIFAR stem: a 3x3 convolution of stride 1 and no max-pool. The recipe is
a published one: SGD with Nesterov momentum, one cycle of the learning rate, and flip, cutout and shift as augmentation.
Its author reports 95.3% to 95.6% of the test set for three runs of 80 epochs (KellerJordan/cifar10-zoo,
airbench/baselines/train_resnet18_96.py, without test-time augmentation). This project has not yet run it in full: the
shipped weights were made by an earlier, longer recipe, of the commit that models/resnet18-cifar10/model.json names.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import SGD
from tqdm import tqdm

from service.engines.precision import probe_precision
from service.system import cpu_model
from training.data import CLASSES, load_split
from training.defaults import CIFAR_MEAN, CIFAR_STD, SEED
from training.errors import DataError, RunError

EVAL_BATCH_SIZE = 1000
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.txt"


@dataclass(frozen=True)
class Recipe:
    """All that decides what is learnt, but for the data and the seed. It was fixed before its first whole run."""

    epochs: int = 80
    batch_size: int = 500
    max_lr: float = 0.2
    lr_knots: tuple[tuple[float, float], ...] = ((0.0, 0.2), (0.2, 1.0), (1.0, 0.0))  # (fraction of epochs, of max_lr)
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 5e-4  # on all parameters
    cutout_px: int = 12  # side of the square that is hidden
    shift_px: int = 4  # largest shift, each way
    held_out: int = 1000  # training images that are not learnt from: each epoch's accuracy is theirs

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # tuples as lists, as a file has them


RECIPE = Recipe()


@dataclass
class Progress:
    """The metadata of a checkpoint."""

    recipe: dict[str, Any]
    epoch: int = 0  # finished epochs
    train_seconds: float = 0.0  # wall time spent in training, without evaluation
    seed: int = SEED
    hardware: list[str] = field(default_factory=list)  # that it ran on


def build_network() -> nn.Module:
    """torchvision's resnet18 with ten outputs and the CIFAR stem, freshly initialised."""
    from torchvision.models import resnet18  # only here: fine-tuning takes other things from this file

    net = resnet18(num_classes=len(CLASSES))
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()  # type: ignore[assignment]  # torchvision declares the exact class
    return net.to(memory_format=torch.channels_last)


def build_optimizer(net: nn.Module, recipe: Recipe) -> SGD:
    """Returns the optimizer; its learning rate is set before every step."""
    return SGD(net.parameters(), recipe.max_lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True)


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Returns the learning rate after `epoch` epochs, fractions included."""
    positions, fractions = zip(*recipe.lr_knots, strict=True)
    return recipe.max_lr * float(np.interp(epoch / recipe.epochs, positions, fractions))


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> the network's input, float32 in channels_last."""
    mean, std = (torch.tensor(each, device=images.device).view(1, 3, 1, 1) * 255 for each in (CIFAR_MEAN, CIFAR_STD))
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Grey out one square of each image, wholly inside it. Source: DeVries and Taylor, "Cutout" (2017)."""
    size = images.shape[-1]
    top, left = torch.randint(0, size - side + 1, (2, len(images), 1), generator=generator).to(images.device)
    index = torch.arange(size, device=images.device)
    rows, columns = ((index >= start) & (index < start + side) for start in (top, left))  # [N, size]
    hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
    return images.masked_fill(hidden, 0.0)  # 0 is the mean of normalised images


def shift(images: Tensor, max_px: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `max_px` pixels each way; the border is filled by reflection."""
    size = images.shape[-1]
    padded = F.pad(images, (max_px,) * 4, mode="reflect")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # [N, 3, 2*max_px+1, 2*max_px+1, size, size], a view
    top, left = torch.randint(0, 2 * max_px + 1, (2, len(images)), generator=generator).to(images.device)
    rows = torch.arange(len(images), device=images.device)
    return windows[rows, :, top, left].contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, flip: Tensor, generator: torch.Generator, recipe: Recipe) -> Tensor:
    """Mirror the images that `flip` marks, then cutout and shift."""
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)
    return shift(cutout(images, recipe.cutout_px, generator), recipe.shift_px, generator)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware: on any recent GPU, and on this CPU by a trial."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return probe_precision("bfloat16").usable


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Fraction of images whose most probable class is their label. images: uint8 [N, 3, 32, 32]."""
    net.eval()
    correct = 0
    for batch, targets in zip(images.split(EVAL_BATCH_SIZE), labels.split(EVAL_BATCH_SIZE), strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = net(normalise(batch.to(device)))
        correct += int((logits.argmax(1).cpu() == targets).sum())
    return correct / len(labels)


def train_epoch(
    net: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor, epoch: int, seed: int,
    device: torch.device, recipe: Recipe,
) -> float:  # fmt: skip
    """One pass over the data; returns the mean loss. Random choices depend on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 10_000 + epoch)
    order = torch.randperm(len(labels), generator=generator)
    # Alternating flip: each image is mirrored in every other epoch, slightly better than at random
    first_flip = torch.randint(0, 2, (len(labels),), generator=torch.Generator().manual_seed(seed)).bool()
    flips = first_flip if epoch % 2 == 0 else ~first_flip
    steps = len(order) // recipe.batch_size
    net.train()
    loss_sum = 0.0
    for step in tqdm(range(steps), desc=f"epoch {epoch + 1}", leave=False, mininterval=2):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + step / steps)
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        inputs = augment(normalise(images[batch].to(device)), flips[batch].to(device), generator, recipe)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = net(inputs)
        loss = F.cross_entropy(logits.float(), labels[batch].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item()
    return loss_sum / steps


def save_checkpoint(path: Path, net: nn.Module, optimizer: SGD, progress: Progress) -> None:
    """Write network, momentum and progress as one safetensors file, which replaces the earlier one at once."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"momentum.{name}": optimizer.state[p]["momentum_buffer"] for name, p in net.named_parameters()}
    part = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"progress": json.dumps(vars(progress))})
    os.replace(part, path)


def load_checkpoint(path: Path, net: nn.Module, optimizer: SGD) -> Progress:
    """Fill network and optimizer from a checkpoint; returns its progress."""
    net.load_state_dict(read_network(path))
    tensors = load_file(path)
    for name, p in net.named_parameters():
        optimizer.state[p]["momentum_buffer"] = tensors[f"momentum.{name}"].to(p.device)
    return read_progress(path)


def read_network(path: Path) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint, under their own names."""
    return {k.removeprefix("net."): v for k, v in load_file(path).items() if k.startswith("net.")}


def read_progress(path: Path) -> Progress:
    """The progress of a checkpoint's run."""
    with safe_open(path, "pt") as file:
        return Progress(**json.loads(file.metadata()["progress"]))


def hold_out(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split the indices of the training images at random: those to learn from, and `count` others."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return order[count:], order[:count]


def train(out: Path, data: Path | None, *, resume: bool, seed: int) -> None:
    """Train to the last epoch, with a checkpoint and a log line after each; test once. Raises RunError, DataError."""
    recipe, checkpoint = RECIPE, out / CHECKPOINT
    if checkpoint.exists() != resume:
        fault = "is missing: start without --resume" if resume else "exists: add --resume or choose another --out"
        raise RunError(f"{checkpoint} {fault}")
    train_split, test_split = load_split(data, train=True), load_split(data, train=False)
    images, test_images = (torch.from_numpy(s.images).permute(0, 3, 1, 2) for s in (train_split, test_split))
    labels, test_labels = torch.from_numpy(train_split.labels), torch.from_numpy(test_split.labels)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    net = build_network().to(device)
    optimizer = build_optimizer(net, recipe)
    progress = load_checkpoint(checkpoint, net, optimizer) if resume else Progress(recipe.to_json(), seed=seed)
    if progress.recipe != recipe.to_json():
        raise RunError(f"{checkpoint} was trained by another recipe, {progress.recipe}: choose another --out")
    on_cpu = f"{os.cpu_count()} cores of {cpu_model()}"
    progress.hardware = sorted({*progress.hardware, on_cpu if device.type == "cpu" else torch.cuda.get_device_name()})
    learnt, held_out = hold_out(labels, recipe.held_out, progress.seed)
    if len(learnt) < (batch := recipe.batch_size):
        raise DataError(f"{len(labels)} training images are too few: {len(held_out)} are held out, a batch is {batch}")
    out.mkdir(parents=True, exist_ok=True)

    def show(row: str) -> None:
        print(row, flush=True)
        with (out / LOG).open("a", encoding="utf-8") as log:
            log.write(row + "\n")

    bf16 = "on" if has_fast_bfloat16(device) else "off"
    print(f"{len(learnt)} images, {recipe.epochs} epochs, {device}, bf16 {bf16}, seed {progress.seed}")
    print(f"epoch  train loss  accuracy of {len(held_out)} held out  minutes", flush=True)
    for epoch in range(progress.epoch, recipe.epochs):
        start = time.perf_counter()
        loss = train_epoch(net, optimizer, images[learnt], labels[learnt], epoch, progress.seed, device, recipe)
        progress.epoch, progress.train_seconds = epoch + 1, progress.train_seconds + time.perf_counter() - start
        save_checkpoint(checkpoint, net, optimizer, progress)
        score = accuracy(net, images[held_out], labels[held_out], device)
        show(f"{epoch + 1:5d}  {loss:10.4f}  {score:10.2%}  {progress.train_seconds / 60:7.1f}")
    show(f"test set: {accuracy(net, test_images, test_labels, device):.2%} of {len(test_labels)} images")
