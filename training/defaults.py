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
