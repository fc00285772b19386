"""Lighthouse's scores of the example's report and of the upload form, on a desktop: accessibility has to be 100,
performance at least 90. Prints what costs points; exits with 1 where one is missed.

    python -m scripts.lighthouse [REPORT.html ...]

Needs node 18.16 or later, npm and chromium (Debian's packages of these names). Lighthouse itself is installed once into
.build/lighthouse, 190 MB; the tests, which do not have it, look at the same pages with axe-core, on which its
accessibility audits rest.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.local.twins import local_twins
from scripts.paths import REPORTS_DIR, ROOT

VERSION = "12.8.2"  # the last for node 20
FOLDER = ROOT / ".build" / "lighthouse"
PROGRAM = FOLDER / "node_modules" / ".bin" / "lighthouse"
MIN_SCORES = {"accessibility": 1.0, "performance": 0.9}
HOST = "127.0.0.1"


def install() -> None:
    """Install lighthouse if it is not there."""
    for tool in ("node", "npm", "chromium"):
        if shutil.which(tool) is None:
            raise SystemExit(f"lighthouse: there is no {tool}: apt-get install nodejs npm chromium")
    if not PROGRAM.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        options = ["--prefix", str(FOLDER), "--ignore-scripts", "--no-audit", "--no-fund", "--no-save"]
        subprocess.run(["npm", "install", *options, f"lighthouse@{VERSION}"], check=True)


def measure(url: str) -> Mapping[str, Any]:
    """Lighthouse's report of a page."""
    options = [
        "--preset=desktop",
        f"--only-categories={','.join(MIN_SCORES)}",
        "--output=json",
        "--quiet",
        "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
    ]
    env = os.environ | {"CHROME_PATH": str(shutil.which("chromium"))}
    result = subprocess.run(
        [PROGRAM, url, *options], env=env, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    return json.loads(result.stdout)


def describe(report: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The scores, what costs points in each category, and whether each is high enough."""
    lines, passed = [], True
    for name, min_score in MIN_SCORES.items():
        category = report["categories"][name]
        score = category["score"] or 0.0  # null: an error, which stands in its audits
        passed &= score >= min_score
        lines.append(f"  {name} {score * 100:.0f} (at least {min_score * 100:.0f})")
        for reference in category["auditRefs"]:
            audit = report["audits"][reference["id"]]
            if reference["weight"] and audit["score"] is not None and audit["score"] < 1:
                shown = audit.get("displayValue") or ""
                lines.append(f"    {audit['title']}: {audit['score'] * 100:.0f}{f', {shown}' if shown else ''}")
                lines += [f"      {node}" for node in _nodes(audit)]
    return lines, passed


def _nodes(audit: Mapping[str, Any]) -> list[str]:
    """The first elements that an accessibility audit complains of."""
    items = audit.get("details", {}).get("items", [])
    return [item["node"]["snippet"] for item in items[:5] if "node" in item]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder: lighthouse takes no file:// address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def pages(reports: list[Path]) -> Iterator[dict[str, str]]:
    """What is measured -> its address: the reports, and the form on Heroku's twin."""
    with contextlib.ExitStack() as stack:
        urls = {str(path): f"{stack.enter_context(served(path.parent))}/{path.name}" for path in reports}
        twins = stack.enter_context(local_twins(["heroku"], engines=["onnx"]))
        for name, reason in twins.failures.items():
            raise SystemExit(f"lighthouse: {name} does not start: {reason}")
        yield {**urls, "the upload form": twins.running[0].url}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    example = REPORTS_DIR / "example" / "report.html"
    parser.add_argument("reports", nargs="*", type=Path, default=[example], metavar="REPORT.html")
    arguments = parser.parse_args()
    install()
    all_passed = True
    with pages(arguments.reports) as urls:
        for name, url in urls.items():
            lines, passed = describe(measure(url))
            print("\n".join([name, *lines]), flush=True)
            all_passed &= passed
    raise SystemExit(0 if all_passed else 1)


if __name__ == "__main__":
    main()
