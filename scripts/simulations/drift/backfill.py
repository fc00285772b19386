"""A real Prometheus with the data of a simulation: scrapes, what the recording rules make of them, and the alerts."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.simulations.drift.answers import BOUNDS
from scripts.simulations.drift.rules import GROUP, RECORDING, Alert, drift_rules, levels
from scripts.simulations.drift.week import DAY_SCRAPES, Simulation, lines
from watch.programs import Running, prometheus

NO_SCRAPES = "global: {evaluation_interval: 1d}\n"
DATA = "prometheus"  # in the folder; as watch.programs has it
TIMEOUT_S = 600


class Backfill:
    """Programs and a folder, in which a Prometheus' data grow."""

    def __init__(self, folder: Path, program: str, promtool: str):
        self._folder, self._program, self._promtool = folder, program, promtool
        self._data = folder / DATA
        self._data.mkdir()

    def add(self, simulations: Iterable[Simulation], began_at: int) -> None:
        """The scrapes. A file for each day: promtool reads one again for every two hours that are in it."""
        files: dict[int, Any] = {}
        for simulation in simulations:
            for text, times, values in simulation.series():
                days = times // DAY_SCRAPES
                for day in range(days[0], days[-1] + 1) if len(days) else ():
                    if day not in files:
                        files[day] = (self._folder / f"{day}.txt").open("w", encoding="utf-8")
                    of_day = days == day
                    files[day].writelines(lines(text, times[of_day], values[of_day], began_at))
        for day, file in sorted(files.items()):
            file.write("# EOF\n")
            file.close()
            path = self._folder / f"{day}.txt"
            self._run("tsdb", "create-blocks-from", "openmetrics", "--quiet", path, self._data)
            path.unlink()

    def record(self, start: int, end: int, step_s: int, say: Callable[[str], None]) -> None:
        """Evaluate the recording rules over that time, in rounds: promtool does not see what it has just written."""
        for at, rules in enumerate(rounds := levels(drift_rules(RECORDING)), 1):
            say(f"recording rules, round {at} of {len(rounds)}")
            path = self._folder / "rules.yml"
            content = {"groups": [{"name": GROUP, "interval": f"{step_s}s", "rules": [dict(rule) for rule in rules]}]}
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            with self.running() as server:
                options = (f"--url={server.url}", f"--start={start}", f"--end={end}", f"--output-dir={self._data}")
                self._run("tsdb", "create-blocks-from", "rules", *options, path)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The Prometheus, with all data of before."""
        with prometheus(self._program, self._folder, NO_SCRAPES) as server:
            yield server

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run([self._promtool, *command], capture_output=True, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(f"promtool {' '.join(map(str, command[:3]))} failed: {done.stderr.strip()[-500:]}")


@dataclass(frozen=True)
class Found:
    """An alert that fired."""

    name: str
    job: str
    version: str
    at: int  # seconds since the epoch, at the first evaluation at which it fired


def firing(url: str, alert: Alert, start: int, end: int, step_s: int) -> list[Found]:
    """Each time that the alert began to fire: its expression was true for as long as it has to be."""
    found = _ask(url, "query_range", query=alert.expression, start=start, end=end, step=step_s)
    return [
        Found(alert.name, series["metric"]["job"], series["metric"]["version"], at)
        for series in found
        for at in begins([int(stamp) for stamp, _ in series["values"]], alert.for_s, step_s)
    ]


def nearest(url: str, job: str, start: int, end: int, step_s: int) -> dict[str, float]:
    """How near each statistic came to its limit while the job was ready: 1 is the limit."""
    found = dict[str, float]()
    for name, limit in (("label_psi", "psi"), *((f"{each}_ks", "ks") for each in BOUNDS)):
        own = f'{{job="{job}"}}'
        ratio = f"classifier:{name}{own} / classifier:{limit}_limit and classifier:drift_ready == 1"
        asked = f"max(max_over_time(({ratio})[{end - start}s:{step_s}s]))"
        (series,) = _ask(url, "query", query=asked, time=end)
        found[name] = float(series["value"][1])
    return found


def _ask(url: str, path: str, **parameters: str | int) -> list[dict[str, Any]]:
    """The series of an answer."""
    address = f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as reply:
        return json.load(reply)["data"]["result"]


def begins(times: Sequence[int], for_s: int, step_s: int) -> list[int]:
    """Of the times at which it is true, those at which it has been for `for_s`, the first of each stretch."""
    result: list[int] = []
    since = told = None
    for at, before in zip(times, [None, *times], strict=False):
        if before is None or at - before > step_s:
            since, told = at, None
        if told is None and since is not None and at - since >= for_s:
            told = at
            result.append(at)
    return result
