"""A comparison of two runs as text, Markdown or JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from eval.analysis.findings import Finding
from eval.analysis.run_comparison import PROCESSOR_DEPENDENT, Difference, RunData, Thresholds
from eval.formatting import as_sentence, count, join_words, ms, per_second, percent, plural, timestamp, usd
from eval.report.markdown import escape_markdown
from eval.report.report_json import to_jsonable
from eval.report.wording import message
from eval.samples.processors import client_processor

COMPARE_SCHEMA_VERSION = 2
TABLE_COLUMNS = (
    "target",
    "scenario",
    "figure",
    "A",
    "B",
    "change",
    "95% interval",
    "p",
    "limit",
    "judgement",
    "detail",
)
FRACTION_METRICS = ("failed", "accuracy")  # whose change is in percentage points
METRIC_UNITS = {"cost": usd, "max_rate": per_second}


@dataclass(frozen=True)
class Comparison:
    """Two runs and all that was found."""

    a: RunData
    b: RunData
    thresholds: Thresholds
    incompatibilities: list[Finding]  # for which it was forced
    notices: list[Finding]
    differences: list[Difference]

    @property
    def regressions(self) -> list[Difference]:
        return [d for d in self.differences if d.regressed]


def verdict(comparison: Comparison) -> str:
    """One sentence for someone who reads no other."""
    evaluated = [d for d in comparison.differences if d.threshold is not None and d.reason is None]
    if comparison.regressions:
        text = f"B is worse than A: {'; '.join(map(_describe_regression, comparison.regressions))}"
    elif evaluated:
        text = (
            f"B is no worse than A: of {plural(len(evaluated), 'figure')} none is beyond its limit and more than chance"
        )
    else:
        text = "whether B is worse than A cannot be told"
    unevaluated = [d for d in comparison.differences if d.threshold is not None and d.reason]
    if unevaluated:
        names = join_words(sorted({f"{d.metric} of {d.target}" for d in unevaluated}))
        text += f"; not judged: {names}"
    if any(d.metric in PROCESSOR_DEPENDENT and d.threshold is None for d in comparison.differences):
        text += f"; {' and '.join(PROCESSOR_DEPENDENT)} of twins not judged, as the processors differ"
    if comparison.incompatibilities:
        text += "; but the runs are unlike"
    return as_sentence(text)


def to_text(comparison: Comparison) -> str:
    """For a terminal: an aligned table and the sentence."""
    rows = [TABLE_COLUMNS, *(_table_row(d) for d in comparison.differences)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE_COLUMNS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*_header_lines(comparison), "", *table, "", *_footer_lines(comparison), "", verdict(comparison)])


def to_markdown(comparison: Comparison) -> str:
    """For a pull request's comment: the sentence and the table."""
    rows = [TABLE_COLUMNS, ["---"] * len(TABLE_COLUMNS), *(_table_row(d) for d in comparison.differences)]
    table = ["| " + " | ".join(escape_markdown(cell) for cell in row) + " |" for row in rows]
    return "\n".join(
        [
            f"**{escape_markdown(verdict(comparison))}**",
            "",
            *(f"- {escape_markdown(line)}" for line in _header_lines(comparison)),
            "",
            *table,
            "",
            *(f"- {escape_markdown(line)}" for line in _footer_lines(comparison)),
        ]
    )


def to_json(comparison: Comparison) -> str:
    """For programs. What is infinite is null, and named in `infinite`."""
    thresholds = asdict(comparison.thresholds)
    return json.dumps(
        {
            "schema_version": COMPARE_SCHEMA_VERSION,
            "a": _run_to_json(comparison.a),
            "b": _run_to_json(comparison.b),
            "incompatibilities": to_jsonable(comparison.incompatibilities),
            "notices": to_jsonable(comparison.notices),
            "thresholds": {name: thresholds[name] for name in thresholds if name not in ("seed", "replicates")},
            "bootstrap": {"replicates": comparison.thresholds.replicates, "seed": comparison.thresholds.seed},
            "differences": [_difference_to_json(d) for d in comparison.differences],
            "regressed": bool(comparison.regressions),
            "verdict": verdict(comparison),
        },
        indent=1,
        allow_nan=False,
    )


WRITERS = {"text": to_text, "markdown": to_markdown, "json": to_json}


def _run_to_json(run_data: RunData) -> dict[str, Any]:
    return {
        "folder": run_data.folder,
        "id": run_data.run.id,
        "started_at": run_data.run.started_at,
        "prices_sha256": run_data.prices.sha256,
        "processor": asdict(client_processor(run_data.run)),
    }


