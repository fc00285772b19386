"""The signals that end a command early, however it was started: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal.

A script's shell starts a job in the background with SIGINT ignored, and Python leaves it so; here it ends the job like
the others. Only a SIGHUP that `nohup` has ignored stays ignored, since that is what it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from eval.event_loop import run_with_exact_timers

Result = TypeVar("Result")

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.1  # after which a signal that could not be raised is sent again


class Interruption(KeyboardInterrupt):
    """A signal has ended the command."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def is_interruption(error: BaseException) -> bool:
    """Whether a signal has raised it, also where it was wrapped: Python makes a RuntimeError of one in `__set_name__`,
    which runs for each member of an enumeration that is imported."""
    return isinstance(error, KeyboardInterrupt) or bool(error.__cause__ and is_interruption(error.__cause__))


class Interruptions:
    """What a command does about the signals. `received` is the first of them."""

    def __init__(self) -> None:
        self.received: Interruption | None = None
        self._is_raised = False
        self._again: threading.Timer | None = None  # sends one again that could not be raised
        self._terminals = [stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream and stream.isatty()]

    @contextlib.contextmanager
    def raised(self, *, once: bool = False) -> Iterator[None]:
        """Each signal raises Interruption; with `once` the first alone: a terminal that is closed may send several,
        and those after it would cut short what the first one has begun to clear away."""
        before, unraisable = {number: signal.getsignal(number) for number in ENDING}, sys.unraisablehook
        for number in self._handled_signals():
            signal.signal(number, functools.partial(self._raise, once))
        sys.unraisablehook = functools.partial(self._note_lost, unraisable)
        try:
            yield
        finally:
            self._send_no_more()
            sys.unraisablehook = unraisable
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """Run it in a loop with exact timers. A signal cancels it, which it may catch; a second one raises."""
        self._send_no_more()  # as `main` is cancelled by it from here on, and would count as a second one
        return run_with_exact_timers(self._cancelled_by_signals(main))

    async def _cancelled_by_signals(self, main: Coroutine[Any, Any, Result]) -> Result:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task

        def cancel(number: int) -> None:
            if self.received:
                raise Interruption(number)
            self._note(number)
            task.cancel()

        before = {number: signal.getsignal(number) for number in self._handled_signals()}
        for number in before:
            loop.add_signal_handler(number, cancel, number)
        if self.received:  # before, where nothing could be raised, or the exception was lost
            task.cancel()
        try:
            return await main
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _handled_signals(self) -> list[signal.Signals]:
        return [n for n in ENDING if n is not signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]

    def _raise(self, once: bool, number: int, frame: FrameType | None) -> None:
        if once and self._is_raised:
            return
        self._note(number)
        while frame:
            if frame.f_code.co_name == "__del__":  # Python prints what is raised there, and goes on
                self._send_again(number)
                return
            frame = frame.f_back
        self._is_raised = True
        self._send_no_more()
        raise Interruption(number)

    def _note_lost(self, otherwise: Callable[[sys.UnraisableHookArgs], Any], lost: sys.UnraisableHookArgs) -> None:
        """In place of a traceback: what was raised in the callback of a weak reference, say, ended that alone."""
        if isinstance(lost.exc_value, Interruption):
            self._is_raised = False
            self._send_again(lost.exc_value.exit_code - 128)
        else:
            otherwise(lost)

    def _send_again(self, number: int) -> None:
        """A moment later, as often as it takes."""
        self._send_no_more()
        self._again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
        self._again.daemon = True
        self._again.start()

    def _send_no_more(self) -> None:
        if self._again:
            self._again.cancel()

    def _note(self, number: int) -> None:
        self.received = self.received or Interruption(number)
        if number == signal.SIGHUP:  # whatever is still said to a terminal that is gone would be an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in self._terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)
