"""The end of a run on the terminal: one line a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.formatting import NOT_AVAILABLE, count, ms, usd

HEADINGS = ("", "$ a month", "p95", "errors", "fits memory")
MAX_LINES = 12  # of targets; the reports have all
YES_OR_NO = {True: "yes", False: "no", None: NOT_AVAILABLE}


def terminal_table(summary: Mapping[str, Any]) -> list[str]:
    """Dollars, p95 and what failed of each target of the answer's engine, and of those without a price."""
    options, targets = summary["verdict"]["options"], summary["targets"]
    names = [*options, *(name for name in targets if name not in summary["candidates"])]
    rows: list[tuple[str, ...]] = [HEADINGS]
    for name in names[:MAX_LINES]:
        candidate = summary["candidates"].get(name)
        fits_memory = candidate["fits_memory"] if candidate else targets[name]["memory"]["fits"]
        rows.append(_row(targets[name], summary["verdict"]["scenario"], options.get(name), fits_memory))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for title, *cells in rows:
        lines.append("  ".join([title.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]))
    return [*lines, *([f"and {len(names) - MAX_LINES} others"] if len(names) > MAX_LINES else [])]


def _row(
    target: Mapping[str, Any], scenario: str | None, option: Mapping[str, Any] | None, fits_memory: bool | None
) -> tuple[str, ...]:
    report = target["scenarios"].get(scenario)
    warm_p95_ms = report["latency_with_failures_ms"]["p95"]["value"] if report else None
    p95_ms = option["p95_ms"] if option else warm_p95_ms
    failed = sum(target["errors"].values())
    return (
        target["title"] + (" (always warm)" if option and option["min_instances"] else ""),
        usd(round(option["bill"]["net_usd"], 2)) if option else "–",
        NOT_AVAILABLE if p95_ms is None else ms(p95_ms),
        f"{count(failed)} of {count(target['sent'])}",
        YES_OR_NO[fits_memory],
    )
