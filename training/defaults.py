"""Defaults of the commands, and what their values may be. It imports nothing heavy: `--help` shows them at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from service.command_line import number_where, whole_number
from service.manifest.reader import MAX_SIZE_PX

ROOT = Path(__file__).resolve().parent.parent
NAME = "resnet18-cifar10"
BUNDLE = ROOT / "models" / NAME
GOLDEN_SETS = ROOT / "eval" / "golden"  # a folder for each model of models/

RUN_JSON = "run.json"  # of a run of ./cloudtrial finetune

SEED = 0  # of training
BASE = "efficientnet_lite0"  # of ./cloudtrial finetune
EPOCHS, BATCH_SIZE = 5, 32  # of the whole network
MIN_ACCURACY = 0.950  # of the test set; a network below it is not shipped
GOLDEN_STEPS = 150

# Of CIFAR-10: pixels / 255, minus the mean, over the standard deviation, per channel
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the same of ImageNet

MAX_SEED = 2**32 - 1  # that NumPy and scikit-learn take

# Parsers of values
seed = whole_number(0, MAX_SEED)
size_px = whole_number(1, MAX_SIZE_PX)
epochs = whole_number(1)
batch_size = whole_number(2)  # batch norm learns nothing of a single image


def channel_means(text: str) -> tuple[float, ...]:
    """One number for each channel, separated by commas."""
    return _channels(text, lambda value: abs(value) <= 10, "three numbers from -10 to 10, such as 0.5,0.5,0.5")


def channel_deviations(text: str) -> tuple[float, ...]:
    """The same for numbers above 0."""
    return _channels(text, lambda value: 0 < value <= 10, "three numbers above 0, at most 10, such as 0.5,0.5,0.5")


def _channels(text: str, is_valid: Callable[[float], bool], wanted: str) -> tuple[float, ...]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return tuple(number_where(part, is_valid, f"one of {wanted}") for part in parts)


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    return number_where(text, lambda value: 0 <= value <= 1, "a fraction from 0 to 1, such as 0.95 for 95%")
