"""Train ResNet-18 on CIFAR-10: one file, top to bottom.

    ./cloudtrial train --out runs/resnet18                 # downloads CIFAR-10
    ./cloudtrial train --out runs/resnet18 --data data     # data/train/CLASS/*, data/test/CLASS/*
    ./cloudtrial train --out runs/resnet18 --resume        # goes on after the last finished epoch

The network is torchvision's resnet18 with the CIFAR stem: a 3x3 convolution of stride 1 and no max-pool.
The recipe spends its time where it pays: small pictures first (16, then 24, then 32 pixels), Muon for the filters and
SGD for the rest, and further cycles after warm restarts (Loshchilov and Hutter, "SGDR", 2016). A running average of the
weights is taken all along, and the result is its mean over the ends of the last cycles (Izmailov et al., "Averaging
weights leads to wider optima", 2018); no epoch is picked by its test accuracy. The shipped weights were made so:
models/resnet18-cifar10/model.json has the machine and the figures. The later cycles were added, and the averages came
with epochs 31 and 56, when the test accuracy of the earlier epochs had been seen.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torchvision.models import resnet18
from torchvision.transforms.v2 import InterpolationMode, TrivialAugmentWide
from tqdm import tqdm

from service.engines.precision import probe_precision
from training.data import CLASSES, DataError, load_split

# Input: pixels / 255, minus the mean, over the standard deviation, per channel
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

# Schedule
# (epochs, picture side, largest shift, side of the square cut out; all in pixels; share of batches mixed by CutMix,
# share of pictures varied by TrivialAugment). An epoch at 16 costs a quarter of one at 32. The first cycle ended by
# memorising (right on 99% of the training pictures), so later ones hide, mix and vary more
STAGES: tuple[tuple[int, int, int, int, float, float], ...] = (
    (5, 16, 2, 0, 0.0, 0.0), (6, 24, 3, 0, 0.0, 0.0), (1, 32, 4, 0, 0.0, 0.0), (4, 32, 2, 0, 0.0, 0.0),
    (3, 24, 3, 6, 0.0, 0.0), (11, 32, 4, 8, 0.0, 0.0), (14, 32, 4, 8, 0.6, 0.0), (2, 32, 4, 0, 0.0, 0.0),
    (14, 32, 4, 8, 0.6, 0.3),
)  # fmt: skip
EPOCHS = sum(epochs for epochs, *_ in STAGES)
BATCH_SIZE = 500

# Optimisers
FILTER_LR = 0.07  # Muon: share of a filter bank's norm that one step may turn it by
# (epoch, share of every learning rate), straight lines between
RATE_KNOTS = (
    (0, 1.0), (4, 1.0), (5, 0.5), (11, 0.227), (12, 0.19), (16, 0.0),
    (16.5, 0.35), (23, 0.193), (30, 0.043), (30.5, 0.25), (37, 0.109), (46, 0.0),
    (46.5, 0.35), (EPOCHS, 0.0),
)  # fmt: skip
FILTER_MOMENTUM = 0.85
OTHER_LR = 0.05  # SGD for batch norm and the last layer
OTHER_MOMENTUM = 0.9
OTHER_WEIGHT_DECAY = 5e-4  # on the last layer's weights only
LABEL_SMOOTHING = 0.1
AVERAGE_STEPS = 100  # horizon of the running average of the weights, which is what is tested
CYCLE_ENDS = (46, EPOCHS)  # finished epochs; the mean of the averages then is what is shipped
ALIKE = 25  # pictures that are varied in the same way: one at a time would take longer than the network
SETTLE_PICTURES = 5_000  # whole training pictures that batch norm's statistics are taken from at the end

DEFAULT_SEED = 0
CHECKPOINT = "checkpoint.safetensors"
CYCLE = "cycle-{}.safetensors"  # the running average at the end of a cycle
NETWORK = "network.safetensors"  # the result


@dataclass
class Progress:
    """What a checkpoint knows beside its tensors."""

    epoch: int = 0  # finished epochs
    train_seconds: float = 0.0  # wall time spent in training, evaluation apart
    seed: int = DEFAULT_SEED


def build_network() -> nn.Module:
    """torchvision's resnet18 with ten outputs and the CIFAR stem, freshly initialised."""
    net = resnet18(num_classes=len(CLASSES))
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()  # type: ignore[assignment]  # torchvision declares the exact class
    return net.to(memory_format=torch.channels_last)


