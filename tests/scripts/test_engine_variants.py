"""The table of docs/performance.md says what gave it, and is made on any processor."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from eval.samples.processors import parse_processor
from scripts.benchmarks import engine_variants
from service.system import processor

IMAGES = np.zeros((64, 3, 2, 2), np.float32)


def predict(batch):
    return np.eye(10, dtype=np.float32)[np.zeros(len(batch), int)]


def no_bfloat16():
    raise RuntimeError("this operator does not take bfloat16\nat line 7")


def no_operator():
    raise AttributeError("no such operator")


def test_a_variant_that_cannot_run_is_left_out_with_the_reason():
    variants = [
        ("float32", lambda: predict),
        ("bfloat16", no_bfloat16),
        ("fused", no_operator),
        ("int8", lambda: predict),
    ]
    screen = Console(file=io.StringIO(), width=140)
    table, failed = engine_variants.compare(variants, IMAGES, 0.0, screen)
    assert list(table.columns[0].cells) == ["float32", "int8"]
    assert failed == {"bfloat16": "this operator does not take bfloat16", "fused": "no such operator"}


def test_a_precision_that_the_processor_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(engine_variants, "usable_precisions", lambda: ["float32"])
    assert list(engine_variants.unavailable_precisions()) == ["bfloat16"]
    assert engine_variants.unavailable_precisions()["bfloat16"].startswith(f"{parse_processor(processor())}: ")
    monkeypatch.setattr(engine_variants, "usable_precisions", lambda: ["float32", "bfloat16"])
    assert engine_variants.unavailable_precisions() == {}


def test_the_caption_names_processor_cores_and_libraries():
    caption = engine_variants.table_caption(1)
    assert caption.startswith(f"1 core of {parse_processor(processor())}, torch ")
