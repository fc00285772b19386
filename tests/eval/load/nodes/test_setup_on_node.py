"""What runs on a node before its senders: everything is made whole or not at all, and once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eval.load.nodes import setup_on_node
from eval.load.nodes.setup_on_node import SetupFailed, install, make_once


def test_a_folder_is_made_once(tmp_path):
    calls: list[Path] = []
    for _ in range(2):
        make_once(tmp_path / "a" / "b", calls.append)
    assert len(calls) == 1 and [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_folder_whose_making_fails_is_not_there(tmp_path):
    def fail(aside: Path) -> None:
        (aside / "half").touch()
        raise SetupFailed("no")

    with pytest.raises(SetupFailed):
        make_once(tmp_path / "b", fail)
    assert not list(tmp_path.iterdir())


def test_two_that_make_a_folder_at_once_both_find_it_whole(tmp_path):
    barrier = threading.Barrier(2)

    def make(aside: Path) -> None:
        barrier.wait()
        (aside / "file").write_text("whole")

    threads = [threading.Thread(target=make_once, args=(tmp_path / "b", make)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["b"] and (tmp_path / "b" / "file").read_text() == "whole"


def test_what_a_killed_setup_has_left_goes_after_a_day(tmp_path):
    old, new = tmp_path / "b.old", tmp_path / "b.new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    make_once(tmp_path / "b", lambda aside: None)
    assert {path.name for path in tmp_path.iterdir()} == {"b", "b.new"}


@pytest.fixture
def outcomes(monkeypatch):
    """What each program that the setup runs returns, in turn."""
    left: list[tuple[int, str]] = []
    monkeypatch.setattr(setup_on_node, "run", lambda command, _: subprocess.CompletedProcess(command, *left.pop(0)))
    return left


def test_a_python_without_venv_is_said_to_lack_it(outcomes):
    outcomes.append((1, "ensurepip is not available"))
    with pytest.raises(SetupFailed, match="apt-get install python3-venv"):
        install(Path("env"), Path("lock"))


def test_pips_first_error_is_the_reason(outcomes):
    outcomes += [(0, ""), (1, "WARNING: Retrying\nERROR: No matching distribution found for numpy\nERROR: x\n")]
    with pytest.raises(SetupFailed, match=r"\(No matching distribution found for numpy\)"):
        install(Path("env"), Path("lock"))


def test_a_long_program_is_reported_while_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(setup_on_node, "PROGRESS_INTERVAL_S", 0.01)
    script = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\nprint('x')"
    said: list[str] = []

    def say(**message: str) -> None:
        said.append(message["progress"])
        if len(said) == 3:
            (tmp_path / "go").touch()

    monkeypatch.setattr(setup_on_node, "say", say)
    done = setup_on_node.run([sys.executable, "-c", script], time.monotonic() - 12)
    assert (done.returncode, done.stdout) == (0, "x\n")
    assert len(said) >= 3 and said[0] == "installing, 12 s"


def test_an_installation_ends_when_nobody_listens(monkeypatch):
    def say(**message: str) -> None:
        raise BrokenPipeError

    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen
    monkeypatch.setattr(setup_on_node, "say", say)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[0])
    with pytest.raises(BrokenPipeError):
        setup_on_node.run(["sleep", "1000"], 0.0)
    assert started[0].returncode == -9