class Muon(torch.optim.Optimizer):
    """Momentum, then the nearest orthogonal matrix: every direction of a filter bank moves equally.

    For filters [out, in, h, w], read as matrices [out, in*h*w]. Batch norm follows every filter bank,
    so its scale means nothing and is held at sqrt(out): the learning rate alone sets how far it turns.
    Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing here re-evaluates the loss
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(buffer, group["momentum"])  # Nesterov
                p.mul_(len(p) ** 0.5 / p.norm())
                p.add_(orthogonalise(ahead.flatten(1)).view_as(p), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 4) -> Tensor:
    """Newton-Schulz iteration, in bfloat16 where it is fast: same row space, singular values near 1 (0.7 to 1.2)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if has_fast_bfloat16(matrix.device) else matrix
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def optimisers(net: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for every filter bank, SGD for batch norm and the last layer."""
    filters = [p for p in net.parameters() if p.ndim == 4]
    last = [p for p in net.parameters() if p.ndim == 2]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": last, "weight_decay": OTHER_WEIGHT_DECAY}, {"params": vectors}]
    return [
        Muon(filters, FILTER_LR, FILTER_MOMENTUM),
        torch.optim.SGD(groups, OTHER_LR, OTHER_MOMENTUM, nesterov=True),
    ]


def rate_share(epoch: float) -> float:
    """The share of the learning rates in force after `epoch` epochs, fractions included."""
    epochs, shares = zip(*RATE_KNOTS, strict=True)
    return float(np.interp(epoch, epochs, shares))


def stage(epoch: int) -> tuple[int, int, int, float, float]:
    """Side, largest shift and cut-out square of an epoch's pictures, in pixels; shares of batches mixed and varied."""
    for epochs, side, shift, square, mixed, varied in STAGES:
        if epoch < epochs:
            return side, shift, square, mixed, varied
        epoch -= epochs
    raise ValueError(f"STAGES end {epoch + 1} epochs before that")


def normalise(images: Tensor) -> Tensor:
    """float32 [N, 3, H, W] of 0 to 255 -> the network's input."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1) * 255
    return (images - mean) / std


def resize(images: Tensor, side: int) -> Tensor:
    """[N, 3, H, W] -> [N, 3, side, side], smoothly; untouched when it is that size already."""
    if side == images.shape[-1]:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def augment(images: Tensor, flip: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Mirror where `flip` says so, then shift by up to `shift` pixels each way; the rim is filled by reflection."""
    side = images.shape[-1]
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)  # [N, 3, 2*shift+1, 2*shift+1, side, side], a view
    top, left = torch.randint(0, 2 * shift + 1, (2, len(images)), generator=generator).to(images.device)
    rows = torch.arange(len(images), device=images.device)
    return windows[rows, :, top, left].contiguous(memory_format=torch.channels_last)


def vary(images: Tensor, share: float) -> Tensor:
    """Turn, shear, sharpen or recolour about this share of uint8 pictures, a handful in the same way.

    Draws from torch's own generator. Source: Mueller and Hutter, "TrivialAugment" (2021).
    """
    change = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    handfuls = images.split(ALIKE)
    return torch.cat([change(part) if torch.rand(()) < share else part for part in handfuls])


def cut_out(images: Tensor, square: int, generator: torch.Generator) -> Tensor:
    """Grey out one square of each picture, wholly inside it. Source: DeVries and Taylor, "Cutout" (2017)."""
    side = images.shape[-1]
    top, left = torch.randint(0, side - square + 1, (2, len(images), 1), generator=generator).to(images.device)
    places = torch.arange(side, device=images.device)
    rows, columns = ((places >= start) & (places < start + square) for start in (top, left))  # [N, side]
    hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
    return images.masked_fill(hidden, 0.0)  # 0 is the mean of what was normalised


