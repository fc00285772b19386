"""Copy the committed reports' tables into README.md, each between its markers.

python -m scripts.docs.readme            writes README.md
python -m scripts.docs.readme --check    exits with 1 when README.md and the reports disagree
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.paths import REPORTS_DIR, ROOT

README = ROOT / "README.md"


def results(report: str) -> str:
    """The verdict, results and processor of a report.md; with two engines, their comparison too."""
    verdict = next(line for line in report.splitlines() if line.startswith("**"))
    block = f"> {verdict}\n\n{table_under('## Results', report)}"
    switch = "## PyTorch vs ONNX int8"
    if f"\n{switch}\n" in report:
        block += f"\n{table_under(switch, report)}"
    return f"{block}\n{processor(report)}"


def serving(report: str) -> str:
    """Servers, goals and processor of a serving.md."""
    return f"{table_under('## Servers', report)}\n{table_under('## Goals', report)}\n{processor(report)}"


def processor(report: str) -> str:
    """The line that names the processor of the figures."""
    return next(f"{line}.\n" for line in report.splitlines() if line.startswith("Processor"))


def table_under(title: str, report: str) -> str:
    """The first table after a heading; a paragraph may stand between them."""
    table = re.search(rf"^{re.escape(title)}\n\n(?:[^|#\n].*\n\n)?((?:\|.*\n)+)", report, re.MULTILINE)
    if table is None:
        raise SystemExit(f"readme: a report has no table under '{title}'")
    return table[1]


@dataclass(frozen=True)
class Block:
    """A part of the README between two lines."""

    begin: str
    end: str
    report: Path
    text: Callable[[str], str]  # of the report


BLOCKS = (
    Block("<!-- results: scripts/docs/readme.py -->", "<!-- end of results -->",
          REPORTS_DIR / "example" / "report.md", results),
    Block("<!-- serving: scripts/docs/readme.py -->", "<!-- end of serving -->",
          REPORTS_DIR / "serving" / "serving.md", serving),
)  # fmt: skip


def with_block(readme: str, block: Block) -> str:
    """The README with the text between the block's markers replaced."""
    head, _, rest = readme.partition(block.begin)
    _, end, tail = rest.partition(block.end)
    if not end:
        raise SystemExit(f"readme: {README} has no '{block.begin}' ... '{block.end}'")
    return f"{head}{block.begin}\n{block.text(block.report.read_text(encoding='utf-8'))}{block.end}{tail}"


def main() -> None:
    old = new = README.read_text(encoding="utf-8")
    for block in BLOCKS:
        if block.report.exists() or block.begin in new:
            new = with_block(new, block)
    if "--check" not in sys.argv[1:]:
        README.write_text(new, encoding="utf-8")
    elif new != old:
        raise SystemExit("readme: README.md and the reports disagree; run: python -m scripts.docs.readme")


if __name__ == "__main__":
    main()
