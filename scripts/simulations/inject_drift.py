"""Drifting images sent to a local twin: which alert of a real Prometheus each kind raises, and after how long.

    python -m scripts.simulations.inject_drift --images data/test [--window-s 60]     # data/test/CLASS/*.png

Starts Heroku's twin with ONNX Runtime, and a Prometheus that scrapes it each second, with the rules of ops/ but a
shorter window: all times of the rules shrink alike, while the 500 images that a window has to hold stay. Sends equal
images first, as a control, then each kind of drift until a window is full of it, and between them equal ones until
nothing fires. About 15 minutes with a window of 60 s. Exit code 1 if an alert fired without drift, or none with one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import TwinError
from infra.local.twins import local_twins
from infra.targets import HEROKU
from scripts.paths import MODEL_DIR
from scripts.simulations.drift.answers import ENGINE, SEED, sources
from scripts.simulations.drift.kinds import DRIFTS, EQUAL, Kind
from scripts.simulations.drift.rules import drift_alerts, with_window
from scripts.simulations.drift.sender import Sender
from service.model import Bundle, load_bundle
from watch.programs import prometheus
from watch.scrape_config import Deployment, prometheus_config

SCRAPE_S = 1.0
POLL_S = 0.2
READY_IMAGES = 500  # as the rules have it
SPARE = 1.5  # a window holds this many times as many
CONTROL_WINDOWS = 3.0
DRIFT_WINDOWS = 1.3  # until a window is full, and the alerts have waited
CALM_WINDOWS = 6.0  # within which what drifted has to be forgotten


@dataclass(frozen=True)
class Raised:
    """An alert that began to fire."""

    name: str
    after_s: float
    images: int  # answered until then


@dataclass
class Outcome:
    """What one kind of traffic raised."""

    kind: Kind
    raised: list[Raised] = field(default_factory=list)
    images: int = 0
    failed: int = 0

    def row(self) -> str:
        """Of a Markdown table."""
        told = ", ".join(f"{each.name} {each.after_s:.0f} s ({each.images:,} images)" for each in self.raised)
        return f"| {self.kind.title} | {self.images:,} | {told or 'none'} |"


class Alerts:
    """The alerts of drift of a Prometheus."""

    def __init__(self, url: str):
        self._url = f"{url}/api/v1/alerts"
        self._names = {alert.name for alert in drift_alerts()}

    def firing(self) -> set[str]:
        """Those that fire now."""
        return self._in_state("firing")

    def calm(self) -> bool:
        """Whether none fires nor waits."""
        return not self._in_state("firing", "pending")

    def _in_state(self, *states: str) -> set[str]:
        with urllib.request.urlopen(self._url, timeout=30) as reply:
            found = json.load(reply)["data"]["alerts"]
        names = {alert["labels"]["alertname"] for alert in found if alert["state"] in states}
        return names & self._names


def observe(sender: Sender, alerts: Alerts, kind: Kind, duration_s: float) -> Outcome:
    """Send one kind for that long. Alerts that fire already count as raised at once."""
    sender.switch(kind)
    outcome, began = Outcome(kind), time.monotonic()
    while (passed := time.monotonic() - began) < duration_s:
        known = {each.name for each in outcome.raised}
        for name in sorted(alerts.firing() - known):
            outcome.raised.append(Raised(name, passed, sender.counts[0]))
        time.sleep(POLL_S)
    outcome.images, outcome.failed = sender.counts
    return outcome


def calm_down(sender: Sender, alerts: Alerts, window_s: float) -> None:
    """Send equal images until nothing fires or waits, and a window is full of them. Raises TwinError if never."""
    sender.switch(EQUAL)
    began = time.monotonic()
    while not alerts.calm() or time.monotonic() - began < window_s:
        if time.monotonic() - began > CALM_WINDOWS * window_s:
            raise TwinError(f"alerts still fire after {CALM_WINDOWS:g} windows of equal images: {alerts.firing()}")
        time.sleep(POLL_S)


def inject(
    bundle: Bundle,
    images: Path,
    kinds: Sequence[Kind],
    window_s: int,
    rate_rps: float,
    program: str,
    say: Callable[[str], None] = lambda text: None,
    control_windows: float = CONTROL_WINDOWS,
) -> list[Outcome]:
    """The control's outcome, then each kind's."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inject-drift-")))
        twins = stack.enter_context(local_twins([HEROKU.name], engines=[ENGINE], model=bundle, on_event=say))
        if not twins.running:
            raise TwinError("the twin could not be started")
        (twin,) = twins.running
        rules = with_window(folder / "rules", window_s)
        config = prometheus_config([Deployment(twin.name, twin.url)], [f"{rules}/*.yml"], SCRAPE_S)
        server = stack.enter_context(prometheus(program, folder, config))
        alerts = Alerts(server.url)
        sender = stack.enter_context(Sender(twin.url, sources(images, bundle.classes), rate_rps, SEED))
        say(f"a window of {window_s} s instead of an hour; {rate_rps:g} images a second; control")
        outcomes = [observe(sender, alerts, EQUAL, control_windows * window_s)]
        for kind in kinds:
            if kind is not kinds[0]:
                say("equal images until nothing fires")
                calm_down(sender, alerts, window_s)
            say(kind.title)
            outcomes.append(observe(sender, alerts, kind, DRIFT_WINDOWS * window_s))
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.inject_drift",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="CIFAR-10's test images: CLASS/*.png")
    parser.add_argument("--window-s", type=int, default=60, help="of the rules, in seconds (default: 60)")
    parser.add_argument("--rate", type=float, default=20.0, help="images a second (default: 20)")
    options = parser.parse_args(argv)
    if options.rate * options.window_s < SPARE * READY_IMAGES:
        least = SPARE * READY_IMAGES / options.rate
        sys.exit(f"inject_drift: too few images in a window of {options.window_s} s; --window-s {least:.0f} at least")
    if (program := shutil.which("prometheus")) is None:
        sys.exit("inject_drift: prometheus is needed: apt-get install prometheus")
    try:
        outcomes = inject(
            load_bundle(MODEL_DIR), options.images, DRIFTS, options.window_s, options.rate, program,
            lambda text: print(f"... {text}", file=sys.stderr, flush=True),
        )  # fmt: skip
    except (OSError, TwinError) as error:
        sys.exit(f"inject_drift: {error}")
    except KeyboardInterrupt:
        sys.exit("inject_drift: stopped")
    print(f"Window: {options.window_s} s\n\n| Drift | Images | Alerts: time and images from its begin |\n|---|--:|---|")
    print(*(outcome.row() for outcome in outcomes), sep="\n")
    control, *drifted = outcomes
    return int(bool(control.raised) or not all(outcome.raised for outcome in drifted))


if __name__ == "__main__":
    sys.exit(main())
