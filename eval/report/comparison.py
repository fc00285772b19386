"""A comparison of two runs as text, Markdown or JSON."""

from __future__ import annotations

import itertools
import json
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eval.analysis.findings import Finding
from eval.analysis.predictions.mcnemar import NON_INFERIORITY_MARGIN
from eval.analysis.run_comparison import PROCESSOR_DEPENDENT, Difference, RunData, Thresholds
from eval.formatting import as_sentence, count, join_words, ms, per_second, percent, plural, timestamp, usd
from eval.report.markdown import escape_markdown
from eval.report.report_json import to_jsonable
from eval.report.wording import message
from eval.samples.processors import client_processor
from eval.stats.comparison import EQUIVALENCE_MARGIN, Decision

COMPARE_SCHEMA_VERSION = 3  # 3: own, machine, reference; no bootstrap
TEXT_WIDTH = 80  # columns of a terminal
TEXT_COLUMNS = ("figure", "A", "B", "machine", "change", "judgement")
MARKDOWN_COLUMNS = (
    "target",
    "scenario",
    "figure",
    "A",
    "B",
    "machine",
    "change",
    "95% interval",
    "p",
    "limit",
    "judgement",
    "detail",
)
NOT_JUDGED, YARDSTICK = "not judged", "yardstick"
CHANGED = ("worse", "better", "different")
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
    machine: list[Finding]  # what the machine did
    differences: list[Difference]
    pairs: Mapping[str, str]  # target of run A -> that of run B, where it is called otherwise
    show_all: bool = False

    @property
    def regressions(self) -> list[Difference]:
        return [d for d in self.differences if d.regressed]

    @property
    def shown(self) -> list[Difference]:
        return [d for d in self.differences if self.show_all or _has_changed(d)]

    def label(self, target: str) -> str:
        """Its name, or both of them."""
        return f"{target} -> {self.pairs[target]}" if self.pairs.get(target, target) != target else target


def verdict(comparison: Comparison) -> str:
    """One sentence for someone who reads no other."""
    evaluated = [d for d in comparison.differences if d.threshold is not None and d.p is not None]
    improved = [d for d in comparison.differences if d.improved]
    if comparison.regressions:
        text = f"B is worse than A: {'; '.join(_describe(comparison, d) for d in comparison.regressions)}"
    elif evaluated:
        text = (
            f"B is not shown to be worse than A: of {plural(len(evaluated), 'figure')} none is worse by more than its "
            "limit and more than chance"
        )
    else:
        text = "whether B is worse than A cannot be told"
    if improved:
        text += f"; better: {'; '.join(_describe(comparison, d) for d in improved)}"
    unlimited = [d for d in comparison.differences if d.threshold is None and d.metric == "p50" and d.significant]
    if unlimited:
        text += f"; different, and without a limit: {'; '.join(_describe(comparison, d) for d in unlimited)}"
    unevaluated = [d for d in comparison.differences if d.threshold is not None and d.p is None]
    if unevaluated:
        names = join_words(sorted({f"{d.metric} of {comparison.label(d.target)}" for d in unevaluated}))
        text += f"; not judged: {names}"
    if any(d.metric in PROCESSOR_DEPENDENT and d.threshold is None for d in comparison.differences):
        text += f"; {' and '.join(PROCESSOR_DEPENDENT)} of twins not judged, as the processors differ"
    if comparison.incompatibilities:
        text += "; but the runs are unlike"
    return as_sentence(text)


def to_text(comparison: Comparison) -> str:
    """For a terminal of 80 columns: what changed, target by target, and the sentence."""
    paragraphs = [
        _wrapped(_header_lines(comparison)),
        _text_table(comparison),
        _wrapped([as_sentence(line) for line in _count_lines(comparison)]),
        _wrapped(_explanations(comparison) if comparison.show_all else []),
        _wrapped([as_sentence(message(finding)) for finding in comparison.machine]),
        _wrapped([verdict(comparison)]),
    ]
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def to_markdown(comparison: Comparison) -> str:
    """For a pull request's comment: the sentence and the table of what changed."""
    rows = [_markdown_row(comparison, d) for d in comparison.shown]
    table = [MARKDOWN_COLUMNS, ["---"] * len(MARKDOWN_COLUMNS), *rows] if rows else []
    lines = [*_header_lines(comparison), *map(message, comparison.machine)]
    remarks = [*_count_lines(comparison), *_explanations(comparison)]
    return "\n".join(
        [
            f"**{escape_markdown(verdict(comparison))}**",
            "",
            *(f"- {escape_markdown(line)}" for line in lines),
            "",
            *("| " + " | ".join(escape_markdown(cell) for cell in row) + " |" for row in table),
            "",
            *(f"- {escape_markdown(line)}" for line in remarks),
        ]
    )


