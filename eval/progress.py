"""How far a run is: a bar on a terminal, a plain line now and then elsewhere.

Drawing takes this process's time, so it is done where no request is under way or due; rich's own refreshing thread is
off. Only when such a moment does not come for seconds is it drawn between two requests, as lateness of the next.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DRAW_S = 0.5  # at least between two draws on a terminal
LINE_S = 5.0  # the same between two plain lines
OVERDUE = 4  # intervals without a good moment, and it is drawn at a bad one


class Screen:
    """What a person sees of a run."""

    def __init__(self, console: Console | None = None):
        self._console = console or Console(highlight=False)

    def say(self, text: str) -> None:
        """One line, not wrapped, at once."""
        self._console.print(text, markup=False, soft_wrap=True)

    def counting(self, what: str, total: int) -> Counting:
        """A display of `total` things to do; use it as a context."""
        return (_Bar if self._console.is_terminal else _Lines)(self._console, what, total)


class Counting:
    """Counts what is done, and draws when it is time to."""

    interval_s = DRAW_S

    def __init__(self, console: Console, what: str, total: int):
        self.console = console
        self.what = what  # is done
        self.total = total
        self.done = 0
        self.failed = 0
        self.now = ""  # the target at work
        self._began = self._drawn = time.monotonic()
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._shown != self.done:
            self.draw()

    def count(self, failed: bool = False) -> None:
        """One more is done."""
        self.done += 1
        self.failed += failed
        if self.done == self.total or time.monotonic() - self._drawn >= self.interval_s * OVERDUE:
            self.draw()

    def more(self, total: int) -> None:
        """There is more to do than was known."""
        self.total += total

    def breathe(self) -> None:
        """Nothing is under way: a good moment to draw."""
        if time.monotonic() - self._drawn >= self.interval_s:
            self.draw()

    def draw(self) -> None:
        self._drawn, self._shown = time.monotonic(), self.done
        self.show()

    def show(self) -> None:
        raise NotImplementedError

    @property
    def rate(self) -> float:
        """Per second, since the beginning."""
        return self.done / max(time.monotonic() - self._began, 1e-9)


class _Bar(Counting):
    """On a terminal."""

    def __enter__(self) -> Self:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"),
            TextColumn("left"), TimeRemainingColumn(),
            console=self.console, auto_refresh=False, transient=False,
        )  # fmt: skip
        self._task = self._progress.add_task(self.what, total=self.total, facts="")
        self._progress.start()
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        super().__exit__(*exc)
        self._progress.stop()

    def show(self) -> None:
        failed = f"[red]{self.failed:,} failed[/red] " if self.failed else ""
        self._progress.update(
            self._task, completed=self.done, total=self.total, facts=f"{self.rate:.0f}/s {failed}{self.now}"
        )
        self._progress.refresh()


class _Lines(Counting):
    """In a log."""

    interval_s = LINE_S

    def show(self) -> None:
        left = (self.total - self.done) / self.rate if self.done else 0
        failed = f", {self.failed:,} failed" if self.failed else ""
        ahead = f", about {left:.0f} s left" if 0 < self.done < self.total else ""
        line = f"{self.what}: {self.done:,} of {self.total:,}, {self.rate:.0f}/s{failed}{ahead}"
        self.console.print(line, markup=False, soft_wrap=True)
