"""A run that a signal ends, however it was started: all that was measured is kept and reported."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from eval import __main__ as eval_command
from eval.__main__ import build_parser
from eval.cli import run as run_command
from eval.interruption import AGAIN_S, Interruption, Interruptions
from eval.samples.store import read_samples
from tests.conftest import ROOT
from tests.helpers.fake_endpoint import fake_endpoint

pytestmark = pytest.mark.integration

WARM_UP, MEASURED = 20, 39
# `python -m eval`, to which a busy machine is no pause that it would send requests again for
PROGRAM = """
import runpy
from eval.load import pauses
pauses.MAX_STALL_S = 30.0
runpy.run_module("eval", run_name="__main__", alter_sys=True)
"""
RUN = [sys.executable, "-c", PROGRAM, "run", "--images", "golden", "--baseline-rtt", "0"]
SCRIPT = "{command} </dev/null >{log} 2>&1 & echo $!; wait $!"  # of a shell without job control


def measured(folder: Path) -> int:
    return len([each for each in read_samples(folder) if each.target == "a" and each.phase == "measure"])


def run_until(folder: Path, start: Callable[[list[str]], object], stop: Callable[[], object], ended: Callable[[], int]):
    """Start a run, stop it in the middle of its 40th request; returns what it ended with."""
    with fake_endpoint() as fake:

        def interrupt(count: int) -> None:
            if count == WARM_UP + MEASURED + 1:
                fake.mode = "slow"
                stop()

        fake.on_post = interrupt
        start([*RUN, "--target", f"a={fake.url}", "--out", str(folder)])
        return ended()


def expect_kept(folder: Path) -> None:
    assert measured(folder) == MEASURED
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["run"]["complete"] is False
    assert report["run"]["incomplete_reason"] == f"interrupted after {MEASURED} of 100 requests"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_interrupted_run_is_reported_and_ends_with_its_code(tmp_path, number):
    folder, process = tmp_path / "run", []

    def start(command: list[str]) -> None:
        pipe = subprocess.PIPE
        process.append(subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe, start_new_session=True))

    run_until(folder, start, lambda: process[0].send_signal(number), lambda: process[0].wait(120))
    out, err = process[0].communicate()
    assert (process[0].returncode, err) == (128 + number, "")
    assert f"Not complete: interrupted after {MEASURED} of 100 requests" in out
    expect_kept(folder)


@pytest.mark.parametrize(
    ("prefix", "number"),
    [("", signal.SIGINT), ("", signal.SIGTERM), ("nohup ", signal.SIGTERM)],
    ids=["SIGINT", "SIGTERM", "SIGTERM after nohup"],
)
def test_job_in_the_background_of_a_script_ends_as_well(tmp_path, prefix, number):
    """Its shell has made it ignore SIGINT."""
    folder, log, shell, pid = tmp_path / "run", tmp_path / "log", [], []

    def start(command: list[str]) -> None:
        script = SCRIPT.format(command=prefix + shlex.join(command), log=shlex.quote(str(log)))
        shell.append(subprocess.Popen(["sh", "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True))
        pid.append(int(shell[0].stdout.readline()))

    ended = run_until(folder, start, lambda: os.kill(pid[0], number), lambda: shell[0].wait(120))
    shell[0].communicate()
    assert ended == 128 + number, log.read_text(encoding="utf-8")
    expect_kept(folder)


@pytest.mark.parametrize("swallowed", [False, True], ids=["in a destructor", "and swallowed"])
def test_signal_that_no_exception_tells_ends_the_run_at_once(swallowed):
    """Python goes on after an exception in a destructor."""
    interruptions = Interruptions()

    class Transport:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    async def run() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "cancelled"
        return "went on"

    with interruptions.raised():
        if swallowed:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        else:
            Transport()
        assert interruptions.run(run()) == "cancelled"
    assert interruptions.received and interruptions.received.exit_code == 143


@pytest.mark.parametrize("once", [False, True], ids=["each", "once"])
def test_signal_in_a_destructor_is_raised_after_it(once):
    """Nobody has to ask for it: it is sent again, also where one destructor takes longer than a moment."""
    interruptions, ended = Interruptions(), False

    class Transport:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2.5 * AGAIN_S)  # in which it is sent again twice: the time is the point
            nonlocal ended
            ended = True

    with pytest.raises(Interruption, match="SIGTERM") as raised, interruptions.raised(once=once):
        Transport()
        assert ended
        time.sleep(120)
    assert raised.value.exit_code == 143


@pytest.mark.parametrize("once", [False, True], ids=["each", "once"])
def test_signal_in_a_weak_references_callback_is_not_lost(once, capfd):
    interruptions = Interruptions()

    class Transport:
        pass

    transport = Transport()
    watched = weakref.ref(transport, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interruption, match="SIGTERM") as raised, interruptions.raised(once=once):
        del transport
        time.sleep(120)
    assert watched() is None and raised.value.exit_code == 143
    assert "Traceback" not in capfd.readouterr().err


class Signals:
    """As a member of a class it gets SIGHUP while that is made: Python wraps the exception in a RuntimeError."""

    def __set_name__(self, owner: type, name: str) -> None:
        os.kill(os.getpid(), signal.SIGHUP)


class SignalsOnce(io.StringIO):
    """An output that gets SIGHUP in its first flush."""

    is_first = True

    def flush(self) -> None:
        if self.is_first:
            self.is_first = False
            os.kill(os.getpid(), signal.SIGHUP)


def make_a_class(_: argparse.Namespace) -> int:
    type("Wrapping", (), {"member": Signals()})
    return 0


def start_a_run(_: argparse.Namespace) -> int:
    """As where it lands in the imports of a run, whose own faults are told without secrets."""
    arguments = build_parser().parse_args(["run", "--local"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_command, "_start", lambda *_: make_a_class(arguments))
        return arguments.command(arguments)


def print_a_line(_: argparse.Namespace) -> int:
    sys.stdout = SignalsOnce()
    return 0


def fail_after_a_signal(_: argparse.Namespace) -> int:
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        raise LookupError("a fault")


def with_command(command: Callable[[argparse.Namespace], int]) -> Callable[[], argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    parser.set_defaults(command=command)
    return lambda: parser


@pytest.mark.parametrize("command", [make_a_class, start_a_run, print_a_line])
def test_signal_that_python_wraps_or_that_comes_last_is_one_line(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # what a command has put in its place goes
    monkeypatch.setattr(eval_command, "build_parser", with_command(command))
    assert eval_command.main([]) == 129
    assert capsys.readouterr().err == "stopped\n"


def test_fault_after_a_signal_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(eval_command, "build_parser", with_command(fail_after_a_signal))
    with pytest.raises(LookupError):
        eval_command.main([])


def test_signal_in_a_destructor_is_not_sent_after_another():
    """That one has begun to end the command: this one would cut short what is cleared away."""
    interruptions, held = Interruptions(), threading.active_count()

    class Transport:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGHUP)

    with interruptions.raised():
        Transport()
        with pytest.raises(Interruption, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        for timer in [each for each in threading.enumerate() if isinstance(each, threading.Timer)]:
            timer.join()
    assert threading.active_count() == held


def test_with_once_the_first_signal_that_can_be_raised_counts():
    """One in a destructor is raised later, so that the next one ends it first; then none cuts its clearing-up."""
    interruptions, cleared = Interruptions(), False

    class Transport:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(KeyboardInterrupt), interruptions.raised(once=True):
        Transport()
        assert interruptions.received
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleared = True
    assert cleared and str(interruptions.received) == "SIGHUP"


def test_hangup_that_nohup_ignores_ends_nothing(tmp_path):
    folder, process = tmp_path / "run", []

    def start(command: list[str]) -> None:
        process.append(
            subprocess.Popen(["nohup", *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    with fake_endpoint() as fake:
        fake.on_post = lambda count: count == WARM_UP + MEASURED and process[0].send_signal(signal.SIGHUP)
        start([*RUN, "--target", f"a={fake.url}", "--out", str(folder)])
        assert process[0].wait(120) == 0
    assert measured(folder) == 100


@pytest.mark.skipif(sys.platform != "linux", reason="a closed terminal is told apart on Linux alone")
def test_closed_terminal_ends_a_run_that_is_reported(tmp_path):
    """Every further word to the terminal is an error."""
    folder, child = tmp_path / "run", []

    def start(command: list[str]) -> None:
        pid, terminal = pty.fork()
        if not pid:
            os.chdir(ROOT)
            os.execv(command[0], command)
        child.extend([pid, terminal])

    def ended() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1])

    assert run_until(folder, start, lambda: os.close(child[1]), ended) == 128 + signal.SIGHUP
    expect_kept(folder)
