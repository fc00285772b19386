"""What the report says of the switch of engines: a row for each figure, a cell for each target that has both."""

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
    plural,
    points,
    reason_of,
    times,
    usd,
    value_of,
)
from infra.local.names import PLAIN_ENGINE, engine_title

MONTH = str(REQUESTS_PER_MONTH)  # requests a month at which the bills are shown
RATES = ("10", "100")  # requests a second at which they are
STARTS = {
    "create": "start command to first correct prediction, p50",
    "natural": "first request after a gap, p50",
    "forced": "first request after a forced start, p50",
    "ready": "process to ready, once",
    None: "",
}

Entry = Mapping[str, Any]  # one of report.json's `engines`


@dataclass(frozen=True)
class Cell:
    """A figure of one target before and after the switch."""

    value: str  # "9.20 ms → 1.90 ms"
    note: str  # what that comes to, or why there is no figure


@dataclass(frozen=True)
class Row:
    """One figure of all targets."""

    title: str
    about: str  # in small print
    cells: list[Cell]


def titles_of(names: Sequence[str], targets: Mapping[str, Any]) -> list[str]:
    """How targets are called together: all that run one engine by the engine, where there are several."""
    engines = {name: facts["engine"] or PLAIN_ENGINE for name, facts in targets.items()}
    of = {engines[name] for name in names}
    if len(of) == 1 < len(names) < len(targets) and set(names) == {n for n, engine in engines.items() if engine in of}:
        return [f"all with {engine_title(*of)}"]
    return [targets[name]["title"] for name in names]


def break_evens(summary: Mapping[str, Any]) -> tuple[list[Entry], list[Entry]]:
    """The points where two targets cost the same: those of one engine, or of one target; and all others."""
    engines = {name: facts["engine"] or PLAIN_ENGINE for name, facts in summary["targets"].items()}
    partners = [{one["a"], one["b"]} for one in summary["engines"]]
    points = summary["break_even"]
    near = [p for p in points if engines[p["a"]] == engines[p["b"]] or {p["a"], p["b"]} in partners]
    return near, [point for point in points if point not in near]


def headline(engines: Sequence[Entry]) -> str:
    """From what to what."""
    switches = dict.fromkeys((one["engines"]["a"], one["engines"]["b"]) for one in engines)
    return ", ".join(f"{engine_title(a)} to {engine_title(b)}" for a, b in switches)


def switch_rows(engines: Sequence[Entry]) -> list[Row]:
    """The table of "What the engine is worth"; none where no target was asked with two engines."""
    if not engines:
        return []
    scenarios = ", ".join(dict.fromkeys(one["scenario"] for one in engines if one["scenario"]))
    starts = ", ".join(dict.fromkeys(STARTS[one["start_ms"]["of"]] for one in engines))
    rows = [
        Row(f"Latency {p}", scenarios, [_latency(one["latency_ms"][p]) for one in engines]) for p in ("p50", "p95")
    ]  # fmt: skip
    if any(one["max_rate_rps"] for one in engines):
        rates = [one["max_rate_rps"] or {"a": None, "b": None} for one in engines]
        rows.append(Row("Highest rate", "within the objective", [_rate(one) for one in rates]))
    return [
        *rows,
        *[Row("$ per million", f"at {rate}/s, list price", _per_million(engines, rate)) for rate in RATES],
        Row("$ a month", "at 1M requests, after the free tier", [_bill(one["monthly_usd"][MONTH]) for one in engines]),
        Row("Start", starts, [_pair(one["start_ms"], ms) for one in engines]),
        Row("Shipped", "service and model", [_size(one, "files_bytes") for one in engines]),
        Row("Libraries", "of its requirements, as installed here", [_size(one, "installed_bytes") for one in engines]),
        Row("Memory", "peak", [_pair(one["memory_mib"], mib) for one in engines]),
        Row("Accuracy", "McNemar’s test, after Holm", [_accuracy(one["accuracy"]) for one in engines]),
        Row("Same label", "on the same picture", [_alike(one["parity"]) for one in engines]),
    ]


def _pair(both: Entry, unit: Callable[[float], str], note: str | None = None) -> Cell:
    """Both values, and by how much the second is more or less."""
    a, b = value_of(both["a"]), value_of(both["b"])
    if a is None and b is None:
        return Cell(NOT_AVAILABLE, reason_of(both["a"]))
    value = " → ".join(NOT_AVAILABLE if one is None else unit(one) for one in (a, b))
    if a is None or b is None:
        return Cell(value, reason_of(both["a"]) or reason_of(both["b"]))
    return Cell(value, _change(a, b) if note is None else note)


def _change(a: float, b: float) -> str:
    share = b / a - 1 if a else None
    if a == b or (share and abs(share) < 0.0005):
        return "the same"
    return "" if share is None else f"{share:+.0%}" if abs(share) >= 0.1 else f"{share:+.1%}"


def _latency(both: Entry) -> Cell:
    factor = both["times_as_fast"]
    if value_of(factor) is None:
        return _pair(both, ms)
    interval = interval_of(factor, times)
    return _pair(both, ms, f"{times(factor['value'])} as fast{f' ({interval})' if interval else ''}")


def _rate(both: Entry) -> Cell:
    a, b = value_of(both["a"]), value_of(both["b"])
    return _pair(both, per_second, times(b / a) if a and b and a != b else None)


def _per_million(engines: Sequence[Entry], rate: str) -> list[Cell]:
    return [_pair(one["usd_per_million"][rate], usd) for one in engines]


def _bill(both: Entry) -> Cell:
    return _pair({side: both[side]["net"] for side in "ab"}, usd)


def _size(one: Entry, key: str) -> Cell:
    return _pair({side: one["shipped"][side][key] for side in "ab"}, megabytes)


def _accuracy(both: Entry) -> Cell:
    change, p = both["difference"], value_of(both["mcnemar"]["p_holm"])
    if value_of(change) is None:
        return _pair(both, percent)
    interval = interval_of(change, points)
    note = points(change["value"]) + (f" ({interval})" if interval else "") + (f", p {p:.2g}" if p is not None else "")
    return _pair(both, percent, note)


def _alike(parity: Entry) -> Cell:
    agreement = parity.get("agreement")
    if agreement is None or value_of(agreement) is None:
        return Cell(NOT_AVAILABLE, reason_of(agreement or parity))
    return Cell(percent(agreement["value"]), f"{parity['disagreements']:,} of {plural(parity['n'], 'picture')} differ")
