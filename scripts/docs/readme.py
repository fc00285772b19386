"""Copy the committed reports' tables into README.md and docs/, each between its markers.

python -m scripts.docs.readme            writes them
python -m scripts.docs.readme --check    exits with 1 when they and the reports disagree
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.paths import REPORTS_DIR, ROOT

README, DOCS = ROOT / "README.md", ROOT / "docs"


def results(report: str) -> str:
    """Results, accuracy and processor of a report.md; with two engines, their comparison too."""
    block = "".join(f"\n{table_under(title, report)}" for title in ("## Results", "## Accuracy"))
    switch = "## PyTorch vs ONNX int8"
    if f"\n{switch}\n" in report:
        block += f"\n{table_under(switch, report)}{same_on_every_target(switch, report)}"
    return f"{block}\n{processor(report)}"


def dollars(report: str) -> str:
    """The table of dollars over traffic of a report.md, and the processor."""
    return f"\n{table_under('## Dollars a month', report)}\n{processor(report)}"


def serving(report: str) -> str:
    """Servers, goals and processor of a serving.md."""
    return f"{table_under('## Servers', report)}\n{table_under('## Goals', report)}\n{processor(report)}"


def processor(report: str) -> str:
    """The line that names the processor of the figures."""
    return next(f"{line}.\n" for line in report.splitlines() if line.startswith("Processor"))


def same_on_every_target(title: str, report: str) -> str:
    """The list that follows the engines' table: what is the same on every target."""
    part = report.partition(f"\n{title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("- ")]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def table_under(title: str, report: str) -> str:
    """The first table after a heading; a paragraph may stand between them."""
    table = re.search(rf"^{re.escape(title)}\n\n(?:[^|#\n].*\n\n)?((?:\|.*\n)+)", report, re.MULTILINE)
    if table is None:
        raise SystemExit(f"readme: a report has no table under '{title}'")
    return table[1]


@dataclass(frozen=True)
class Block:
    """A part of a page between two lines."""

    page: Path
    begin: str
    end: str
    report: Path
    text: Callable[[str], str]  # of the report


BLOCKS = (
    Block(README, "<!-- dollars: scripts/docs/readme.py -->", "<!-- end of dollars -->",
          REPORTS_DIR / "example" / "report.md", dollars),
    Block(DOCS / "results.md", "<!-- results: scripts/docs/readme.py -->", "<!-- end of results -->",
          REPORTS_DIR / "example" / "report.md", results),
    Block(DOCS / "performance.md", "<!-- serving: scripts/docs/readme.py -->", "<!-- end of serving -->",
          REPORTS_DIR / "serving" / "serving.md", serving),
)  # fmt: skip


def with_block(text: str, block: Block) -> str:
    """The page with the text between the block's markers replaced."""
    head, _, rest = text.partition(block.begin)
    _, end, tail = rest.partition(block.end)
    if not end:
        raise SystemExit(f"readme: {block.page} has no '{block.begin}' ... '{block.end}'")
    return f"{head}{block.begin}\n{block.text(block.report.read_text(encoding='utf-8'))}{block.end}{tail}"


def main() -> None:
    for block in BLOCKS:
        old = block.page.read_text(encoding="utf-8")
        if not block.report.exists() and block.begin not in old:
            continue
        new = with_block(old, block)
        if "--check" not in sys.argv[1:]:
            block.page.write_text(new, encoding="utf-8")
        elif new != old:
            raise SystemExit(f"readme: {block.page} and the reports disagree; run: python -m scripts.docs.readme")


if __name__ == "__main__":
    main()
