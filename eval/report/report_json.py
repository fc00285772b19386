"""report.json: what the analysis found, and the one sentence that it comes to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eval.analysis.summary import analyse_run
from eval.cost.price_list import PriceList
from eval.report.verdict import verdict_sentence
from eval.samples.model import Run, Sample


def build_report(run: Run, samples: Iterable[Sample], prices: PriceList) -> dict[str, Any]:
    """Everything that report.json holds."""
    analysis = analyse_run(run, samples, prices)
    verdict = {"sentence": verdict_sentence(analysis.findings), **analysis.report["verdict"]}
    return analysis.report | {"verdict": verdict}
