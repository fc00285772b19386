"""The senders: how each is started to post one image at a constant rate, and which versions they have."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.paths import EXAMPLE_IMAGE

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Sender:
    """A program that sends."""

    name: str
    program: str | None  # its path; None: it is not installed
    arguments: Callable[[str, float, float], list[str]]  # of URL, requests a second, and seconds
    version_option: str = "--version"
    install: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def version(self) -> str:
        """The first line that it says of its version."""
        assert self.program
        said = subprocess.run(
            [self.program, self.version_option], capture_output=True, text=True, encoding="utf-8", check=False
        )
        return f"{self.name}: {(said.stdout + said.stderr).strip().splitlines()[0]}"


def own(url: str, rate_rps: float, duration_s: float) -> list[str]:
    return ["-m", "scripts.benchmarks.send_timing.own_loop", url, f"{rate_rps:g}", f"{duration_s:g}"]


def k6(url: str, rate_rps: float, duration_s: float) -> list[str]:
    values = {"URL": url, "IMAGE": EXAMPLE_IMAGE, "RATE": f"{rate_rps:g}", "DURATION": f"{duration_s:g}s"}
    script = str(FOLDER / "constant_rate.js")
    return ["run", "--quiet", *(word for name, value in values.items() for word in ("-e", f"{name}={value}")), script]


def wrk2(url: str, rate_rps: float, duration_s: float) -> list[str]:
    """On one connection: each has a schedule of its own, and together they are not regular."""
    options = ["-t1", "-c1", f"-R{rate_rps:g}", f"-d{duration_s:g}s"]
    return [*options, "-s", str(FOLDER / "post_image.lua"), url]


def all_senders() -> list[Sender]:
    """Ours first."""
    return [
        Sender("ours", sys.executable, own),
        Sender(
            "k6", shutil.which("k6"), k6, "version", "go install go.k6.io/k6@latest", {"K6_NO_USAGE_REPORT": "true"}
        ),
        Sender(
            "wrk2", shutil.which("wrk2"), wrk2, "-v", "build github.com/giltene/wrk2, and call its program wrk2",
            {"IMAGE": str(EXAMPLE_IMAGE)},
        ),
    ]  # fmt: skip
