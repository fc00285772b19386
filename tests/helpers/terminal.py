"""A real terminal that a test looks at while the program writes to it."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import TextIO

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours, movements of the cursor
END = "\x1b[0m\x1b[0m\x1b[0m"  # written after all else: what comes before has been read
SILENT_S = 30.0  # after which a test fails, rather than waits for ever


class Terminal:
    """What the program shows, as it comes."""

    def __init__(self, file: TextIO):
        self.file = file  # for the program
        self.moved: list[str] = []  # during what it has moved
        self._text = ""
        self._news = threading.Condition()

    def moves(self, what: str) -> None:
        """Return once two new texts are shown: while `what` is going on, that is, and not before it."""
        with self._news:
            start = len(self._text)
            shown = self._news.wait_for(lambda: len(set(_lines(self._text[start:])[1:])) >= 2, SILENT_S)
        assert shown, f"nothing moves during: {what}\n{self._text[-500:]}"
        self.moved.append(what)

    def lines(self) -> list[str]:
        """Every line that was shown; of one that moves, each of its texts."""
        self.file.write(END)
        self.file.flush()
        with self._news:
            assert self._news.wait_for(lambda: self._text.endswith(END), SILENT_S), "the terminal's end was not read"
            return _lines(self._text)

    def read_from(self, master: int) -> None:
        """Read to the end, so that the program never waits for a reader."""
        with contextlib.suppress(OSError):  # EIO: the program's end is closed
            while True:
                news = os.read(master, 1 << 16).decode(errors="replace")
                with self._news:
                    self._text += news
                    self._news.notify_all()


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line.strip()]


@contextlib.contextmanager
def open_terminal() -> Iterator[Terminal]:
    """A pseudo-terminal with nothing on it."""
    master, slave = os.openpty()
    with open(slave, "w", encoding="utf-8") as file:
        terminal = Terminal(file)
        reader = threading.Thread(target=terminal.read_from, args=(master,))
        reader.start()
        yield terminal
    reader.join()
    os.close(master)
