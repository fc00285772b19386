"""Pauses of the client: seen by a heartbeat, their samples left out and sent again, nothing charged to the target."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from eval.load import pauses
from eval.load.pauses import COMPUTING, STOPPED, SUSPENDED, Clocks, Heartbeat
from eval.samples.model import Sample
from eval.samples.store import read_run, read_samples
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import fake_endpoint

WARM_UP = 20
PAUSE_S = 0.8
RUN = [sys.executable, "-m", "eval", "run", "--images", "golden", "--baseline-rtt", "0", "--limit", "60"]
POISSON = ["--scenario", "poisson", "--rate", "50", "--duration", "3"]


@pytest.fixture(autouse=True)
def limit_of_a_pause(monkeypatch):
    monkeypatch.setattr(pauses, "MAX_STALL_S", 0.25)


def beats(*clocks: Clocks) -> Heartbeat:
    """A heartbeat that has seen these looks at the clocks, the first at its start."""
    looks = iter(clocks)

    async def look() -> Heartbeat:
        heartbeat = Heartbeat(lambda: next(looks))
        async with heartbeat.beating():
            for _ in clocks[1:]:
                heartbeat.beat()
        return heartbeat

    return asyncio.run(look())


@pytest.mark.parametrize(
    ("after", "cause", "duration_s"),
    [
        (Clocks(100.2, 500.2, 10.2), None, 0.2),
        (Clocks(100.1, 540.1, 10.0), SUSPENDED, 40.1),
        (Clocks(101.0, 501.0, 10.01), STOPPED, 1.0),
        (Clocks(101.0, 501.0, 10.9), COMPUTING, 1.0),
    ],
    ids=["late", "suspended", "stopped", "computing"],
)
def test_clocks_tell_what_a_pause_was(after, cause, duration_s):
    found = beats(Clocks(100.0, 500.0, 10.0), after).pauses
    assert [(each.cause, pytest.approx(each.duration_s)) for each in found] == ([(cause, duration_s)] if cause else [])


def test_pause_touches_what_was_under_way_and_nothing_else():
    heartbeat = beats(Clocks(100.0, 100.0, 0.0), Clocks(101.0, 101.0, 0.0))
    spans = [(98.0, 99.9), (99.0, 100.5), (99.0, 102.0), (100.4, 100.6), (100.9, 103.0), (101.1, 102.0)]
    assert [heartbeat.paused_between(*span) for span in spans] == [False, True, True, True, True, False]


def test_noting_a_pause_for_as_long_as_one_is_no_next_pause():
    async def look() -> Heartbeat:
        heartbeat = Heartbeat(lambda: next(looks), noted.append)
        async with heartbeat.beating():
            for _ in range(2):
                heartbeat.beat()
        return heartbeat

    noted: list[pauses.ClientPause] = []
    looks = iter(Clocks(at, at, at) for at in (100.0, 101.0, 101.4, 101.45))  # the third when it is noted
    heartbeat = asyncio.run(look())
    assert [pause.duration_s for pause in noted] == [1.0]
    assert heartbeat.paused_between(101.2, 101.3) and not heartbeat.paused_between(101.41, 102.0)


def stopped_run(folder: Path, *options: str, stop_at: int = WARM_UP + 10) -> tuple[list[Sample], int]:
    """A run whose process is stopped in one of its requests; its samples, and what the endpoint was sent."""
    process: list[subprocess.Popen] = []
    with fake_endpoint() as fake:

        def stop(count: int) -> None:
            if count == stop_at:
                process[0].send_signal(signal.SIGSTOP)
                threading.Timer(PAUSE_S, process[0].send_signal, [signal.SIGCONT]).start()

        fake.on_post = stop
        target = ["--target", f"a={fake.url}", "--out", str(folder)]
        process.append(subprocess.Popen([*RUN, *options, *target], cwd=ROOT, stdout=subprocess.DEVNULL))
        assert process[0].wait(120) == 0
        return [each for each in read_samples(folder) if each.target == "a"], len(fake.posts)


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_idle_gap_that_a_pause_touches_is_waited_for_again(tmp_path):
    gap_s = 1.5
    options = ["--scenario", "idle", "--idle", "2", "--gap", str(gap_s), "--warmup", "0"]
    gaps = stopped_run(tmp_path, *options, stop_at=1)[0]
    assert [each.phase for each in gaps].count("measure") == 2 and "paused" in [each.phase for each in gaps]
    for before, after in itertools.pairwise(gaps):
        assert after.scheduled_s - (before.scheduled_s + before.latency_ms / 1000) >= gap_s


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_start_that_a_pause_touches_is_in_no_figure(tmp_path):
    """The process is stopped while the target is not ready yet: no request is under way."""
    process: list[subprocess.Popen] = []
    with fake_endpoint() as fake:
        pid_file, once = tmp_path / "pid", tmp_path / "once"
        stop = f"mkdir {once} && P=$(cat {pid_file}) && kill -STOP $P && sleep {PAUSE_S} && kill -CONT $P; true"
        command = ["--cold-command", f"a=sh -c '{stop}'", "--scenario", "cold", "--restarts", "2", "--warmup", "1"]
        target = ["--target", f"a={fake.url}", "--out", str(tmp_path / "run")]
        process.append(subprocess.Popen([*RUN, *command, *target], cwd=ROOT, stdout=subprocess.DEVNULL))
        pid_file.write_text(str(process[0].pid))
        assert process[0].wait(120) == 0
    starts = [each for each in read_samples(tmp_path / "run") if (each.target, each.scenario) == ("a", "cold")]
    phases = Counter(each.phase for each in starts)
    assert (phases["measure"], phases["paused"] >= 1) == (2, True)
    pauses_of_run = read_run(tmp_path / "run").pauses
    for each in starts:
        end = each.scheduled_s + each.latency_ms / 1000
        begin = end - each.startup_ms["time_to_first_prediction"] / 1000
        touched = any(begin <= pause.at_s + pause.duration_s and pause.at_s <= end for pause in pauses_of_run)
        assert touched == (each.phase == "paused")


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
@pytest.mark.parametrize("options", [[], POISSON], ids=["closed loop", "open loop"])
def test_pause_of_the_client_is_not_charged_to_the_target(tmp_path, options):
    samples, posts = stopped_run(tmp_path, *options)
    by_phase = Counter(each.phase for each in samples)
    run = read_run(tmp_path)
    measured = [each for each in samples if each.phase == "measure"]
    keys = [(each.block, each.index_in_block) for each in measured]
    assert run.complete and len(keys) == len(set(keys)) == run.planned_requests
    assert by_phase["paused"] >= 1
    assert posts == len(samples) == WARM_UP + run.planned_requests + by_phase["paused"]
    assert max(each.latency_ms for each in measured) < PAUSE_S * 1000  # none waited for the pause to end
    pause = max(run.pauses, key=lambda each: each.duration_s)
    assert pause.cause == STOPPED and pause.duration_s >= PAUSE_S
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert "client_paused" in [each["code"] for each in report["run"]["findings"]]
