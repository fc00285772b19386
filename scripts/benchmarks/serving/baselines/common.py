"""Shared by all baselines: the shipped weights in plain PyTorch, images read as in tutorials."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from scripts.paths import MODEL_DIR

MODEL = json.loads((MODEL_DIR / "model.json").read_text(encoding="utf-8"))
CLASSES: list[str] = MODEL["classes"]
SIDE_PX: int = MODEL["input"]["size_px"]
MEAN = np.array(MODEL["input"]["mean"], np.float32)
STD = np.array(MODEL["input"]["std"], np.float32)


def load_network() -> Any:
    """The network with its weights, in eval mode."""
    from safetensors.torch import load_file

    from service.engines.resnet import build_network

    net = build_network(len(CLASSES))
    net.load_state_dict(load_file(MODEL_DIR / "weights.safetensors"), strict=False)
    return net.eval()


def read_pixels(image: Image.Image) -> np.ndarray:
    """An image -> float32 [3, S, S], normalised."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


def read_image(data: bytes) -> np.ndarray:
    """The same for the bytes of a file."""
    return read_pixels(Image.open(io.BytesIO(data)))


def probabilities(net: Any, batch: np.ndarray) -> np.ndarray:
    """float32 [N, 3, S, S] -> float32 [N, classes]."""
    import torch

    with torch.inference_mode():
        return net(torch.from_numpy(np.ascontiguousarray(batch))).softmax(1).numpy()


def response_of(row: np.ndarray) -> dict[str, Any]:
    """A baseline's response for one image."""
    best = int(row.argmax())
    return {"id": best, "label": CLASSES[best], "probability": round(float(row[best]), 6)}
