"""On a real terminal something moves during whatever takes long; a log gets plain lines, or JSON."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import sys
import threading
from datetime import datetime

import pytest
from rich.console import Console

from eval import progress
from eval.__main__ import build_parser
from eval.dataset import image_set, images
from eval.interruption import Interruptions
from eval.progress import Reporter
from eval.report import render
from eval.run import runner
from eval.run.reference import reference_samples
from eval.targets.endpoints import TargetSet, start_targets
from infra.local import twins
from tests.helpers.fake_endpoint import fake_endpoint, picture_bytes
from tests.helpers.terminal import open_terminal

pytestmark = pytest.mark.integration

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 80 columns, drawn on sooner than a person needs it."""
    assert progress.TERMINAL_REFRESH_S < progress.TERMINAL_SILENCE_S + progress.TICK_DELAY_S < 2
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress.ProgressBar, "silence_s", 0.2)
    monkeypatch.setattr(progress, "TERMINAL_REFRESH_S", 0.2)
    with open_terminal() as opened:
        yield opened


def held(terminal, what, function):
    """The function, which waits first until the terminal has moved."""

    def wait(*arguments, **options):
        terminal.moves(what)
        return function(*arguments, **options)

    return wait


def test_a_run_that_is_held_anywhere_still_moves(terminal, tmp_path, monkeypatch):
    held_posts = {1: "first request", 12: "request"}

    async def references(image_set):
        await asyncio.to_thread(terminal.moves, "reference")
        async with contextlib.aclosing(reference_samples(image_set)) as samples:
            async for sample in samples:
                yield sample

    monkeypatch.setattr(runner, "reference_samples", references)
    monkeypatch.setattr(render, "write_reports", held(terminal, "reports", render.write_reports))
    monkeypatch.setattr(sys, "stdout", terminal.file)
    restart = tmp_path / "restart"
    os.mkfifo(restart)  # `cat` of it ends when the writer closes it

    def hold_restart():
        with restart.open("w"):
            terminal.moves("restart")

    threading.Thread(target=hold_restart, daemon=True).start()  # which a failure leaves waiting for `cat`
    how = "--images golden --limit 20 --block 10 --warmup 2 --baseline-rtt 0 --restarts 1"
    with fake_endpoint() as fake:
        fake.on_post = lambda count: terminal.moves(held_posts[count]) if count in held_posts else None
        words = ["run", "--target", f"a={fake.url}", *how.split(), "--out", str(tmp_path / "run")]
        arguments = build_parser().parse_args([*words, "--cold-command", f"a=cat {restart}"])
        arguments.line, arguments.interruptions = words, Interruptions()
        assert arguments.command(arguments) == 0
    assert terminal.moved == ["first request", "reference", "request", "restart", "reports"]


def test_twins_that_start_and_stop_slowly_move(terminal, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def slow_twins(*_, **__):
        terminal.moves("start")
        yield twins.Twins()
        terminal.moves("stop")

    monkeypatch.setattr(twins, "local_twins", slow_twins)
    reporter = Reporter(Console(file=terminal.file))
    with start_targets(("torch",), TargetSet((), {}), tmp_path, reporter):
        assert terminal.moved == ["start"]
    assert terminal.moved == ["start", "stop"]


def test_reading_the_images_moves(terminal, tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "one.png").write_bytes(picture_bytes())
    monkeypatch.setattr(image_set.ImageSource, "load", held(terminal, "image", image_set.ImageSource.load))
    reporter = Reporter(Console(file=terminal.file))
    found = images.load_images(str(tmp_path), None, 0, reporter.print, reporter.activity)
    assert len(found.images) == 1 and terminal.moved == ["image"]


def draw_all(reporter, targets, total=40_000, unit=""):
    """A bar that is drawn for every request to these targets, of which each third fails."""

    async def draw():
        async with reporter.progress_bar("Requests", total, unit) as bar:
            for number, bar.current_target in enumerate(targets):
                bar.advance(failed=number % 3 == 0)
                bar.refresh()

    asyncio.run(draw())


@pytest.mark.parametrize("columns", [80, 60])
def test_the_bar_stays_in_its_place_and_on_one_line(terminal, columns):
    names = ["a", "gcp_cloudrun-onnx single", "heroku at 0.0521/s", "aws_ec2-a-stage-with-a-long-name poisson"]
    draw_all(Reporter(Console(file=terminal.file, width=columns)), names * 15)
    lines = terminal.lines()
    assert len(lines) >= 61  # of each request, and at the start
    bars = [re.match(r"Requests [━╸╺ ]{12} [ \d,]{6} of 40,000 [ \d:]{5}, [ \d:]{5} left", line) for line in lines]
    assert all(bars), lines[bars.index(None)]
    assert max(map(len, lines)) <= columns


def test_a_terminal_that_cannot_redraw_gets_the_lines_of_a_log(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    draw_all(Reporter(Console(file=terminal.file)), ["a"] * 3, total=3)
    assert re.fullmatch(STAMP + r" Requests: 3 of 3, \d+/s, 1 failed", terminal.lines()[-1])


def test_a_log_counts_the_seconds_of_what_takes_long(monkeypatch):
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.01)
    written = threading.Semaphore(0)

    class Log(io.StringIO):
        def write(self, text):
            written.release()
            return super().write(text)

    log = Log()
    with Reporter(Console(file=log)).activity("Writing the reports"):
        written.acquire(timeout=30)
    assert re.match(STAMP + " Writing the reports: 0 s\n", log.getvalue())


def test_a_log_says_nothing_of_what_is_short():
    log = io.StringIO()
    with Reporter(Console(file=log)).activity("Writing the reports"):
        pass
    assert log.getvalue() == ""


def log_of(as_json: bool) -> list[str]:
    """The lines of a log in which something happens at 1 of 2 requests, and a figure is printed at the end."""
    log = io.StringIO()
    reporter = Reporter(Console(file=log, width=300), as_json=as_json)

    async def run():
        async with reporter.progress_bar("Requests", 2) as bar:
            bar.current_target = "heroku poisson"
            bar.advance(failed=True)
            bar.refresh()
            reporter.event("heroku: is gone")
            bar.advance()

    asyncio.run(run())
    reporter.print("the verdict")
    return log.getvalue().splitlines()


def test_log_has_time_and_target_and_the_figures_as_they_are():
    first, event, last, verdict = log_of(as_json=False)
    assert re.fullmatch(STAMP + r" Requests: 1 of 2, \d+/s, 1 failed, about \d+ s left, heroku poisson", first)
    assert re.fullmatch(STAMP + " heroku: is gone", event)
    assert re.fullmatch(STAMP + r" Requests: 2 of 2, \d+/s, 1 failed", last)
    assert verdict == "the verdict"


def test_each_line_for_machines_is_an_object():
    first, event, last, verdict = map(json.loads, log_of(as_json=True))
    wanted = {"progress": "Requests", "completed": 1, "total": 2, "failed": 1, "target": "heroku poisson"}
    assert wanted.items() <= first.items() and first["remaining_s"] >= 0
    assert (event["message"], verdict["message"]) == ("heroku: is gone", "the verdict")
    assert (last["completed"], last["failed"]) == (2, 1)
    assert all(datetime.fromisoformat(each["time"]).utcoffset() is not None for each in (first, event, last, verdict))
