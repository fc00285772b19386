"""Train ResNet-18 on CIFAR-10: one file, top to bottom.

    ./cloudtrial train --out runs/resnet18                 # downloads CIFAR-10
    ./cloudtrial train --out runs/resnet18 --data data     # data/train/CLASS/*, data/test/CLASS/*
    ./cloudtrial train --out runs/resnet18 --resume        # continues after the last finished epoch

The network is torchvision's resnet18 with the CIFAR stem: a 3x3 convolution of stride 1 and no max-pool. The recipe is
SGD with Nesterov momentum, one cycle of the learning rate, label smoothing, and flip, cutout and shift as augmentation
(rates, cutout and shift of KellerJordan/cifar10-zoo, airbench/baselines/train_resnet18_96.py). Two more parts make it
fit into an afternoon on two cores: images are small at first (progressive resizing), and most of those that the network
knows well are skipped in an epoch (Qin and others, "InfoBatch", ICLR 2024). The run shipped reached 95.25%.
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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from tqdm import tqdm

from service.engines.precision import probe_precision
from service.system import cpu_model
from training.augmentation import cutout, flip_horizontally, normalise, resize, shift
from training.data import CLASSES, SIZE_PX, load_split
from training.defaults import SEED
from training.errors import DataError, RunError

EVAL_BATCH_SIZE = 1000
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.txt"


@dataclass(frozen=True)
class Recipe:
    """All that decides what is learnt, but for the data and the seed. Fixed before a run: the first had 70 epochs."""

    epochs: int = 80
    batch_size: int = 250
    max_lr: float = 0.15
    lr_knots: tuple[tuple[float, float], ...] = ((0.0, 0.2), (0.2, 1.0), (1.0, 0.0))  # (fraction of epochs, of max_lr)
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 5e-4  # on all parameters
    label_smoothing: float = 0.1
    cutout_px: int = 12  # side of the square that is hidden
    shift_px: int = 4  # largest shift, each way
    first_px: int = 16  # side of the images at first; it grows by eights
    full_size_at: float = 0.6  # fraction of the epochs after which the images have their whole size
    easy_fraction: float = 0.7  # of the images, those of the least loss when last seen
    easy_kept: float = 0.4  # of the easy ones, those that an epoch learns from
    prune_until: float = 0.875  # fraction of the epochs after which none is skipped
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


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate after `epoch` epochs, fractions included."""
    positions, fractions = zip(*recipe.lr_knots, strict=True)
    return recipe.max_lr * float(np.interp(epoch / recipe.epochs, positions, fractions))


def image_size_px(recipe: Recipe, epoch: int) -> int:
    """Returns the side of the images that an epoch learns from. Source: Howard, fast.ai's entry to DAWNBench (2018)."""
    grown = min(1.0, epoch / recipe.epochs / recipe.full_size_at)
    return recipe.first_px + int(grown * (SIZE_PX - recipe.first_px)) // 8 * 8