def to_json(comparison: Comparison) -> str:
    """For programs. What is infinite is null, and named in `infinite`."""
    return json.dumps(
        {
            "schema_version": COMPARE_SCHEMA_VERSION,
            "a": _run_to_json(comparison.a),
            "b": _run_to_json(comparison.b),
            "incompatibilities": to_jsonable(comparison.incompatibilities),
            "notices": to_jsonable(comparison.notices),
            "machine": to_jsonable(comparison.machine),
            "pairs": dict(comparison.pairs),
            "thresholds": asdict(comparison.thresholds),
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
    fields = to_jsonable(d) | {"significant": d.significant, "judgement": _judgement(d)}
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


def _count_lines(comparison: Comparison) -> list[str]:
    """How many figures are not shown, and what is said of them."""
    hidden = [d for d in comparison.differences if not (comparison.show_all or _has_changed(d))]
    if not hidden:
        return []
    judgements = Counter(map(_judgement, hidden))
    counts = ", ".join(f"{count(number)} {judgement}" for judgement, number in judgements.most_common())
    return [f"no change is shown in {plural(len(hidden), 'figure')}: {counts}; --all lists them"]


def _explanations(comparison: Comparison) -> list[str]:
    requests = count(comparison.thresholds.requests_per_month)
    return [
        "machine: the change that all targets share, which is that of the yardstick, the target in the middle; change: "
        "what is beyond it, with its 95% interval from the blocks of both runs, and from the instances where a run has "
        "several",
        "latency counts failures as endless; p is adjusted for all that is judged (Holm); a change is worse, or "
        "better, when it is beyond its limit and p is below 0.05, and different when p alone is",
        f"equivalent: the interval lies within {EQUIVALENCE_MARGIN:.0%}, of accuracy within "
        f"{NON_INFERIORITY_MARGIN * 100:g} point",
        f"cost: dollars a month by list price at {requests} requests a month; by price: A's work at B's prices less "
        "A's bill; start-up times, and how a measured highest rate follows from the work, are A's",
    ]


def _has_changed(d: Difference) -> bool:
    """What a reader wants to see: also failures beyond their limit, and latencies that the machine may have changed."""
    return (
        _judgement(d) in CHANGED
        or d.metric == "measured"
        or (d.metric == "failed" and d.threshold is not None and d.regression > d.threshold)
        or (d.machine is None and d.p is None and d.decision == Decision.DIFFERENT)
    )


def _wrapped(lines: Iterable[str], indent: str = "   ") -> list[str]:
    """Each within the width, whatever it holds."""
    return [part for line in lines for part in textwrap.wrap(line, TEXT_WIDTH, subsequent_indent=indent) or [""]]


def _text_table(comparison: Comparison) -> list[str]:
    """The target's name on a line of its own, as it may be long, and under each figure what it stands on."""
    shown = comparison.shown
    cells = {id(d): _text_row(d) for d in shown}
    widths = [max(map(len, column)) for column in zip(TEXT_COLUMNS, *cells.values(), strict=True)]

    def aligned(row: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:5], widths[1:5], strict=True))
        return "  ".join(["  " + row[0].ljust(widths[0]), *numbers, row[5]]).rstrip()

    lines = [aligned(TEXT_COLUMNS)] if shown else []
    for target, differences in itertools.groupby(shown, key=lambda d: d.target):
        lines.append(comparison.label(target))
        for d in differences:
            lines.append(aligned(cells[id(d)]))
            lines += [f"    {detail}" for detail in _wrapped_detail(d)]
    return [part for line in lines for part in (_wrapped([line]) if len(line) > TEXT_WIDTH else [line])]


def _wrapped_detail(d: Difference) -> list[str]:
    return textwrap.wrap("; ".join(filter(None, (_format_test(d), _format_detail(d)))), TEXT_WIDTH - 4)


def _text_row(d: Difference) -> tuple[str, ...]:
    return (f"{d.metric} {d.scenario or ''}".strip(), *_figures(d), _judgement(d))


def _figures(d: Difference) -> tuple[str, str, str, str]:
    """A, B, the machine's change and the target's."""
    if d.a is None and d.change is None:
        return "", "", "", ""
    own = d.own if d.own is not None else d.change
    machine = "" if d.machine is None else _format_change(d, d.machine)
    return _format_value(d, d.a), _format_value(d, d.b), machine, _change_text(d, own)


