"""A written page, looked at as elements and as text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from eval.report.render import REPORT_HTML


def text_of(folder: Path, name: str = REPORT_HTML) -> str:
    return (folder / name).read_text(encoding="utf-8")


class Page(HTMLParser):
    """The elements of a page, what they point at, and the text that a reader sees."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.lasttag not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