def prune_easy(losses: Tensor, recipe: Recipe, epoch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Returns the images that an epoch learns from, in random order, and the weight of every image's loss.

    losses: float [N], when last seen. The easy images that are kept count for those that are skipped, so that the
    gradient is nearly unbiased. Source: Qin and others, "InfoBatch" (dynamic data pruning, ICLR 2024), with fractions.
    """
    order, weights = torch.randperm(len(losses), generator=generator), torch.ones(len(losses))
    if epoch == 0 or epoch >= recipe.prune_until * recipe.epochs:
        return order, weights
    easy = losses.argsort(stable=True)[: int(len(losses) * recipe.easy_fraction)]
    easy = easy[torch.randperm(len(easy), generator=generator)]
    kept = int(len(easy) * recipe.easy_kept)
    weights[easy[:kept]], weights[easy[kept:]] = len(easy) / kept, 0  # they count for each other
    return order[weights[order] > 0], weights


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware: on any recent GPU, and on this CPU by a trial."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return probe_precision("bfloat16").usable


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, device: torch.device, size_px: int = SIZE_PX) -> float:
    """Fraction of images whose most probable class is their label. images: uint8 [N, 3, 32, 32], shown in `size_px`."""
    net.eval()
    correct = 0
    for batch, targets in zip(images.split(EVAL_BATCH_SIZE), labels.split(EVAL_BATCH_SIZE), strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = net(resize(normalise(batch.to(device)), size_px))
        correct += int((logits.argmax(1).cpu() == targets).sum())
    return correct / len(labels)


def train_epoch(
    net: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor, losses: Tensor, epoch: int, seed: int,
    device: torch.device, recipe: Recipe,
) -> float:  # fmt: skip
    """One pass over the data; returns the mean loss and updates `losses`. Chance is of seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 10_000 + epoch)
    order, weights = prune_easy(losses, recipe, epoch, generator)
    # Alternating flip: each image is mirrored in every other epoch, slightly better than at random
    first_flip = torch.randint(0, 2, (len(labels),), generator=torch.Generator().manual_seed(seed)).bool()
    flips = first_flip if epoch % 2 == 0 else ~first_flip
    px, batches = image_size_px(recipe, epoch), order.split(recipe.batch_size)[: len(order) // recipe.batch_size]
    net.train()
    loss_sum = 0.0
    for step, batch in enumerate(tqdm(batches, desc=f"epoch {epoch + 1}", leave=False, mininterval=2)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + step / len(batches))
        inputs = flip_horizontally(normalise(images[batch].to(device)), flips[batch].to(device))
        inputs = shift(cutout(inputs, recipe.cutout_px, generator), recipe.shift_px, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            logits = net(resize(inputs, px))
        targets, smooth = labels[batch].to(device), recipe.label_smoothing
        loss = cross_entropy(logits.float(), targets, reduction="none", label_smoothing=smooth)
        weighted = loss * weights[batch].to(device)
        optimizer.zero_grad(set_to_none=True)
        (weighted.sum() / weights[batch].sum()).backward()
        optimizer.step()
        losses[batch] = loss.detach().cpu()
        loss_sum += weighted.sum().item()
    return loss_sum / weights[torch.cat(batches)].sum().item()


def save_checkpoint(path: Path, net: nn.Module, optimizer: SGD, losses: Tensor, progress: Progress) -> None:
    """Write network, momentum, losses and progress as one safetensors file, which replaces the earlier one at once."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"momentum.{name}": optimizer.state[p]["momentum_buffer"] for name, p in net.named_parameters()}
    tensors["losses"] = losses
    part = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"progress": json.dumps(vars(progress))})
    os.replace(part, path)


def load_checkpoint(path: Path, net: nn.Module, optimizer: SGD) -> Tensor:
    """Fill network and optimizer from a checkpoint; returns the losses."""
    net.load_state_dict(read_network(path))
    tensors = load_file(path)
    for name, p in net.named_parameters():
        optimizer.state[p]["momentum_buffer"] = tensors[f"momentum.{name}"].to(p.device)
    return tensors["losses"]


def read_network(path: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors of the network, under their own names."""
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

    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build_network().to(device)
    optimizer = SGD(net.parameters(), recipe.max_lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=True)
    progress = read_progress(checkpoint) if resume else Progress(recipe.to_json(), seed=seed)
    if progress.recipe != recipe.to_json():
        raise RunError(f"{checkpoint} was trained by another recipe, {progress.recipe}: choose another --out")
    on_cpu = f"{os.cpu_count()} cores of {cpu_model()}"
    progress.hardware = sorted({*progress.hardware, on_cpu if device.type == "cpu" else torch.cuda.get_device_name()})
    learnt, held_out = hold_out(labels, recipe.held_out, progress.seed)
    if len(learnt) < (batch := recipe.batch_size):
        raise DataError(f"{len(labels)} training images are too few: {len(held_out)} are held out, a batch is {batch}")
    losses = load_checkpoint(checkpoint, net, optimizer) if resume else torch.zeros(len(learnt))
    if len(losses) != len(learnt):
        raise RunError(f"{checkpoint} has learnt from {len(losses)} images, not {len(learnt)}: choose another --out")
    out.mkdir(parents=True, exist_ok=True)

    def show(row: str) -> None:
        print(row, flush=True)
        with (out / LOG).open("a", encoding="utf-8") as log:
            log.write(row + "\n")

    bf16 = "on" if has_fast_bfloat16(device) else "off"
    print(f"{len(learnt)} images, {recipe.epochs} epochs, {device}, bf16 {bf16}, seed {progress.seed}")
    print(f"epoch  px  train loss  accuracy of {len(held_out)} held out  minutes", flush=True)
    shown = images[learnt], labels[learnt]
    for epoch in range(progress.epoch, recipe.epochs):
        start = time.perf_counter()
        loss = train_epoch(net, optimizer, *shown, losses, epoch, progress.seed, device, recipe)
        progress.epoch, progress.train_seconds = epoch + 1, progress.train_seconds + time.perf_counter() - start
        save_checkpoint(checkpoint, net, optimizer, losses, progress)
        score = accuracy(net, images[held_out], labels[held_out], device, px := image_size_px(recipe, epoch))
        show(f"{epoch + 1:5d}  {px}  {loss:10.4f}  {score:10.2%}  {progress.train_seconds / 60:7.1f}")
    show(f"test set: {accuracy(net, test_images, test_labels, device):.2%} of {len(test_labels)} images")
