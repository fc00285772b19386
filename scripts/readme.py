"""Copy the example report's verdict and table into README.md, between its markers.

python scripts/readme.py            writes README.md
python scripts/readme.py --check    exits with 1 when README.md and reports/example disagree
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REPORT = ROOT / "reports" / "example" / "report.md"
BEGIN, END = "<!-- results: scripts/readme.py -->", "<!-- end of results -->"


def results(report: str) -> str:
    """The verdict and the results table of a report.md."""
    verdict = next(line for line in report.splitlines() if line.startswith("**"))
    table = re.search(r"^## Results\n\n((?:\|.*\n)+)", report, re.MULTILINE)
    if table is None:
        raise SystemExit(f"readme: {REPORT} has no table under '## Results'")
    return f"> {verdict}\n\n{table[1]}"


def with_results(readme: str, block: str) -> str:
    """The README with the text between its markers replaced."""
    head, _, rest = readme.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise SystemExit(f"readme: {README} has no '{BEGIN}' ... '{END}'")
    return f"{head}{BEGIN}\n{block}{END}{tail}"


def main() -> None:
    old = README.read_text()
    new = with_results(old, results(REPORT.read_text()))
    if "--check" not in sys.argv[1:]:
        README.write_text(new)
    elif new != old:
        raise SystemExit("readme: README.md and reports/example disagree; run: python scripts/readme.py")


if __name__ == "__main__":
    main()
