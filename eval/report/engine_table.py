"""The table that compares two engines: a row for each figure, a cell for each target that has both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.cost.billing import REQUESTS_PER_MONTH
from eval.formatting import (
    NOT_AVAILABLE,
    interval_of,
    megabytes,
    mib,
    ms,
    per_second,
    percent,
    percentage_points,
    plural,
    ratio,
    reason_of,
    usd,
    value_of,
)
from eval.report.scenario_sections import SHORT_TITLES
from eval.report.wording import non_inferiority_text
from service.engines.names import PLAIN_ENGINE, engine_title

BILL_MONTHLY_REQUESTS = str(REQUESTS_PER_MONTH)  # requests a month at which the bills are shown
PRICED_RATES = ("10", "100")  # requests a second at which they are
START_DESCRIPTIONS = {
    "time_to_first_prediction": "start command to first correct prediction, p50",
    "idle": "first request after a gap, p50",
    "forced": "first request after a forced start, p50",
    "ready": "process to ready, once",
    None: "",
}

PairReport = Mapping[str, Any]  # one of report.json's `engine_comparisons`


@dataclass(frozen=True)
class EngineCell:
    """A figure of one target with either engine."""

    value: str  # "9.20 ms → 1.90 ms"
    note: str  # what that comes to, or why there is no figure


@dataclass(frozen=True)
class EngineRow:
    """One figure of all targets."""

    title: str
    subtitle: str  # in small print
    cells: list[EngineCell]

    @property
    def is_same_for_all(self) -> bool:
        return len(self.cells) > 1 and len(set(self.cells)) == 1


def group_titles(names: Sequence[str], target_reports: Mapping[str, Any]) -> list[str]:
    """How targets are called together: all that run one engine by the engine, where there are several."""
    engines = {name: target_report["engine"] or PLAIN_ENGINE for name, target_report in target_reports.items()}
    group_engines = {engines[name] for name in names}
    if len(group_engines) == 1 < len(names) < len(target_reports) and set(names) == {
        other_name for other_name, other_engine in engines.items() if other_engine in group_engines
    }:
        return [f"all with {engine_title(*group_engines)}"]
    return [target_reports[name]["title"] for name in names]


def split_break_evens(summary: Mapping[str, Any]) -> tuple[list[PairReport], list[PairReport]]:
    """The points where two targets cost the same: those of one engine, or of one target; and all others."""
    engines = {name: target_report["engine"] or PLAIN_ENGINE for name, target_report in summary["targets"].items()}
    partners = [{pair["a"], pair["b"]} for pair in summary["engine_comparisons"]]
    points = summary["break_even"]
    same_engine = [p for p in points if engines[p["a"]] == engines[p["b"]] or {p["a"], p["b"]} in partners]
    return same_engine, [point for point in points if point not in same_engine]


def engines_compared(comparisons: Sequence[PairReport]) -> str:
    """As "PyTorch vs ONNX int8"."""
    pairs = dict.fromkeys((pair["engines"]["a"], pair["engines"]["b"]) for pair in comparisons)
    return ", ".join(f"{engine_title(a)} vs {engine_title(b)}" for a, b in pairs)


def engine_rows(pairs: Sequence[PairReport]) -> list[EngineRow]:
    """The rows of the table that have a figure; empty where no target has two engines."""
    if not pairs:
        return []
    scenario_text = ", ".join(
        dict.fromkeys(SHORT_TITLES[pair["scenario"]].lower() for pair in pairs if pair["scenario"])
    )
    start_text = ", ".join(dict.fromkeys(START_DESCRIPTIONS[pair["startup_ms"]["metric"]] for pair in pairs))
    rows = [
        EngineRow(
            f"Latency {percentile}", scenario_text, [_latency_cell(pair["latency_ms"][percentile]) for pair in pairs]
        )
        for percentile in ("p50", "p95")
    ]
    if any(pair["max_rate_rps"] for pair in pairs):
        rate_pairs = [pair["max_rate_rps"] or {"a": None, "b": None} for pair in pairs]
        rows.append(EngineRow("Highest rate", "within the objective", [_rate_cell(pair) for pair in rate_pairs]))
    rows += [
        *[
            EngineRow(
                "$ per million",
                f"at {rate}/s in the mean, list price",
                [_cost_cell(pair["per_million"][rate], "gross_usd") for pair in pairs],
            )
            for rate in PRICED_RATES
        ],
        EngineRow(
            "$ a month",
            "at 1M requests, after the free tier",
            [_cost_cell(pair["monthly_usd"][BILL_MONTHLY_REQUESTS], "net_usd") for pair in pairs],
        ),
        EngineRow("Start", start_text, [_pair_cell(pair["startup_ms"], ms) for pair in pairs]),
        EngineRow("Shipped", "service and model", [_size_cell(pair, "files_bytes") for pair in pairs]),
        EngineRow(
            "Libraries",
            "of its requirements, as installed here",
            [_size_cell(pair, "installed_bytes") for pair in pairs],
        ),
        EngineRow("Memory", "peak", [_pair_cell(pair["memory_mib"], mib) for pair in pairs]),
        EngineRow(
            "Accuracy",
            "on the same images; McNemar’s p after Holm",
            [_accuracy_cell(pair["accuracy"]) for pair in pairs],
        ),
        EngineRow("Same label", "on the same image", [_agreement_cell(pair["agreement"]) for pair in pairs]),
    ]
    return [row for row in rows if any(cell.value != NOT_AVAILABLE for cell in row.cells)]


def _pair_cell(pair: PairReport, formatter: Callable[[float], str], note: str | None = None) -> EngineCell:
    """Both values, and by how much the second is more or less."""
    a, b = value_of(pair["a"]), value_of(pair["b"])
    if a is None and b is None:
        return EngineCell(NOT_AVAILABLE, reason_of(pair["a"]))
    value = " → ".join(NOT_AVAILABLE if side_value is None else formatter(side_value) for side_value in (a, b))
    if a is None or b is None:
        return EngineCell(value, reason_of(pair["a"]) or reason_of(pair["b"]))
    return EngineCell(value, _change_text(a, b) if note is None else note)


def _change_text(a: float, b: float) -> str:
    relative_change = b / a - 1 if a else None
    if a == b or (relative_change and abs(relative_change) < 0.0005):
        return "the same"
    return (
        ""
        if relative_change is None
        else f"{relative_change:+.0%}"
        if abs(relative_change) >= 0.1
        else f"{relative_change:+.1%}"
    )


def _latency_cell(pair: PairReport) -> EngineCell:
    speedup = pair["speedup"]
    if value_of(speedup) is None:
        return _pair_cell(pair, ms)
    interval = interval_of(speedup, ratio)
    return _pair_cell(pair, ms, f"{ratio(speedup['value'])} as fast{f' ({interval})' if interval else ''}")


def _rate_cell(pair: PairReport) -> EngineCell:
    a, b = value_of(pair["a"]), value_of(pair["b"])
    return _pair_cell(pair, per_second, ratio(b / a) if a and b and a != b else None)


def _cost_cell(pair: PairReport, key: str) -> EngineCell:
    """Where the number of instances differs, that is the difference: a step, of which a percentage says nothing."""
    instances = [pair[side].get("instances") for side in "ab"]
    note = None if instances[0] == instances[1] else f"{instances[0]} → {plural(instances[1] or 0, 'instance')}"
    a, b = (value_of(pair[side][key]) for side in "ab")
    if note is None and a is not None and b is not None and usd(a) == usd(b):
        note = "the same"  # a fraction of a cent
    return _pair_cell({side: pair[side][key] for side in "ab"}, usd, note)


def _size_cell(pair: PairReport, key: str) -> EngineCell:
    return _pair_cell({side: pair["artifact_size"][side][key] for side in "ab"}, megabytes)


def _accuracy_cell(pair: PairReport) -> EngineCell:
    change, p_holm = pair["difference"], value_of((pair["mcnemar"] or {}).get("p_holm"))
    if value_of(change) is None:
        return _pair_cell(pair, percent)
    interval = interval_of(change, percentage_points)
    note = (
        percentage_points(change["value"])
        + (f" ({interval})" if interval else "")
        + (f", p {p_holm:.2g}" if p_holm is not None else "")
        + f"; {non_inferiority_text(pair['decision'], pair['margin'])}"
    )
    return _pair_cell(pair, percent, note)


def _agreement_cell(agreement: PairReport) -> EngineCell:
    fraction = agreement.get("fraction")
    if fraction is None or value_of(fraction) is None:
        return EngineCell(NOT_AVAILABLE, reason_of(fraction or agreement))
    return EngineCell(
        percent(fraction["value"]), f"{agreement['disagreements']:,} of {plural(agreement['n'], 'image')} differ"
    )