def mix(images: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Put a rectangle of each picture's neighbour in the batch into it; returns the area kept, as a share.

    Source: Yun et al., "CutMix" (2019), with the rectangle's area drawn uniformly.
    """
    side = images.shape[-1]
    area, *centre = torch.rand(3, generator=generator).tolist()
    half = area**0.5 * side / 2
    (top, bottom), (left, right) = ((max(0, round(c * side - half)), min(side, round(c * side + half))) for c in centre)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / side**2


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware: on any recent GPU, or where a trial on this CPU says so."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return probe_precision("bfloat16").usable


@torch.inference_mode()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, side: int, device: torch.device) -> float:
    """Share of right answers on pictures resized to `side`. images: uint8 [N, 3, 32, 32]."""
    net.eval()
    right = 0
    for batch, wanted in zip(images.split(1000), labels.split(1000), strict=True):
        inputs = resize(normalise(batch.to(device).float()), side).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
            scores = net(inputs)
        right += int((scores.argmax(1).cpu() == wanted).sum())
    return right / len(labels)


def settle(average: AveragedModel, images: Tensor, side: int, device: torch.device) -> None:
    """Take batch norm's statistics anew, from whole pictures: averaged weights have none of their own."""
    picked = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:SETTLE_PICTURES]
    batches = images[picked].split(BATCH_SIZE)  # every class in each, as they are stored class by class
    inputs = (resize(normalise(batch.to(device).float()), side) for batch in batches)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        update_bn((batch.contiguous(memory_format=torch.channels_last) for batch in inputs), average)


def train_epoch(
    net: nn.Module,
    average: AveragedModel,
    images: Tensor,
    labels: Tensor,
    epoch: int,
    opts: list[torch.optim.Optimizer],
    seed: int,
    device: torch.device,
) -> float:
    """One pass over the data; returns the mean loss. Random draws depend on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 10_000 + epoch)
    torch.manual_seed(seed * 10_000 + epoch)
    order = torch.randperm(len(labels), generator=generator)
    # Alternating flip: each picture is seen mirrored in every other epoch, which beats a coin toss
    first_flip = torch.randint(0, 2, (len(labels),), generator=torch.Generator().manual_seed(seed)).bool()
    flips = first_flip if epoch % 2 == 0 else ~first_flip
    steps = len(order) // BATCH_SIZE
    side, shift, square, mixed, varied = stage(epoch)
    bf16 = has_fast_bfloat16(device)
    net.train()
    total = 0.0
    for step in tqdm(range(steps), desc=f"epoch {epoch + 1}", leave=False, mininterval=2):
        factor = rate_share(epoch + step / steps)
        for opt, rate in zip(opts, (FILTER_LR, OTHER_LR), strict=True):
            for group in opt.param_groups:
                group["lr"] = rate * factor
        picked = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        pictures = vary(images[picked], varied) if varied else images[picked]
        inputs = resize(normalise(pictures.to(device).float()), side)
        inputs = augment(inputs, flips[picked].to(device), shift, generator)
        wanted, kept = labels[picked].to(device), 1.0
        if torch.rand((), generator=generator) < mixed:
            inputs, kept = mix(inputs, generator)
        elif square:
            inputs = cut_out(inputs, square, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            scores = net(inputs)
        loss = kept * F.cross_entropy(scores.float(), wanted, label_smoothing=LABEL_SMOOTHING)
        if kept < 1:
            neighbours = wanted.roll(1)
            loss += (1 - kept) * F.cross_entropy(scores.float(), neighbours, label_smoothing=LABEL_SMOOTHING)
        loss.backward()
        for opt in opts:
            opt.step()
        average.update_parameters(net)
        net.zero_grad(set_to_none=True)
        total += loss.item()
    return total / steps


def momentum_slots(opts: list[torch.optim.Optimizer]) -> Iterator[tuple[str, dict]]:
    """Each parameter's optimiser state, under the name that its momentum has in a checkpoint."""
    for i, opt in enumerate(opts):
        for j, p in enumerate(p for group in opt.param_groups for p in group["params"]):
            yield f"momentum.{i}.{j}", opt.state[p]


def save_checkpoint(
    path: Path, net: nn.Module, average: AveragedModel, opts: list[torch.optim.Optimizer], progress: Progress
) -> None:
    """Network, averaged network and momentum in one safetensors file, put in place in one step."""
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.module.state_dict().items()}
    tensors |= {name: state["momentum_buffer"] for name, state in momentum_slots(opts)}
    save(path, tensors, {"progress": json.dumps(vars(progress))})


def save(path: Path, tensors: dict[str, Tensor], facts: dict[str, str] | None = None) -> None:
    """Write a safetensors file and put it in place in one step."""
    part = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, part, facts)
    os.replace(part, path)