def _markdown_row(comparison: Comparison, d: Difference) -> tuple[str, ...]:
    return (
        comparison.label(d.target),
        d.scenario or "",
        d.metric,
        *_figures(d),
        _format_interval(d),
        "" if d.p_holm is None else _format_p(d.p_holm),
        _format_limit(d),
        _judgement(d),
        _format_detail(d),
    )


def _judgement(d: Difference) -> str:
    if d.regressed:
        return "worse"
    if d.target == d.reference and d.metric != "cost":
        return YARDSTICK
    if d.reason or d.p is None:
        return NOT_JUDGED
    if d.improved:
        return "better"
    if d.significant:
        return str(Decision.DIFFERENT)
    return str(Decision.EQUIVALENT) if d.decision == Decision.EQUIVALENT else "not decided"


def _format_test(d: Difference) -> str:
    """The interval, the p-value and the limit."""
    return ", ".join(
        filter(
            None,
            (
                (interval := _format_interval(d)) and f"95% interval {interval}",
                "" if d.p_holm is None else f"p {_format_p(d.p_holm)}",
                (limit := _format_limit(d)) and f"limit {limit}",
            ),
        )
    )


def _format_interval(d: Difference) -> str:
    in_steps = d.details.get("instances_a") != d.details.get("instances_b")
    return "" if d.low is None or in_steps else f"{_format_change(d, d.low)} to {_format_change(d, d.high)}"


def _format_value(d: Difference, value: float | None) -> str:
    if value is None or math.isinf(value):
        return "endless"
    return percent(value) if d.metric in FRACTION_METRICS else METRIC_UNITS.get(d.metric, ms)(value)


def _format_change(d: Difference, change: float | None) -> str:
    if change is None or math.isinf(change):
        return "endless"
    return f"{change * 100:+.2f} pp" if d.metric in FRACTION_METRICS else f"{change:+.1%}"


def _change_text(d: Difference, change: float | None) -> str:
    """Where a bill's instances differ, that is the change: a step, of which a percentage says nothing."""
    a, b = d.details.get("instances_a"), d.details.get("instances_b")
    return _format_change(d, change) if a == b else f"{a} → {plural(b or 0, 'instance')}"


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _format_limit(d: Difference) -> str:
    if d.threshold is None:
        return ""
    limit = -d.threshold if d.metric == "accuracy" else d.threshold
    return f"{limit * 100:+g} pp" if d.metric in FRACTION_METRICS else f"{limit * 100:+g}%"


def _format_detail(d: Difference) -> str:
    """What the metric is made of, and why it is not judged."""
    why, details = message(d.reason) if d.reason else "", d.details
    if d.metric == "accuracy" and details:
        only_a, only_b = count(details["only_a_correct"]), count(details["only_b_correct"])
        return f"only A right {only_a}, only B {only_b}, of {count(d.n_a)} images"
    if d.metric == "failed" and details:
        parts = (
            f"{count(details[f'failed_{run}'])} of {count(n)} in {plural(details[f'failing_blocks_{run}'], 'block')}"
            for run, n in (("a", d.n_a), ("b", d.n_b))
        )
        return "; ".join(filter(None, (*parts, why)))
    if d.metric == "cost" and details:
        effects = ", ".join(
            f"by {cause} {_signed_usd(details[f'{cause}_effect_usd'])}" for cause in ("price", "machine", "speed")
        )
        net_a, net_b = usd(details["net_a_usd"]), usd(details["net_b_usd"])
        return "; ".join(filter(None, (f"{effects}; after free allowances {net_a}, {net_b}", why)))
    if d.metric == "max_rate" and not why:
        return "in the search for the highest rate"
    if "blocks_a" in details and not why:
        blocks_a, blocks_b = count(details["blocks_a"]), count(details["blocks_b"])
        return f"n {count(d.n_a)} and {count(d.n_b)} in {blocks_a} and {blocks_b} blocks"
    return why


def _signed_usd(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{usd(abs(value))}"


def _describe(comparison: Comparison, d: Difference) -> str:
    target = comparison.label(d.target)
    if d.metric == "measured" and d.reason:
        return f"{target} was {message(d.reason)}"
    figure_text = f"{target}'s {d.metric}{f' ({d.scenario})' if d.scenario else ''}"
    beyond = " beyond the machine's" if abs(d.machine or 0.0) >= 0.001 else ""
    limit = f" (limit {_format_limit(d)})" if d.threshold is not None else ""
    return f"{figure_text} {_format_value(d, d.a)} to {_format_value(d, d.b)}, {_change_text(d, d.own)}{beyond}{limit}"
