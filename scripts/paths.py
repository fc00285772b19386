"""The files and folders that the scripts read and write."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL_DIR = ROOT / "models" / "resnet18-cifar10"
GOLDEN_DIR = ROOT / "eval" / "golden" / "resnet18-cifar10"
EXAMPLE_IMAGE = GOLDEN_DIR / "000-airplane.png"
REPORTS_DIR = ROOT / "reports"
