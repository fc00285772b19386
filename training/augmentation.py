"""What training does to images: normalise, flip, hide a square, shift, resize. Images are float32 [N, 3, H, W]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.defaults import CIFAR_MEAN, CIFAR_STD


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


def flip_horizontally(images: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images that `flip`, bool [N], marks."""
    return torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)


def resize(images: Tensor, size_px: int) -> Tensor:
    """Resample square images to `size_px` a side."""
    if images.shape[-1] == size_px:
        return images
    return F.interpolate(images, size=(size_px, size_px), mode="bilinear", antialias=True)
