"""Several machines send one open loop: right by the run's clock, each request once, whatever a machine says or does.

The machines are processes here, behind links of pipes. tests/eval/load/nodes has real ones, by ssh.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import certifi
import psutil
import pytest

from eval.__main__ import main
from eval.errors import EvalError
from eval.load.workers import clock, handshake
from eval.load.workers.clock import MAX_UNCERTAINTY_S
from eval.run import runner
from eval.run.resume import check_senders
from eval.samples.model import Sample, SenderRecord
from eval.samples.store import read_run
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import Fake, fake_endpoint
from tests.helpers.fake_node import fake_node
from tests.helpers.worker_runs import keys, of_target, resumed, run

pytestmark = pytest.mark.integration


def runs(process: psutil.Process) -> bool:
    """Not so of one that waits for a stopped parent to note its end."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def links() -> list[psutil.Process]:
    """The links to the machines that run now."""
    return [each for each in psutil.Process().children() if any("fake_node.py" in word for word in each.cmdline())]


def identity(sample: Sample) -> tuple:
    """All of a sample but its timing."""
    request = sample.block, sample.index_in_block, sample.image_index, sample.scenario
    return *request, sample.predicted_class, sample.error, sample.rate_rps


def test_two_machines_give_one_process_samples_but_for_timing(tmp_path, monkeypatch):
    """Their clocks are far from the run's. Each request is due, and arrives, as the run has planned it."""
    started, arrivals = time.perf_counter(), list[float]()
    monkeypatch.setattr(runner, "_run_start", lambda *_: started)
    nodes = fake_node("one", "--clock-ahead-s", "1000.5") | fake_node("two", "--clock-ahead-s", "-1000.5")
    with fake_endpoint() as fake:
        alone = sorted(run(tmp_path / "alone", fake, workers=1)[1], key=lambda sample: sample.index_in_block)
        fake.on_post = lambda _: arrivals.append(time.perf_counter() - started)
        done, samples, _ = run(tmp_path / "cluster", fake, nodes, workers=2)
        assert len(arrivals) == done.planned_requests == len(samples)
    samples.sort(key=lambda sample: sample.index_in_block)
    assert done.complete and list(map(identity, samples)) == list(map(identity, alone))
    assert {sample.sender for sample in samples} == {"one/1", "one/2", "two/1", "two/2"}
    assert {sample.sender for sample in alone} == {None}
    for sample, planned in zip(samples, alone, strict=True):
        assert sample.scheduled_s - samples[0].scheduled_s == pytest.approx(
            planned.scheduled_s - alone[0].scheduled_s, abs=1e-5
        )
        assert 0 <= (sample.send_delay_ms or 0) < 1e5  # a clock that is misread is 1000 s off
    known_to_s = max(each.uncertainty_ms for sender in done.senders for each in sender.clocks) / 1000
    for sample, arrived_s in zip(samples, sorted(arrivals), strict=True):
        assert sample.scheduled_s - known_to_s <= arrived_s < sample.scheduled_s + 100


def test_a_run_records_the_machines_that_sent(tmp_path):
    nodes = fake_node("one", "--clock-ahead-s", "1000.5") | fake_node("two")
    at_first: list[SenderRecord] = []
    with fake_endpoint() as fake:
        fake.on_post = lambda count: at_first.extend(read_run(tmp_path).senders) if count == 1 else None
        run(tmp_path, fake, nodes, scenarios=("poisson", "burst"), burst=4, duration_s=0.2)
    assert [len(sender.clocks) for sender in at_first] == [1, 1]  # before anything is sent, as the run may be killed
    one, two = read_run(tmp_path).senders
    assert (one.name, one.workers, two.name, two.workers) == ("one", 1, "two", 1)
    assert one.cores >= 1 and one.code_sha256 == two.code_sha256 and one.processor == two.processor
    assert {"python", "aiohttp", "pydantic"} <= set(one.versions)
    assert len({each.block for each in one.clocks}) == len(one.clocks) == 6
    for record, ahead_s in ((one, 1000.5), (two, 0.0)):
        for each in record.clocks:
            assert each.uncertainty_ms <= MAX_UNCERTAINTY_S * 1000
            assert each.offset_s == pytest.approx(ahead_s, abs=each.uncertainty_ms / 1000 + 1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--code", "f" * 64), "two has other code than this machine (sha256 ffffffffffff, and "),
        (("--aiohttp", "1.0.0"), "two has aiohttp 1.0.0, this machine "),
    ],
    ids=["code", "versions"],
)
def test_a_machine_that_differs_is_refused_before_it_sends(tmp_path, options, said):
    with fake_endpoint() as fake:
        with pytest.raises(EvalError) as refused:
            run(tmp_path, fake, fake_node("one") | fake_node("two", *options))
        assert not fake.posts
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
    assert not links() and not of_target(tmp_path)


