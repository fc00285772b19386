"""The wall clock is set in the middle of a run: no request moves, and no figure. It is for labels alone."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from eval.cost.price_list import load_price_list
from eval.load.load_generator import RunOptions
from eval.plan.config import Config
from eval.plan.schedule import build_schedule
from eval.progress import Reporter
from eval.report.report_json import build_report
from eval.run import runner
from eval.run.resume import load_resumable, resume_run
from eval.run.runner import execute_run, new_run
from eval.samples.model import Run, Sample
from eval.samples.store import read_run, read_samples, write_run
from eval.targets.endpoints import Endpoint, TargetSet
from tests.helpers.fake_endpoint import fake_endpoint, image_set
from tests.helpers.synthetic_run import PRICES

pytestmark = pytest.mark.integration

IMAGES = image_set(20)
CONFIG = Config(scenarios=("poisson",), rate_rps=100.0, duration_s=1.0, warmup=0, baseline_rtt=0, workers=2)
HOUR_S = 3600.0
# Imported by every Python that a run starts: its wall clock is ahead, and is set back when the file is there
SITECUSTOMIZE = """
import os, pathlib, time
wall, folder = time.time, pathlib.Path(__file__).parent
def stepped():
    return wall() + (-3600.0 if (folder / "step").exists() else 3.0)
time.time = stepped
time.time_ns = lambda: int(stepped() * 1e9)
(folder / f"{os.getpid()}.pid").touch()
"""


def execute(folder: Path, url: str, resume: bool = False) -> tuple[Run, list[Sample]]:
    folder.mkdir(exist_ok=True)
    fleet, reporter = TargetSet((Endpoint("a", None, url),), {}), Reporter(Console(file=io.StringIO()))
    if resume:
        record, config = load_resumable(folder)
        record, state = resume_run(folder, record, fleet, IMAGES)
    else:
        config, state = CONFIG, None
        record = new_run("some-id", fleet, IMAGES, config, RunOptions())
    done = execute_run(folder, record, fleet, IMAGES, config, RunOptions(), reporter, state)
    return done, [sample for sample in read_samples(folder) if sample.target == "a"]


def test_wall_clock_set_in_a_run_moves_no_request(tmp_path, monkeypatch):
    clocks, wall, step_s = tmp_path / "clocks", time.time, [3.0]
    clocks.mkdir()
    (clocks / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(clocks))
    monkeypatch.setattr(time, "time", lambda: wall() + step_s[0])
    starts, arrivals, run_start = list[float](), list[float](), runner._run_start

    def note_start(*arguments) -> float:
        starts.append(run_start(*arguments))
        return starts[0]

    def on_post(count: int) -> None:
        arrivals.append(time.perf_counter())
        if count == 40:
            step_s[0] = -HOUR_S
            (clocks / "step").touch()

    monkeypatch.setattr(runner, "_run_start", note_start)
    with fake_endpoint() as fake:
        fake.on_post = on_post
        done, samples = execute(tmp_path / "run", fake.url)
    assert done.complete and len(list(clocks.glob("*.pid"))) == CONFIG.workers
    (block,) = build_schedule(CONFIG, ["a"], len(IMAGES.images))
    samples.sort(key=lambda sample: sample.index_in_block)
    assert block.offsets_s and len(samples) == len(block.offsets_s) == len(arrivals)
    since_first_s = [sample.scheduled_s - samples[0].scheduled_s for sample in samples]
    assert since_first_s == pytest.approx([offset - block.offsets_s[0] for offset in block.offsets_s], abs=2e-6)
    assert all(starts[0] + s.scheduled_s <= came + 1e-6 for s, came in zip(samples, sorted(arrivals), strict=True))
    assert all(s.send_delay_ms is not None and s.send_delay_ms >= 0 for s in samples)
    assert max(sample.latency_ms for sample in samples) < HOUR_S * 1000


def test_a_run_that_ended_before_it_began_has_the_same_figures(tmp_path):
    """By its labels, that is: its clock was set back meanwhile."""
    with fake_endpoint() as fake:
        done, samples = execute(tmp_path / "run", fake.url)
    set_back = replace(done, ended_at=(datetime.fromisoformat(done.started_at) - timedelta(hours=1)).isoformat())
    reports = [build_report(record, samples, load_price_list(PRICES)) for record in (done, set_back)]
    for report in reports:
        del report["run"]["ended_at"]
    assert reports[0] == reports[1]


def test_a_resumed_run_goes_on_after_its_last_request(tmp_path):
    """Though the wall clock was set back by an hour between."""
    folder = tmp_path / "run"
    with fake_endpoint() as fake:
        _, samples = execute(folder, fake.url)
        lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "samples.jsonl").write_text("".join(lines[:-10]), encoding="utf-8")
        ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
        write_run(folder, replace(read_run(folder), complete=False, incomplete_reason="running", started_at=ahead))
        done, resumed = execute(folder, fake.url, resume=True)
    assert done.complete and len(resumed) == len(samples)
    kept, repeated = resumed[: len(samples) - 10], resumed[len(samples) - 10 :]
    assert min(s.scheduled_s for s in repeated) > max(s.scheduled_s + s.latency_ms / 1000 for s in kept)
