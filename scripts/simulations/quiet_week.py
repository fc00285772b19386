"""A week of equal traffic, in which no alert of drift may fire, and beside it the five drifts of a day: docs/watch.md.

    python -m scripts.simulations.quiet_week --images data/test [--days 7]     # data/test/CLASS/*.png

Draws the images' statistics from the shipped model's own answers to CIFAR-10's test images (measured once, minutes, and
kept in runs/drift), writes the scrapes of three instances that come and go, by day and by night, with a switch to
another version and back, into a real Prometheus, evaluates its rules over all of it, and asks every alert of drift and
accuracy. Needs prometheus and promtool. Exit code 1 if an alert fired without drift.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import TwinError
from scripts.paths import MODEL_DIR, ROOT
from scripts.simulations.drift.answers import Answers, kept
from scripts.simulations.drift.backfill import Backfill, Found, firing, nearest
from scripts.simulations.drift.kinds import DRIFTS, EQUAL
from scripts.simulations.drift.rules import drift_alerts
from scripts.simulations.drift.week import DAY_SCRAPES, HOUR_SCRAPES, SCRAPE_S, Job, Simulation
from service.model import load_bundle

BEGAN_AT = 1_767_571_200  # 2026-01-05, a Monday, midnight UTC
DRIFTED_IMAGES = 2000  # of each kind
EVALUATION_S = 60  # as the rules' own interval
BEFORE_DRIFT_SCRAPES = 12 * HOUR_SCRAPES  # of equal traffic, in a job that drifts
DRIFT_HOUR = 10
MAX_DAYS = 7  # an answer of Prometheus has 11,000 points at most


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    simulation: Simulation
    found: list[Found]  # in order of time

    @property
    def is_false(self) -> bool:
        """Whether an alert fired before there was any drift."""
        return any(each.at < BEGAN_AT + self.simulation.job.drift_at * SCRAPE_S for each in self.found)

    def row(self) -> str:
        """Of a Markdown table: the first time that each alert fired, in minutes and images since the drift began."""
        job, images = self.simulation.job, self.simulation.images
        first = {each.name: (each.at - BEGAN_AT) // SCRAPE_S for each in reversed(self.found)}
        cells = [
            f"{name} {at - job.drift_at} min ({images[job.drift_at - job.start : at - job.start].sum():,} images)"
            if at >= job.drift_at
            else f"{name} {job.drift_at - at} min before it"
            for name, at in sorted(first.items(), key=lambda item: item[1])
        ]
        return f"| {job.kind.title} | {images.sum():,} | {', '.join(cells) or 'none'} |"


def jobs(scrapes: int, drift_at: int) -> list[Job]:
    """One of equal traffic all the time, and one of each drift, which begins at `drift_at`."""
    start = max(0, drift_at - BEFORE_DRIFT_SCRAPES)
    return [Job(EQUAL, 0, scrapes, scrapes), *(Job(kind, start, scrapes, drift_at) for kind in DRIFTS)]


def simulate(
    planned: Sequence[Job],
    answers: Mapping[str, Answers],
    backfill: Backfill,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[Outcome], dict[str, float]]:
    """Run them all in one Prometheus. Returns what fired for each, and how near the first one came to the limits."""
    simulations = [Simulation(job, answers, seed) for job in planned]
    start = BEGAN_AT + min(job.start for job in planned) * SCRAPE_S
    end = BEGAN_AT + max(job.end for job in planned) * SCRAPE_S
    say("scrapes")
    backfill.add(simulations, BEGAN_AT)
    backfill.record(start, end, EVALUATION_S, say)
    say("alerts")
    with backfill.running() as server:
        found = [each for alert in drift_alerts() for each in firing(server.url, alert, start, end, EVALUATION_S)]
        near = nearest(server.url, planned[0].kind.name, start, end, EVALUATION_S)
    found.sort(key=lambda each: each.at)
    return [Outcome(each, [alert for alert in found if alert.job == each.job.kind.name]) for each in simulations], near


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulations.quiet_week",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, help="CIFAR-10's test images: CLASS/*.png")
    parser.add_argument("--days", type=int, default=7, help="of equal traffic, up to 7 (default: 7)")
    parser.add_argument("--seed", type=int, default=23, help="of the draws (default: 23)")
    options = parser.parse_args(argv)
    program, promtool = shutil.which("prometheus"), shutil.which("promtool")
    if not program or not promtool:
        sys.exit("quiet_week: prometheus and promtool are needed: apt-get install prometheus")
    if not 1 <= options.days <= MAX_DAYS:
        sys.exit(f"quiet_week: --days is {options.days}; from 1 to {MAX_DAYS}")
    try:
        bundle = load_bundle(MODEL_DIR)
        answers = kept(ROOT / "runs" / "drift", bundle, options.images, DRIFTS, DRIFTED_IMAGES)
        scrapes = options.days * DAY_SCRAPES
        planned = jobs(scrapes, scrapes - (24 - DRIFT_HOUR) * HOUR_SCRAPES)
        with tempfile.TemporaryDirectory(prefix="quiet-week-") as folder:
            backfill = Backfill(Path(folder), program, promtool)
            outcomes, near = simulate(
                planned, answers, backfill, options.seed, lambda text: print(f"... {text}", file=sys.stderr)
            )
    except (OSError, RuntimeError, TwinError) as error:
        sys.exit(f"quiet_week: {error}")
    except KeyboardInterrupt:
        sys.exit("quiet_week: stopped; what was measured is kept")
    print("| Drift | Images | Alerts: time and images from the drift's begin |\n|---|--:|---|")
    print(*(outcome.row() for outcome in outcomes), sep="\n")
    told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in near.items())
    print(f"\nNearest to a limit without drift (1 is the limit): {told}")
    return int(any(outcome.is_false for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
