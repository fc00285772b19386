"""Defaults of the commands, in a module that imports nothing heavy: `--help` shows them at once."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "resnet18-cifar10"
BUNDLE = ROOT / "models" / NAME
GOLDEN_SET = ROOT / "eval" / "golden" / NAME

RUN_JSON = "run.json"  # of a run of ./cloudtrial finetune

SEED = 0  # of training
MIN_ACCURACY = 0.930  # of the test set; a network below it is not shipped
GOLDEN_STEPS = 150

# Of CIFAR-10: pixels / 255, minus the mean, over the standard deviation, per channel
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
