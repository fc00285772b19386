"""The wall clock is set in the middle of a run: no request moves, and no figure. It is for labels alone."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from eval.cost.price_list import load_price_list
from eval.plan.config import Config
from eval.plan.schedule import build_schedule
from eval.report.report_json import build_report
from eval.run import runner
from eval.samples.store import read_run, write_run
from tests.helpers.fake_endpoint import fake_endpoint
from tests.helpers.synthetic_run import PRICES
from tests.helpers.worker_runs import IMAGES, PLAN, of_target, resumed, run

pytestmark = pytest.mark.integration

CONFIG = Config(**PLAN, workers=2)
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
        done, samples, _ = run(tmp_path / "run", fake)
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
        done, samples, _ = run(tmp_path / "run", fake)
    set_back = replace(done, ended_at=(datetime.fromisoformat(done.started_at) - timedelta(hours=1)).isoformat())
    reports = [build_report(record, samples, load_price_list(PRICES)) for record in (done, set_back)]
    for report in reports:
        del report["run"]["ended_at"]
    assert reports[0] == reports[1]


def test_a_resumed_run_goes_on_after_its_last_request(tmp_path):
    """Though the wall clock was set back by an hour between."""
    folder = tmp_path / "run"
    with fake_endpoint() as fake:
        _, samples, _ = run(folder, fake)
        lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "samples.jsonl").write_text("".join(lines[:-10]), encoding="utf-8")
        ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
        write_run(folder, replace(read_run(folder), complete=False, incomplete_reason="running", started_at=ahead))
        done, found = resumed(folder, fake), of_target(folder)
    assert done.complete and len(found) == len(samples)
    kept, repeated = found[: len(samples) - 10], found[len(samples) - 10 :]
    assert min(s.scheduled_s for s in repeated) > max(s.scheduled_s + s.latency_ms / 1000 for s in kept)
