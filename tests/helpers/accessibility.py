"""What axe-core, on which Lighthouse's accessibility audits rest, complains of in a page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def accessibility_faults(page: Page) -> list[str]:
    """Rule, element and remedy of each fault, with everything unfolded that can be."""
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    return [
        f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for rule in Axe().run(page).response["violations"]
        for node in rule["nodes"]
    ]