def _difference_to_json(d: Difference) -> dict[str, Any]:
    fields = to_jsonable(d) | {"significant": d.significant}
    infinite = [name for name, value in fields.items() if isinstance(value, float) and math.isinf(value)]
    return fields | {name: None for name in infinite} | ({"infinite": infinite} if infinite else {})


def _header_lines(comparison: Comparison) -> list[str]:
    return [
        *(
            f"{letter}: {run_data.folder}, run {run_data.run.id} of {timestamp(run_data.run.started_at)}, on "
            f"{client_processor(run_data.run).with_cores}"
            for letter, run_data in (("A", comparison.a), ("B", comparison.b))
        ),
        *(f"unlike: {message(finding)}" for finding in comparison.incompatibilities),
        *map(message, comparison.notices),
    ]


def _footer_lines(comparison: Comparison) -> list[str]:
    return [
        "latency counts failures as endless; p is adjusted for all targets and scenarios (Holm); a change is worse "
        "when it is beyond its limit and p is below 0.05",
        "intervals: of latency, the ratios that the blocks of both runs do not contradict; of cost, percentile "
        f"bootstrap of blocks, {count(comparison.thresholds.replicates)} draws, seed {comparison.thresholds.seed}",
        f"cost: dollars a month by list price at {count(comparison.thresholds.requests_per_month)} "
        "requests a month; by price: A's "
        "work at B's prices less A's bill, by speed: the rest",
    ]


def _table_row(d: Difference) -> tuple[str, ...]:
    identity = (d.target, d.scenario or "", d.metric)
    if d.reason:
        return (*identity, "", "", "", "", "", "", "worse" if d.regressed else "n/a", message(d.reason))
    return (
        *identity,
        _format_value(d, d.a),
        _format_value(d, d.b),
        _format_change(d, d.change),
        "" if d.low is None else f"{_format_change(d, d.low)} to {_format_change(d, d.high)}",
        "" if d.p_holm is None else _format_p(d.p_holm),
        _format_limit(d),
        _outcome(d),
        _format_detail(d),
    )


def _outcome(d: Difference) -> str:
    if d.regressed:
        return "worse"
    if d.significant and d.regression < 0:
        return "better"
    if d.threshold is None:
        return ""
    return "no worse"


def _format_value(d: Difference, value: float | None) -> str:
    if value is None or math.isinf(value):
        return "endless"
    return percent(value) if d.metric in FRACTION_METRICS else METRIC_UNITS.get(d.metric, ms)(value)


def _format_change(d: Difference, change: float | None) -> str:
    if change is None or math.isinf(change):
        return "endless"
    return f"{change * 100:+.2f} pp" if d.metric in FRACTION_METRICS else f"{change:+.1%}"


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _format_limit(d: Difference) -> str:
    if d.threshold is None:
        return ""
    limit = -d.threshold if d.metric == "accuracy" else d.threshold
    return f"{limit * 100:+g} pp" if d.metric in FRACTION_METRICS else f"{limit * 100:+g}%"


def _format_detail(d: Difference) -> str:
    """What the metric is made of."""
    details = d.details
    if d.metric == "accuracy":
        only_a, only_b = count(details["only_a_correct"]), count(details["only_b_correct"])
        return f"only A right {only_a}, only B {only_b}, of {count(d.n_a)} images"
    if d.metric == "failed":
        return f"{count(details['failed_a'])} of {count(d.n_a)}, {count(details['failed_b'])} of {count(d.n_b)}"
    if d.metric == "cost":
        by_price, by_speed = _signed_usd(details["price_effect_usd"]), _signed_usd(details["speed_effect_usd"])
        net_a, net_b = usd(details["net_a_usd"]), usd(details["net_b_usd"])
        return f"by price {by_price}, by speed {by_speed}; after free allowances {net_a}, {net_b}"
    if d.metric == "max_rate":
        return "in the search for the highest rate"
    blocks_a, blocks_b = count(details["blocks_a"]), count(details["blocks_b"])
    return f"n {count(d.n_a)} and {count(d.n_b)} in {blocks_a} and {blocks_b} blocks"


def _signed_usd(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{usd(abs(value))}"


def _describe_regression(d: Difference) -> str:
    figure_text = f"{d.target}'s {d.metric}{f' ({d.scenario})' if d.scenario else ''}"
    if d.reason:
        return f"{d.target} was {message(d.reason)}"
    return (
        f"{figure_text} {_format_value(d, d.a)} to {_format_value(d, d.b)}, {_format_change(d, d.change)} "
        f"(limit {_format_limit(d)})"
    )
