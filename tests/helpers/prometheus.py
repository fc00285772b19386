"""A real Prometheus for tests: the rules of ops/ evaluated each second, and its answers."""

from __future__ import annotations

import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT

WAIT_S = 120
RULES = ROOT / "ops" / "prometheus" / "rules"


def quick_rules(folder: Path) -> str:
    """Copies of the rules that are evaluated as often as all else; returns their pattern."""
    (folder / "rules").mkdir()
    for file in RULES.glob("*.yml"):
        text = file.read_text(encoding="utf-8").replace("interval: 1m", "interval: 1s")
        (folder / "rules" / file.name).write_text(text, encoding="utf-8")
    return f"{folder}/rules/*.yml"


def query(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series that is a number."""
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}") as answer:
        found = json.load(answer)["data"]["result"]
    series = [(each["metric"], float(each["value"][1])) for each in found]
    return [each for each in series if math.isfinite(each[1])]


def wait_for(url: str, expression: str, holds: Callable[[list], bool] = bool) -> list[tuple[dict[str, str], float]]:
    """The answer, once it holds."""
    give_up = time.monotonic() + WAIT_S
    while not holds(found := query(url, expression)):
        assert time.monotonic() < give_up, f"{expression} is {found}"
        time.sleep(0.1)
    return found
