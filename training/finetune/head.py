"""The last layer alone, on features that are computed once: minutes where the whole network takes hours."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.finetune.run_folder import HEAD, Epoch
from training.networks.bases import Base, features, head_name

EPOCHS = 40
BATCH_SIZE = 64
MAX_LR = 0.003  # AdamW, cosine to zero
WEIGHT_DECAY = 0.01
MIN_STD = 1e-6
FEATURE_BATCH_SIZE = 32


@torch.inference_mode()
def all_features(
    net: nn.Module, base: Base, images: np.ndarray, normalise: Callable[[Tensor], Tensor], title: str
) -> Tensor:
    """float32 [N, features], on the CPU."""
    net.eval()
    starts = tqdm(range(0, len(images), FEATURE_BATCH_SIZE), title, leave=False, mininterval=1)
    batches = (torch.from_numpy(np.ascontiguousarray(images[i : i + FEATURE_BATCH_SIZE])) for i in starts)
    return torch.cat([features(net, base, normalise(batch)).cpu() for batch in batches])


def train_head(
    net: nn.Module, base: Base, train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], *,
    classes: int, seed: int, on_epoch: Callable[[Epoch], None],
) -> None:  # fmt: skip
    """Fit the network's last layer to (features, labels), and keep it as it was when its validation loss was lowest.

    Features are centred, and scaled all alike, while it learns; the layer that is left takes them as they are. A scale
    for each would leave weights of very different sizes, which 8-bit integers cannot hold.
    """
    rows, labels = train
    mean, std = rows.mean(0), rows.var(0, correction=0).mean().sqrt().clamp_min(MIN_STD)
    scaled, scaled_validation = (rows - mean) / std, (validation[0] - mean) / std
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(rows.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.AdamW(layer.parameters(), MAX_LR, weight_decay=WEIGHT_DECAY)
    steps = -(-len(labels) // BATCH_SIZE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    best_loss, best = float("inf"), layer.state_dict()
    start = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH_SIZE):
            loss = F.cross_entropy(layer(scaled[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        with torch.inference_mode():
            logits = layer(scaled_validation)
            validation_loss = float(F.cross_entropy(logits, validation[1]))
            if validation_loss < best_loss:
                best_loss, best = validation_loss, {k: v.clone() for k, v in layer.state_dict().items()}
            on_epoch(
                Epoch(
                    HEAD, epoch, round(float(np.mean(losses)), 4),
                    round(validation_loss, 4),
                    round(float((logits.argmax(1) == validation[1]).float().mean()), 4),
                    round((time.perf_counter() - start) / 60, 3),
                )
            )  # fmt: skip
    layer.load_state_dict(best)
    head = net.get_submodule(head_name(net, base))
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        weight = layer.weight / std
        head.weight.copy_(weight)
        head.bias.copy_(layer.bias - weight @ mean)