def test_a_clock_that_is_too_far_away_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "MAX_SYNC_S", 0.5)
    with fake_endpoint() as fake:
        done, _, _ = run(tmp_path, fake, fake_node("one") | fake_node("two", "--delay-s", "0.02"))
        assert not fake.posts
    reason = done.incomplete_reason or ""
    assert reason.startswith("clock not known after 0 of") and "the clock of two/1 is known to" in reason
    assert not links()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--twice",), "worker two/1 has sent a sample of a request that it was not given"),
        (("--invents", "hello"), "worker two/1 has said what cannot be understood: it is no message of a worker"),
        (("--invents", 'Time {"now": "noon"}'), "worker two/1 has said what cannot be understood: now is 'noon'"),
        (("--invents", 'Failed {"text": "a\\nb\\u001b[2J"}'), "worker two/1 failed: a\ufffdb\ufffd[2J"),
    ],
    ids=["twice", "no message", "no time", "failed"],
)
def test_a_machine_that_lies_ends_the_run_and_adds_nothing(tmp_path, options, said):
    with fake_endpoint() as fake:
        done, samples, _ = run(tmp_path, fake, fake_node("one") | fake_node("two", *options))
        assert len(samples) <= len(fake.posts)
    assert said in (done.incomplete_reason or "")
    assert len(keys(samples)) == len(set(keys(samples))) and not links()


def test_a_machine_that_was_taken_over_runs_no_code_here(tmp_path):
    with fake_endpoint() as fake:
        done, _, _ = run(tmp_path / "run", fake, fake_node("two", "--pickle", str(tmp_path / "made")))
    assert "worker two/1 has said what cannot be understood" in (done.incomplete_reason or "")
    assert not (tmp_path / "made").exists()


def test_what_a_library_prints_on_a_machine_breaks_nothing(tmp_path):
    with fake_endpoint() as fake:
        done, samples, _ = run(tmp_path, fake, fake_node("two", "--prints"), duration_s=0.2)
    assert done.complete and len(samples) == done.planned_requests


def test_fewer_cores_than_workers_of_a_machine_are_warned_of(tmp_path):
    nodes = fake_node("one", "--cores", "2") | fake_node("two", "--cores", "1")
    with fake_endpoint() as fake:
        _, _, printed = run(tmp_path, fake, nodes, workers=2, duration_s=0.1)
    assert "--workers 2 on two with 1 free core" in printed and "on one" not in printed


def test_a_lost_machine_ends_the_run_and_resume_sends_the_rest(tmp_path):
    nodes = fake_node("one") | fake_node("two")

    def lose(count: int) -> None:
        if count == 40:
            links()[1].kill()

    with fake_endpoint() as fake:
        fake.on_post = lose
        done, samples, _ = run(tmp_path, fake, nodes)
        sent = len(fake.posts)
        assert (done.incomplete_reason or "").startswith("worker lost after")
        assert "worker two/1: " in (done.incomplete_reason or "") and "--resume" in (done.incomplete_reason or "")
        assert len(keys(samples)) == len(set(keys(samples))) <= sent < done.planned_requests and not links()
        fake.on_post = lambda count: None
        again = resumed(tmp_path, fake, fake_node("one"))
        assert len(fake.posts) - sent == done.planned_requests - len(keys(samples))
    found = keys(of_target(tmp_path))
    assert again.complete and len(found) == len(set(found)) == done.planned_requests
    assert [sender.name for sender in read_run(tmp_path).senders] == ["one", "two", "one"]