def read_progress(path: Path) -> Progress:
    """How far the run behind a checkpoint had come."""
    with safe_open(path, "pt") as file:
        return Progress(**json.loads(file.metadata()["progress"]))


def part_of(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that belong to `net` or `average`, under their own names."""
    return {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}


def load_checkpoint(path: Path, net: nn.Module, average: AveragedModel, opts: list[torch.optim.Optimizer]) -> Progress:
    """Fill networks and optimisers from a checkpoint; returns how far it had come."""
    tensors = load_file(path)
    net.load_state_dict(part_of(tensors, "net"))
    average.module.load_state_dict(part_of(tensors, "average"))
    average.n_averaged.fill_(1)  # anything but 0, which would begin the average anew
    device = next(net.parameters()).device
    for name, state in momentum_slots(opts):
        state["momentum_buffer"] = tensors[name].to(device)
    return read_progress(path)


def mean_of_cycles(folder: Path, net: nn.Module) -> AveragedModel:
    """The equal mean of the averages at CYCLE_ENDS, not settled yet. Overwrites `net`."""
    mean = AveragedModel(net)
    for end in CYCLE_ENDS:
        net.load_state_dict(load_file(folder / CYCLE.format(end)))
        mean.update_parameters(net)
    return mean


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./cloudtrial train", description="Train ResNet-18 on CIFAR-10.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the log")
    parser.add_argument(
        "--data", type=Path, help="folder with train/CLASS/* and test/CLASS/*; default: download CIFAR-10"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    checkpoint = args.out / CHECKPOINT
    if checkpoint.exists() != args.resume:
        hint = "add --resume or choose another --out" if checkpoint.exists() else "start without --resume"
        raise SystemExit(f"train: {checkpoint} {'exists' if checkpoint.exists() else 'is missing'}: {hint}")
    try:
        train, test = load_split(args.data, train=True), load_split(args.data, train=False)
    except DataError as error:
        raise SystemExit(f"train: {error}") from None
    images, test_images = (torch.from_numpy(s.images).permute(0, 3, 1, 2).contiguous() for s in (train, test))
    labels, test_labels = torch.from_numpy(train.labels), torch.from_numpy(test.labels)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    net = build_network().to(device)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / AVERAGE_STEPS))
    opts = optimisers(net)
    progress = load_checkpoint(checkpoint, net, average, opts) if args.resume else Progress(seed=args.seed)
    ended = [args.out / CYCLE.format(end) for end in CYCLE_ENDS if end <= progress.epoch]
    if missing := [str(path) for path in ended if not path.exists()]:
        raise SystemExit(f"train: {', '.join(missing)} of an earlier cycle is missing: start anew, in another --out")
    args.out.mkdir(parents=True, exist_ok=True)

    bf16 = "on" if has_fast_bfloat16(device) else "off"
    print(f"{len(labels)} pictures, {EPOCHS} epochs, {device}, bf16 {bf16}, seed {progress.seed}")
    print("epoch  side  train loss  test accuracy  minutes", flush=True)
    for epoch in range(progress.epoch, EPOCHS):
        start = time.perf_counter()
        loss = train_epoch(net, average, images, labels, epoch, opts, progress.seed, device)
        progress.epoch, progress.train_seconds = epoch + 1, progress.train_seconds + time.perf_counter() - start
        side, *_ = stage(epoch)
        settle(average, images, side, device)
        if epoch + 1 in CYCLE_ENDS:
            save(args.out / CYCLE.format(epoch + 1), average.module.state_dict())
        save_checkpoint(checkpoint, net, average, opts, progress)
        score = accuracy(average, test_images, test_labels, side, device)
        row = f"{epoch + 1:5d}  {side:4d}  {loss:10.4f}  {score:13.2%}  {progress.train_seconds / 60:7.1f}"
        print(row, flush=True)
        with (args.out / "log.txt").open("a") as log:
            log.write(row + "\n")

    mean = mean_of_cycles(args.out, net)
    side, *_ = stage(EPOCHS - 1)
    settle(mean, images, side, device)
    save(args.out / NETWORK, mean.module.state_dict())
    ends = " and ".join(map(str, CYCLE_ENDS))
    score = accuracy(mean, test_images, test_labels, side, device)
    print(f"the mean of the averages after epochs {ends}: {score:.2%}; {args.out / NETWORK}")


if __name__ == "__main__":
    main()
