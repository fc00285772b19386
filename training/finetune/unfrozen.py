"""The whole network: SGD with Nesterov momentum and one cycle of the learning rate, with a checkpoint each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.augmentation import cutout, flip_horizontally, shift
from training.finetune.run_folder import WHOLE, Epoch, Progress
from training.train import RECIPE, has_fast_bfloat16

FINE_LR, SCRATCH_LR = 0.005, 0.05  # highest rate, from learnt and from random weights
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
SHIFT_FRACTION, CUTOUT_FRACTION = 1 / 8, 3 / 8  # of the image's side
EVAL_BATCH_SIZE = 250
REDRAW_S = 2.0


@dataclass(frozen=True)
class Schedule:
    """How long, and how fast."""

    epochs: int
    batch_size: int
    max_lr: float
    seed: int


def learning_rate(schedule: Schedule, epoch: float) -> float:
    """Returns the learning rate after `epoch` epochs, fractions included."""
    positions, fractions = zip(*RECIPE.lr_knots, strict=True)
    return schedule.max_lr * float(np.interp(epoch / schedule.epochs, positions, fractions))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror at random, hide a square, shift."""
    size = images.shape[-1]
    flip = torch.randint(0, 2, (len(images),), generator=generator).bool().to(images.device)
    images = flip_horizontally(images, flip)
    return shift(cutout(images, int(size * CUTOUT_FRACTION), generator), int(size * SHIFT_FRACTION), generator)


def train_unfrozen(
    net: nn.Module, train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray],
    normalise: Callable[[Tensor], Tensor], schedule: Schedule, progress: Progress, momentum: dict[str, Tensor], *,
    on_epoch: Callable[[Epoch, dict[str, Tensor]], None],
) -> None:  # fmt: skip
    """Train from the progress to the last epoch. Random choices depend on seed and epoch alone."""
    device = next(net.parameters()).device
    optimizer = torch.optim.SGD(net.parameters(), schedule.max_lr, MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
    for name, parameter in net.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(device)
    bf16 = has_fast_bfloat16(device)
    images, labels = train[0], torch.from_numpy(train[1])
    before_min, start = progress.minutes(WHOLE), time.perf_counter()
    for epoch in range(progress.finished(WHOLE), schedule.epochs):
        generator = torch.Generator().manual_seed(schedule.seed * 10_000 + epoch)
        torch.manual_seed(schedule.seed * 10_000 + epoch)  # of dropout
        batches = [b for b in torch.randperm(len(labels), generator=generator).split(schedule.batch_size) if len(b) > 1]
        net.train()
        losses = []
        for step, batch in enumerate(tqdm(batches, f"epoch {epoch + 1}", leave=False, mininterval=REDRAW_S)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(schedule, epoch + step / len(batches))
            inputs = augment(normalise(torch.from_numpy(images[batch.numpy()])), generator)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = net(inputs)
            loss = F.cross_entropy(logits.float(), labels[batch].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        probabilities = predict(net, validation[0], normalise)
        picked = probabilities[np.arange(len(validation[1])), validation[1]]
        on_epoch(
            Epoch(
                WHOLE, epoch + 1, round(float(np.mean(losses)), 4),
                round(float(-np.log(np.maximum(picked, 1e-12)).mean()), 4),
                round(float((probabilities.argmax(1) == validation[1]).mean()), 4),
                round(before_min + (time.perf_counter() - start) / 60, 3),
            ),
            {name: optimizer.state[p]["momentum_buffer"] for name, p in net.named_parameters()},
        )  # fmt: skip


@torch.inference_mode()
def predict(net: nn.Module, images: np.ndarray, normalise: Callable[[Tensor], Tensor], title: str = "") -> np.ndarray:
    """The probabilities of every image: float32 [N, classes], computed in float32."""
    net.eval()
    starts = tqdm(range(0, len(images), EVAL_BATCH_SIZE), title, leave=False, disable=not title, mininterval=1)
    batches = (torch.from_numpy(np.ascontiguousarray(images[i : i + EVAL_BATCH_SIZE])) for i in starts)
    return np.concatenate([net(normalise(batch)).softmax(1).cpu().numpy() for batch in batches])
