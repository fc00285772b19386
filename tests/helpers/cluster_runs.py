"""Runs with --cluster as commands, and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from eval.samples.model import Sample
from eval.samples.store import read_samples
from scripts.simulations.ssh_nodes import Cluster
from tests.conftest import ROOT

PLAN = ("--images", "golden", "--limit", "20", "--warmup", "0", "--baseline-rtt", "0", "--scenario", "poisson")
# On a machine that does much besides, clocks are read late, and processes wait for a core. No report is needed.
PATIENT = """
import runpy
from eval.cli import run
from eval.load import pauses
from eval.load.nodes import prepare
from eval.load.workers import clock, pool
pauses.MAX_STALL_S = prepare.SILENCE_S = pool.CLOCK_TIMEOUT_S = 60.0
clock.MAX_UNCERTAINTY_S = 1.0
run.write_run_report = lambda *_: True
runpy.run_module("eval", run_name="__main__", alter_sys=True)
"""


def start(cluster: Cluster, *words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PATIENT, "run", *words], cwd=ROOT, env=os.environ | cluster.environment | env,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def run(cluster: Cluster, *words: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run."""
    with start(cluster, *words, **env) as process:
        out, err = process.communicate()
    return process.returncode, out, err


def measured(folder: Path) -> list[Sample]:
    return [sample for sample in read_samples(folder) if sample.target == "a" and sample.phase == "measure"]


def keys(folder: Path) -> list[tuple[int, int]]:
    return [(sample.block, sample.index_in_block) for sample in measured(folder)]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())