def test_a_cut_link_ends_a_sender_that_hears_nothing(tmp_path):
    """Both links are stopped and say nothing more; once their senders have ended, so have the links."""
    senders: list[psutil.Process] = []

    def cut(count: int) -> None:
        if count == 40:
            for link in links():
                senders.extend(link.children())
                link.suspend()
            watch.start()

    def end_links() -> None:
        while any(map(runs, senders)):
            time.sleep(0.05)
        for link in links():
            link.kill()

    watch = threading.Thread(target=end_links)
    with fake_endpoint() as fake:
        fake.on_post = cut
        done, samples, _ = run(tmp_path, fake, fake_node("one") | fake_node("two"), duration_s=600.0)
        watch.join()
        assert len(samples) <= len(fake.posts) < done.planned_requests
    assert len(senders) == 2
    assert (done.incomplete_reason or "").startswith("worker lost after")


def test_senders_end_with_a_run_that_is_killed(tmp_path):
    """The run is a process of its own, killed without a word in the middle of its block."""
    program = (
        "import sys; from pathlib import Path; from tests.eval.load.workers.test_cluster import run_of_url;"
        "run_of_url(Path(sys.argv[1]), sys.argv[2])"
    )
    found: list[psutil.Process] = []
    with fake_endpoint() as fake:
        (tmp_path / "run").mkdir()
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run"), fake.url], cwd=ROOT)

        def kill(count: int) -> None:
            if count == 40:
                children = psutil.Process(process.pid).children(recursive=True)
                found.extend(each for each in children if any("fake_node.py" in word for word in each.cmdline()))
                process.kill()

        fake.on_post = kill
        process.wait(120)
        gone, alive = psutil.wait_procs(found, timeout=60)
        assert len(gone) == 4 and not alive and len(fake.posts) < 10_000


def run_of_url(folder: Path, url: str) -> None:
    """A run of ten minutes."""
    fake = Fake(url=url)
    run(folder, fake, fake_node("one") | fake_node("two"), duration_s=600.0)


def test_an_address_of_this_machine_is_no_target_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(handshake, "boot_id", lambda: "that of no other")
    with fake_endpoint() as fake, pytest.raises(EvalError, match=r"which on two is that machine itself"):
        run(tmp_path, fake, fake_node("two"))
    assert not links()


def test_machines_have_to_be_named_again_to_resume(tmp_path):
    with fake_endpoint() as fake:
        done, _, _ = run(tmp_path, fake, fake_node("one") | fake_node("two"), duration_s=0.1)
    with pytest.raises(EvalError, match=r"from this machine: one,two sent its open loops; give --cluster one,two"):
        check_senders(tmp_path, done, ())
    check_senders(tmp_path, done, list(fake_node("three")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cluster=-oProxyCommand=x",), "--cluster '-oProxyCommand=x'"),
        (("--cluster", "10.0.0.2", "--ca", f"a={certifi.where()}"), "which those of --cluster lack"),
    ],
    ids=["an option of ssh", "a file of this machine"],
)
def test_cluster_that_cannot_work_is_one_line_at_once(tmp_path, capsys, words, said):
    out = tmp_path / "run"
    assert main(["run", "--target", "a=https://a.example", "--images", "golden", *words, "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1 and not out.exists()


def test_samples_of_a_run_are_counted_by_sender(tmp_path, capsys):
    with fake_endpoint() as fake:
        run(tmp_path, fake, fake_node("one") | fake_node("two"), duration_s=0.5)
    assert main(["samples", str(tmp_path), "--columns", "sender"]) == 0
    lines = capsys.readouterr().out.split()
    assert set(Counter(lines)) >= {"one/1", "two/1"}
