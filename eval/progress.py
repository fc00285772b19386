"""What the person who watches a run sees: on a terminal something moves at least every two seconds; in a log, a line a
minute and one for each event, with their time; for a program, the same as JSON.

Drawing takes CPU time of this process, so while requests are measured it is done when none is in flight or due. Only if
there is no such moment for a second and a half is it drawn between two requests, which delays the next one, or, if none
ends for so long (an idle gap, a restart), meanwhile. Where nothing is measured, rich's own thread draws.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Self

import rich.progress_bar
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from eval.validation import printable_lines

TERMINAL_REFRESH_S = 0.5  # minimum between two draws on a terminal
TERMINAL_SILENCE_S = 1.5  # after so long without a draw it is drawn even while requests are due
LOG_INTERVAL_S = 60.0  # between two lines of a log
TICK_DELAY_S = 0.25  # by which the end of a request precedes a draw of its own
BAR_CHARS = 12
SPINNER_FRAME_S = 0.13  # of rich's spinner "line"; slowed down, so that each draw has the next frame


class _Console(Console):
    """A console that a run outlives: a reader that has enough, as `head` has, does not end a measurement."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Reporter:
    """Output for the person who watches a run."""

    def __init__(self, console: Console | None = None, scrub: Callable[[str], str] = str, *, as_json: bool = False):
        """`scrub` masks secrets in what is printed. `as_json`: every line is an object with `time` and what it is."""
        self._console = console or _Console(highlight=False)
        self._scrub = scrub
        self._as_json = as_json

    @property
    def _can_redraw(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal and not self._as_json

    def print(self, text: str) -> None:
        """Print lines, not wrapped, at once; what would control the terminal is replaced."""
        if self._as_json:
            _print_json(self._console, message=self._scrub(text))
        else:
            self._console.print(printable_lines(self._scrub(text)), markup=False, emoji=False, soft_wrap=True)

    def event(self, text: str) -> None:
        """Print what has just happened; in a log with its time."""
        self.print(text if self._can_redraw or self._as_json else f"{_now()} {text}")

    def activity(self, description: str) -> contextlib.AbstractContextManager[object]:
        """Count the seconds of something of unknown length, in which nothing is measured: use it as a context."""
        if not self._can_redraw:
            return _log_seconds(self._console, description, self._as_json)
        spinner = SpinnerColumn("line", speed=SPINNER_FRAME_S / TERMINAL_REFRESH_S)
        seconds = Progress(
            spinner, TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
            console=self._console, transient=True, refresh_per_second=1 / TERMINAL_REFRESH_S,
        )  # fmt: skip
        seconds.add_task(description, total=None)
        return seconds

    def progress_bar(self, description: str, total: int, unit: str = "") -> ProgressBar:
        """A display of `total` items; use it as an asynchronous context.

        They are requests. With a unit, such as "steps", they are what requests make up, and the total is the most.
        """
        kind = _TerminalProgressBar if self._can_redraw else _JsonProgressBar if self._as_json else _LogProgressBar
        return kind(self._console, description, total, unit)


def stderr_reporter() -> Reporter:
    """A reporter beside output that may be read by a program."""
    return Reporter(_Console(stderr=True, highlight=False))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _print_json(console: Console, **values: object) -> None:
    """One object a line. JSON has no character that would control a terminal."""
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | values)
    console.print(line, markup=False, emoji=False, soft_wrap=True)


