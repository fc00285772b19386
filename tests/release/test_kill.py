"""A release that is killed at any moment, and resumed, ends as one that was not: SIGKILL at 50 random moments."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from release.journal import JOURNAL_FILE, Journal
from release.plan import BETA, GAMMA, PROD, write_plan
from store.model_store import ModelStore
from tests.helpers.quick_release import make_plan, run_in_process
from tests.helpers.store_bundles import plain_bundle

pytestmark = pytest.mark.integration

KILLS = 50
PROCESSES = multiprocessing.get_context("forkserver")  # forks a process that has imported all, and has no thread


@dataclass(frozen=True)
class Case:
    """A store with a release that has not begun."""

    folder: Path
    store: str
    verify: str  # what the figures of production say once it serves the candidate

    def start(self):
        """Its process, once it works."""
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=run_in_process, args=(str(self.folder), self.store, self.verify, sender))
        process.start()
        assert receiver.recv() == "started"
        return process

    def finish(self) -> int:
        """Run it to its end. Returns the exit code."""
        process = self.start()
        process.join()
        return process.exitcode

    def outcome(self) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
        """Every move of every alias, and every finished step."""
        store = ModelStore.open(self.store)
        moves = {
            alias: [record.version for record in store.history("tiny", alias)]
            for alias in sorted(store.aliases("tiny"))
        }
        return moves, [(entry.stage, entry.step) for entry in Journal(self.folder).entries]


@pytest.fixture(scope="module", autouse=True)
def preloaded():
    PROCESSES.set_forkserver_preload(["tests.helpers.quick_release"])


def new_case(folder: Path, verify: str) -> Case:
    store = ModelStore.open(str(folder / "store"))
    old, new = (store.push(plain_bundle(folder / letter, letter)).version for letter in "ab")
    store.move_alias("tiny", PROD, old, reason="the first")
    release = folder / "releases" / "one"
    release.mkdir(parents=True)
    write_plan(release, make_plan(new, old))
    return Case(release, str(folder / "store"), verify)


@pytest.mark.parametrize("verify", ["not worse", "worse"])
def test_a_release_killed_at_random_moments_ends_as_one_that_was_not(verify, tmp_path, say):
    whole = new_case(tmp_path / "whole", verify)
    whole.finish()  # the first also loads what is not imported yet
    timed = new_case(tmp_path / "timed", verify)
    process = timed.start()
    started_at = time.perf_counter()
    process.join()
    duration_s, code = time.perf_counter() - started_at, process.exitcode
    assert code == (0 if verify == "not worse" else 1)
    wanted, killed_after = whole.outcome(), Counter[int]()
    old, new = wanted[0][PROD][:2]
    assert wanted[0] == {BETA: [new], GAMMA: [new], PROD: [old, new] + [old] * (verify == "worse")}
    moments = random.Random(verify)
    while killed_after.total() < KILLS // 2:
        case = new_case(tmp_path / f"{len(list(tmp_path.iterdir()))}", verify)
        process = case.start()
        process.join(moments.uniform(0, duration_s))
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:  # it had ended before
            continue
        journal = case.folder / JOURNAL_FILE
        killed_after[journal.read_bytes().count(b"\n") if journal.exists() else 0] += 1
        assert case.finish() == code
        assert case.outcome() == wanted
    say(f"killed after so many finished steps: {dict(sorted(killed_after.items()))}")
    assert len(killed_after) > 3  # at different moments


def test_a_journal_line_cut_by_a_kill_is_dropped(tmp_path):
    case = new_case(tmp_path, "not worse")
    assert case.finish() == 0
    wanted = case.outcome()
    journal = case.folder / JOURNAL_FILE
    lines = journal.read_bytes().splitlines(keepends=True)
    for end in (1, len(lines[0]) - 1, len(lines[0]) + 3, sum(map(len, lines)) - 2):
        journal.write_bytes(b"".join(lines)[:end])
        assert case.finish() == 0
        assert case.outcome() == wanted
