"""Write Grafana's dashboards, and Prometheus' rules of cost, from what this folder says of them.

python -m scripts.dashboards             writes ops/grafana/dashboards/*.json and ops/prometheus/rules/prices.yml
python -m scripts.dashboards --check     exit code 1 where a file differs from what would be written
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eval.cost.price_list import load_price_list
from scripts.dashboards.drift import DRIFT_DASHBOARD
from scripts.dashboards.panels import dashboard_json
from scripts.dashboards.prices import price_rules
from scripts.dashboards.service import service_dashboard
from scripts.paths import ROOT

DASHBOARDS = ROOT / "ops" / "grafana" / "dashboards"
PRICE_RULES = ROOT / "ops" / "prometheus" / "rules" / "prices.yml"


def files() -> dict[Path, str]:
    """Everything that is written, by path."""
    prices = load_price_list()
    dashboards = (service_dashboard(f"eval/cost/prices.yaml of {prices.date}"), DRIFT_DASHBOARD)
    written = {DASHBOARDS / f"{content.uid}.json": dashboard_json(content) for content in dashboards}
    return written | {PRICE_RULES: price_rules(prices)}


def main(argv: list[str] | None = None) -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboards", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, differ = parser.parse_args(argv).check, False
    for path, text in files().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            print(f"{path.relative_to(ROOT)} differs: run python -m scripts.dashboards", file=sys.stderr)
            differ = True
        elif not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
