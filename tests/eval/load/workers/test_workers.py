"""Worker processes: their samples come at once, a lost one ends the run, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import psutil
import pytest

from eval.load import load_generator, pauses
from eval.load.workers.cores import cores_warning
from eval.run import runner
from scripts.simulations.ssh_nodes import is_worker
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import Fake, fake_endpoint
from tests.helpers.worker_runs import at, keys, of_target, resumed, run

pytestmark = pytest.mark.integration


def workers(pid: int | None = None) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children() if is_worker(each)]


def test_workers_keep_their_connections_between_blocks(tmp_path):
    with fake_endpoint() as fake:
        _, samples, _ = run(tmp_path, fake, scenarios=("burst",), burst=8)
    first = min(sample.block for sample in samples)
    by_block = Counter(sample.block for sample in samples if sample.new_connection)
    assert len(samples) == 40 and by_block[first] == 8
    assert {sample.sender for sample in samples} == {"local/1", "local/2"}
    assert set(by_block) == {first}


def test_samples_are_journalled_while_the_block_goes_on(tmp_path):
    seen: list[int] = []
    with fake_endpoint() as fake:
        fake.on_post = at(60, lambda: seen.append(len(of_target(tmp_path))))
        run(tmp_path, fake)
    assert seen[0] > 30


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 50))])
def test_killed_worker_ends_the_run_and_nothing_is_sent_twice(tmp_path, seed):
    chance = random.Random(seed)
    with fake_endpoint() as fake:
        fake.on_post = at(chance.randrange(1, 90), lambda: chance.choice(workers()).kill())
        done, samples, _ = run(tmp_path, fake)
        sent = len(fake.posts)
        assert not done.complete and "was ended by SIGKILL" in (done.incomplete_reason or "")
        assert (done.incomplete_reason or "").startswith("worker lost after") and not workers()
        assert len(keys(samples)) == len(set(keys(samples))) <= sent <= done.planned_requests
        fake.on_post = lambda count: None
        again = resumed(tmp_path, fake)
    found = keys(of_target(tmp_path))
    assert again.complete and len(found) == len(set(found)) == done.planned_requests
    warm_ups = len([sample for sample in of_target(tmp_path) if sample.phase == "warmup"])
    assert len(fake.posts) - sent == done.planned_requests - len(keys(samples)) + warm_ups


def test_stopped_worker_marks_what_its_pause_has_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(pauses, "MAX_STALL_S", 0.25)

    def pause() -> None:
        worker = workers()[0]
        worker.suspend()
        asyncio.get_running_loop().call_later(0.8, worker.resume)

    with fake_endpoint() as fake:
        fake.on_post = at(40, pause)
        done, samples, printed = run(tmp_path, fake)
    measured = [sample for sample in samples if sample.phase == "measure"]
    assert done.complete and len(set(keys(samples))) == len(measured) == done.planned_requests
    assert max(sample.latency_ms for sample in measured) < 800
    assert any(pause.duration_s >= 0.8 for pause in done.pauses)
    assert "worker 1 got no processor" in printed or "worker 2 got no processor" in printed
    assert len(fake.posts) == len(samples)


def test_signal_ends_a_block_of_workers_and_keeps_its_answers(tmp_path):
    with fake_endpoint() as fake:
        fake.on_post = at(40, lambda: os.kill(os.getpid(), signal.SIGTERM))
        done, samples, _ = run(tmp_path, fake, duration_s=600.0)
    assert (done.incomplete_reason or "").startswith("interrupted after") and not workers()
    assert 30 <= len(samples) <= len(fake.posts) < 100


def test_refusal_stops_a_block_of_workers(tmp_path):
    with fake_endpoint() as fake:
        fake.mode = "unauthorised"
        done, samples, _ = run(tmp_path, fake)
    assert len(fake.posts) < len(samples) == done.planned_requests
    assert Counter(sample.error for sample in samples)["dropped"] == len(samples) - len(fake.posts)


@pytest.mark.parametrize("workers", [1, 2])
def test_lost_target_ends_an_open_loop_in_the_middle(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(load_generator, "RECOVERY_TIMEOUT_S", 0.2)
    with fake_endpoint() as fake:
        stop = threading.Thread(target=fake.stop)  # it waits for the answer that is being given
        fake.on_post = at(20, stop.start)
        done, samples, printed = run(tmp_path, fake, workers=workers, duration_s=60.0)
        stop.join()
    errors = Counter(sample.error for sample in samples)
    assert done.complete and len(samples) == done.planned_requests
    assert errors["dropped"] > done.planned_requests / 2
    assert "consecutive failures, connect" in printed


def test_cost_limit_ends_a_block_of_workers(tmp_path):
    with fake_endpoint() as fake:
        done, samples, _ = run(tmp_path, fake, target="gcp_cloudrun", max_usd=0.000004, duration_s=60.0)
    assert "--max-usd is 4e-06" in (done.incomplete_reason or "") and not workers()
    assert len(samples) <= len(fake.posts) < 100


def test_more_workers_than_free_cores_are_warned_of_first(tmp_path, monkeypatch):
    printed = []
    for cores in (1, 2):
        monkeypatch.setattr(runner, "usable_cpus", lambda cores=cores: cores)
        with fake_endpoint() as fake:
            printed.append(run(tmp_path / str(cores), fake, duration_s=0.1)[2])
    warning = "--workers 2 on a machine with 1 free core: they would wait for one another"
    assert warning in printed[0].splitlines()[0]
    assert "free core" not in printed[1]


def command(fake: Fake, folder: Path) -> subprocess.Popen[str]:
    options = ["--images", "golden", "--baseline-rtt", "0", "--scenario", "poisson", "--rate", "50", "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "eval", "run", *options, "--target", f"a={fake.url}", "--out", str(folder)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    started: list[subprocess.Popen[str]] = []
    found: list[psutil.Process] = []

    def kill() -> None:
        found.extend(workers(started[0].pid))
        started[0].kill()

    with fake_endpoint() as fake:
        fake.on_post = at(60, kill)
        started.append(command(fake, tmp_path / "run"))
        started[0].communicate(timeout=120)
        gone, alive = psutil.wait_procs(found, timeout=60)
    assert (len(gone), alive) == (2, [])


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (lambda pid: workers(pid)[0].kill(), 1, "Not complete: worker lost after"),
        (lambda pid: os.killpg(pid, signal.SIGINT), 130, "Not complete: interrupted after"),
        (lambda pid: os.killpg(pid, signal.SIGTERM), 143, "Not complete: interrupted after"),
    ],
    ids=["worker killed", "Ctrl-C", "SIGTERM"],
)
def test_command_with_workers_ends_in_one_line_and_a_report(tmp_path, stop, code, said):
    folder, started = tmp_path / "run", []
    with fake_endpoint() as fake:
        fake.on_post = at(60, lambda: stop(started[0].pid))
        started.append(command(fake, folder))
        out, err = started[0].communicate(timeout=120)
    assert (started[0].returncode, err) == (code, ""), out
    assert len([line for line in out.splitlines() if line.startswith(said)]) == 1
    assert (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("workers", "cores", "pinned", "advice"),
    [
        (4, 4, 0, None),
        (4, 4, 1, "use --workers 3, or"),
        (2, 1, 1, "use --workers 1, or"),
    ],
    ids=["enough", "a twin has one", "none is free"],
)
def test_cores_of_twins_are_not_free(workers, cores, pinned, advice):
    warning = cores_warning(workers, cores, pinned)
    assert advice in warning if advice else warning is None


def test_signals_to_all_processes_of_a_command_leave_workers(tmp_path):
    """As a terminal sends them; the run decides then what its workers do."""

    def signal_workers() -> None:
        for each in workers():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                each.send_signal(number)

    with fake_endpoint() as fake:
        fake.on_post = at(30, signal_workers)
        done, samples, _ = run(tmp_path, fake)
    assert done.complete and len(keys(samples)) == len(fake.posts) == done.planned_requests
