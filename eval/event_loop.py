"""An event loop whose timers are exact to the microsecond, as far as the operating system wakes the process so soon."""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class MicrosecondSelector(selectors.DefaultSelector):
    """Waits to the microsecond: epoll alone rounds up to milliseconds, which delays each timer by half of one."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            select.select([self.fileno()], [], [], timeout)
        return super().select(0)


def run_with_exact_timers(main: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, with exact timers."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(MicrosecondSelector())) as runner:
        return runner.run(main)
