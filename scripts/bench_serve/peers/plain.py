"""What all peers share: the shipped weights in the network as PyTorch runs it, pictures read as tutorials do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BUNDLE = Path(__file__).resolve().parents[3] / "models" / "resnet18-cifar10"
FACTS = json.loads((BUNDLE / "model.json").read_text())
CLASSES: list[str] = FACTS["classes"]
SIDE_PX: int = FACTS["input"]["size_px"]
MEAN = np.array(FACTS["input"]["mean"], np.float32)
STD = np.array(FACTS["input"]["std"], np.float32)


def load_network() -> Any:
    """The network with its weights, ready to answer."""
    from safetensors.torch import load_file

    from service.network import build_network

    net = build_network(len(CLASSES))
    net.load_state_dict(load_file(BUNDLE / "weights.safetensors"), strict=False)
    return net.eval()


def read_pixels(image: Image.Image) -> np.ndarray:
    """A picture -> float32 [3, S, S], normalised."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


def read_picture(data: bytes) -> np.ndarray:
    """The same for the bytes of a file."""
    return read_pixels(Image.open(io.BytesIO(data)))


def probabilities(net: Any, batch: np.ndarray) -> np.ndarray:
    """float32 [N, 3, S, S] -> float32 [N, classes]."""
    import torch

    with torch.inference_mode():
        return net(torch.from_numpy(np.ascontiguousarray(batch))).softmax(1).numpy()


def answer(row: np.ndarray) -> dict[str, Any]:
    """What a peer answers for one picture."""
    best = int(row.argmax())
    return {"id": best, "label": CLASSES[best], "probability": round(float(row[best]), 6)}
