"""The table of docs/performance.md says what gave it, and is made on any processor."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from eval.samples.processors import processor_of
from scripts import bench_engine
from service.machine import processor

PICTURES = np.zeros((64, 3, 2, 2), np.float32)


def answer(batch):
    return np.eye(10, dtype=np.float32)[np.zeros(len(batch), int)]


def no_bfloat16():
    raise RuntimeError("this operator does not take bfloat16\nat line 7")


def unknown_one():
    raise AttributeError("no such operator")


def test_a_way_that_cannot_be_run_is_left_out_with_the_reason_in_one_line():
    ways = [
        ("float32", lambda: answer),
        ("bfloat16", no_bfloat16),
        ("fused", unknown_one),
        ("int8", lambda: answer),
    ]
    screen = Console(file=io.StringIO(), width=140)
    table, failed = bench_engine.compare(ways, PICTURES, 0.0, screen)
    assert list(table.columns[0].cells) == ["float32", "int8"]
    assert failed == {"bfloat16": "this operator does not take bfloat16", "fused": "no such operator"}


def test_a_precision_that_the_processor_lacks_is_left_out_by_name(monkeypatch):
    monkeypatch.setattr(bench_engine, "usable_precisions", lambda: ["float32"])
    assert list(bench_engine.missing_precisions()) == ["bfloat16"]
    assert bench_engine.missing_precisions()["bfloat16"].startswith(f"{processor_of(processor())}: ")
    monkeypatch.setattr(bench_engine, "usable_precisions", lambda: ["float32", "bfloat16"])
    assert bench_engine.missing_precisions() == {}


def test_the_caption_names_processor_cores_and_libraries():
    caption = bench_engine.measured_on(1)
    assert caption.startswith(f"1 core of {processor_of(processor())}, torch ")