@contextlib.contextmanager
def _log_seconds(console: Console, description: str, as_json: bool) -> Iterator[None]:
    """A line every LOG_INTERVAL_S. Output that cannot be written ends them; the next line of the run itself says so."""
    ended, start_s = threading.Event(), time.monotonic()

    def log() -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(LOG_INTERVAL_S):
                elapsed_s = time.monotonic() - start_s
                if as_json:
                    _print_json(console, activity=description, elapsed_s=round(elapsed_s, 1))
                else:
                    console.print(f"{_now()} {description}: {elapsed_s:.0f} s", markup=False, soft_wrap=True)

    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class ProgressBar:
    """Counts completed items and draws the display when it is due."""

    interval_s = TERMINAL_REFRESH_S
    silence_s = TERMINAL_SILENCE_S

    def __init__(self, console: Console, description: str, total: int, unit: str):
        self.console = console
        self.description = description
        self.total = total
        self.completed = 0.0
        self.items_per_request = 1.0
        self.current_target = ""  # the target that requests are sent to
        self._unit = unit
        self._failed = 0
        self._advanced = 0.0  # completed since the start; the rest was complete before
        self._start_s = self._last_draw_s = time.monotonic()
        self._drawn = 0.0

    async def __aenter__(self) -> Self:
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticker
        if self._drawn != self.completed:
            self.refresh()

    async def _tick(self) -> None:
        """Draw whenever nothing else has led to it."""
        while True:
            await asyncio.sleep(max(0.0, self._last_draw_s + self.silence_s + TICK_DELAY_S - time.monotonic()))
            if time.monotonic() - self._last_draw_s >= self.silence_s + TICK_DELAY_S:
                self.refresh()

    def advance(self, failed: bool = False) -> None:
        """Count a finished request."""
        self.completed += self.items_per_request
        self._advanced += self.items_per_request
        self._failed += failed
        if self.completed == self.total or time.monotonic() - self._last_draw_s >= self.silence_s:
            self.refresh()

    def maybe_refresh(self) -> None:
        """Draw if it is due: call this while no request is in flight."""
        if time.monotonic() - self._last_draw_s >= self.interval_s:
            self.refresh()

    def refresh(self) -> None:
        self._last_draw_s, self._drawn = time.monotonic(), self.completed
        self.render()

    def render(self) -> None:
        raise NotImplementedError

    @property
    def _elapsed_s(self) -> float:
        return max(time.monotonic() - self._start_s, 1e-9)

    @property
    def _remaining_s(self) -> float | None:
        """None until there is a rate."""
        return (self.total - self.completed) * self._elapsed_s / self._advanced if self._advanced else None

    def _counts(self) -> str:
        completed = f"{int(self.completed):>{len(f'{self.total:,}')},}"
        return f"{completed} of at most {self.total:,} {self._unit}" if self._unit else f"{completed} of {self.total:,}"

    def _rate(self) -> str:
        """Requests a second; of steps there are too few for a rate."""
        return "" if self._unit else f"{self._advanced / self._elapsed_s:.0f}/s"

    def _failures(self) -> str:
        return f"{self._failed:,} failed" if self._failed else ""


class _TerminalProgressBar(ProgressBar):
    """A line of which nothing but the end moves: a bar, counts and times of fixed width, then the target."""

    async def __aenter__(self) -> Self:
        self._live = Live(console=self.console, auto_refresh=False, get_renderable=self._line)
        self._live.start(refresh=True)
        return await super().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await super().__aexit__(*exc)
        finally:
            self._live.stop()

    def render(self) -> None:
        self._live.refresh()

    def _line(self) -> Table:
        remaining = "" if self._remaining_s is None else _clock(self._remaining_s)
        text = Text(f"{self._counts()} {_clock(self._elapsed_s):>5}, {remaining:>5} left", no_wrap=True)
        text.overflow = "ellipsis"
        for part, style in ((self._rate(), ""), (self._failures(), "red"), (self.current_target, "")):
            text.append(f" {part}" if part else "", style)
        line = Table.grid(padding=(0, 1))
        line.add_column(width=len(self.description))
        line.add_column(width=BAR_CHARS)
        line.add_column()
        line.add_row(self.description, rich.progress_bar.ProgressBar(self.total, self.completed, BAR_CHARS), text)
        return line


class _LogProgressBar(ProgressBar):
    """Plain lines for a log."""

    interval_s = silence_s = LOG_INTERVAL_S

    def render(self) -> None:
        unfinished = 0 < self.completed < self.total and self._remaining_s is not None
        remaining = f"about {self._remaining_s:.0f} s left" if unfinished else ""
        target = self.current_target if unfinished else ""
        parts = (self._counts().strip(), self._rate(), self._failures(), remaining, target)
        line = f"{_now()} {self.description}: {', '.join(filter(None, parts))}"
        self.console.print(line, markup=False, soft_wrap=True)


class _JsonProgressBar(ProgressBar):
    """Objects for a program."""

    interval_s = silence_s = LOG_INTERVAL_S

    def render(self) -> None:
        remaining_s = None if self._remaining_s is None else round(self._remaining_s, 1)
        _print_json(
            self.console, progress=self.description, completed=round(self.completed, 2), total=self.total,
            failed=self._failed, per_s=round(self._advanced / self._elapsed_s, 2), remaining_s=remaining_s,
            target=self.current_target or None,
        )  # fmt: skip


def _clock(seconds: float) -> str:
    """Such as 5:07, or 1:05:07."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
