"""Pages in a real browser, watched for what goes wrong in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page

TIMEOUT_MS = 30_000  # of every step: two cores may be busy


@contextmanager
def watched_pages(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(url, **options of the context)`; at the end nothing may have been blocked or thrown in any page."""
    contexts, complaints = [], []

    def open_page(url: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if "Content Security Policy" in m.text else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
