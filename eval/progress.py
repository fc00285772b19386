"""Progress of a run: a bar on a terminal, a plain line now and then elsewhere.

Drawing takes CPU time of this process, so it is done while no request is in flight or due; rich's own refresh thread is
off. Only if there is no such moment for seconds is it drawn between two requests, which delays the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eval.validation import printable_lines

TERMINAL_REFRESH_S = 0.5  # minimum between two draws on a terminal
LOG_REFRESH_S = 5.0  # minimum between two plain lines
MAX_SKIPPED_REFRESHES = 4  # after so many intervals it is drawn even while requests are due


class _Console(Console):
    """A console that a run outlives: a reader that has enough, as `head` has, does not end a measurement."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Reporter:
    """Output for the person who watches a run."""

    def __init__(self, console: Console | None = None, scrub: Callable[[str], str] = str):
        """`scrub` masks secrets in what is printed."""
        self._console = console or _Console(highlight=False)
        self._scrub = scrub

    def print(self, text: str) -> None:
        """Print lines, not wrapped, at once; what would control the terminal is replaced."""
        self._console.print(printable_lines(self._scrub(text)), markup=False, emoji=False, soft_wrap=True)

    def progress_bar(self, description: str, total: int) -> ProgressBar:
        """A display of `total` items; use it as a context manager."""
        return (_TerminalProgressBar if self._console.is_terminal else _LogProgressBar)(
            self._console, description, total
        )


class ProgressBar:
    """Counts completed items and draws the display when it is due."""

    interval_s = TERMINAL_REFRESH_S

    def __init__(self, console: Console, description: str, total: int):
        self.console = console
        self.description = description
        self.total = total
        self.completed = 0
        self.failed = 0
        self.current_target = ""  # the target that requests are sent to
        self._start_s = self._last_draw_s = time.monotonic()
        self._drawn_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._drawn_count != self.completed:
            self.refresh()

    def advance(self, failed: bool = False) -> None:
        """Count one completed item."""
        self.completed += 1
        self.failed += failed
        if (
            self.completed == self.total
            or time.monotonic() - self._last_draw_s >= self.interval_s * MAX_SKIPPED_REFRESHES
        ):
            self.refresh()

    def add_total(self, additional: int) -> None:
        """Add items to the total."""
        self.total += additional

    def maybe_refresh(self) -> None:
        """Draw if it is due: call this while no request is in flight."""
        if time.monotonic() - self._last_draw_s >= self.interval_s:
            self.refresh()

    def refresh(self) -> None:
        self._last_draw_s, self._drawn_count = time.monotonic(), self.completed
        self.render()

    def render(self) -> None:
        raise NotImplementedError

    @property
    def rate_per_s(self) -> float:
        """Completed items per second since the start."""
        return self.completed / max(time.monotonic() - self._start_s, 1e-9)


class _TerminalProgressBar(ProgressBar):
    """A bar on a terminal."""

    def __enter__(self) -> Self:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"),
            TextColumn("left"), TimeRemainingColumn(),
            console=self.console, auto_refresh=False, transient=False,
        )  # fmt: skip
        self._task = self._progress.add_task(self.description, total=self.total, status="")
        self._progress.start()
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        super().__exit__(*exc)
        self._progress.stop()

    def render(self) -> None:
        failed = f"[red]{self.failed:,} failed[/red] " if self.failed else ""
        self._progress.update(
            self._task,
            completed=self.completed,
            total=self.total,
            status=f"{self.rate_per_s:.0f}/s {failed}{self.current_target}",
        )
        self._progress.refresh()


class _LogProgressBar(ProgressBar):
    """Plain lines for a log."""

    interval_s = LOG_REFRESH_S

    def render(self) -> None:
        remaining_s = (self.total - self.completed) / self.rate_per_s if self.completed else 0
        failed = f", {self.failed:,} failed" if self.failed else ""
        remaining_text = f", about {remaining_s:.0f} s left" if 0 < self.completed < self.total else ""
        line = (
            f"{self.description}: {self.completed:,} of {self.total:,}, {self.rate_per_s:.0f}/s{failed}{remaining_text}"
        )
        self.console.print(line, markup=False, soft_wrap=True)
