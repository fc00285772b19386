"""The rules of ops/prometheus: read, and copied with a shorter window."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.paths import ROOT

RULES = ROOT / "ops" / "prometheus" / "rules"
RECORDING, ALERTS, GROUP = "recording.yml", "alerts.yml", "drift"
NAME = re.compile(r"classifier:\w+(?::\w+)?")
HOUR_S = 3600
TIMES = re.compile(r"(\[(?=1h)|offset |for: |interval: )(1h|15m|5m|1m)\b")
SECONDS = {"1h": 3600, "15m": 900, "5m": 300, "1m": 60}


@dataclass(frozen=True)
class Alert:
    """An alert's rule."""

    name: str
    expression: str
    for_s: int


def drift_rules(file: str) -> list[dict[str, Any]]:
    """Those of drift and accuracy."""
    groups = yaml.safe_load((RULES / file).read_text(encoding="utf-8"))["groups"]
    return next(group["rules"] for group in groups if group["name"] == GROUP)


def drift_alerts() -> list[Alert]:
    """All that tell drift and accuracy."""
    return [Alert(rule["alert"], rule["expr"], SECONDS[rule["for"]]) for rule in drift_rules(ALERTS)]


def levels(rules: Sequence[Mapping[str, str]]) -> list[list[Mapping[str, str]]]:
    """The rules in rounds, each after all that its expressions name."""
    names = {rule["record"] for rule in rules}
    rounds: list[list[Mapping[str, str]]] = []
    done: set[str] = set()
    while left := [rule for rule in rules if rule["record"] not in done]:
        ready = [rule for rule in left if set(NAME.findall(rule["expr"])) & names <= done]
        if not ready:
            raise ValueError(f"rules that need each other: {', '.join(rule['record'] for rule in left)}")
        rounds.append(ready)
        done |= {rule["record"] for rule in ready}
    return rounds


def with_window(folder: Path, window_s: int) -> Path:
    """Copy the rules of drift into a new folder; all their times but the day of feedback shrink as the hour does."""
    folder.mkdir()

    def shrink(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, round(SECONDS[found[2]] * window_s / HOUR_S))}s"

    for file in (RECORDING, ALERTS):
        (folder / file).write_text(TIMES.sub(shrink, (RULES / file).read_text(encoding="utf-8")), encoding="utf-8")
    return folder
