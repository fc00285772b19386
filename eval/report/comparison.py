"""A comparison of two runs as text, Markdown or JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from eval.analysis.run_comparison import BY_SPEED, Difference, Limits, Side
from eval.formatting import count, listing, moment, ms, per_second, percent, plural, sentence, usd
from eval.samples.processors import client_of

COMPARE_SCHEMA_VERSION = 1
COLUMNS = ("target", "scenario", "figure", "A", "B", "change", "95% interval", "p", "limit", "judgement", "detail")
SHARES = ("failed", "accuracy")  # whose change is in percentage points
UNITS = {"cost": usd, "max_rate": per_second}


@dataclass(frozen=True)
class Comparison:
    """All that is said of two runs."""

    a: Side
    b: Side
    limits: Limits
    unlike: list[str]  # for which it was forced
    notes: list[str]
    differences: list[Difference]

    @property
    def worse(self) -> list[Difference]:
        return [d for d in self.differences if d.worse]


def verdict(it: Comparison) -> str:
    """One sentence for someone who reads no other."""
    judged = [d for d in it.differences if d.limit is not None and d.reason is None]
    if it.worse:
        said = f"B is worse than A: {'; '.join(map(_told, it.worse))}"
    elif judged:
        said = f"B is no worse than A: of {plural(len(judged), 'figure')} none is beyond its limit and more than chance"
    else:
        said = "whether B is worse than A cannot be told"
    untold = [d for d in it.differences if d.limit is not None and d.reason]
    if untold:
        names = listing(sorted({f"{d.figure} of {d.target}" for d in untold}))
        said += f"; not judged: {names}"
    if any(d.figure in BY_SPEED and d.limit is None for d in it.differences):
        said += f"; {' and '.join(BY_SPEED)} of twins not judged, as the processors differ"
    if it.unlike:
        said += "; but the runs are unlike"
    return sentence(said)


def text(it: Comparison) -> str:
    """For a terminal: an aligned table and the sentence."""
    rows = [COLUMNS, *(_row(d) for d in it.differences)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*_head(it), "", *table, "", *_foot(it), "", verdict(it)])


def markdown(it: Comparison) -> str:
    """For a pull request's comment: the sentence and the table."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(_row(d) for d in it.differences)]
    table = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    return "\n".join([f"**{_escaped(verdict(it))}**", "", *(f"- {_escaped(line)}" for line in _head(it)), "", *table,
                      "", *(f"- {_escaped(line)}" for line in _foot(it))])  # fmt: skip


def to_json(it: Comparison) -> str:
    """For programs. What is endless is null, with `endless` naming it."""
    limits = asdict(it.limits)
    return json.dumps(
        {
            "schema_version": COMPARE_SCHEMA_VERSION,
            "a": _side(it.a),
            "b": _side(it.b),
            "unlike": it.unlike,
            "notes": it.notes,
            "limits": {name: limits[name] for name in limits if name not in ("seed", "replicates")},
            "bootstrap": {"replicates": it.limits.replicates, "seed": it.limits.seed},
            "differences": [_facts(d) for d in it.differences],
            "worse": bool(it.worse),
            "verdict": verdict(it),
        },
        indent=1,
        allow_nan=False,
    )


WRITERS = {"text": text, "markdown": markdown, "json": to_json}


def _side(side: Side) -> dict[str, Any]:
    return {"folder": side.folder, "id": side.run.id, "started_at": side.run.started_at,
            "prices_sha256": side.prices.sha256, "processor": asdict(client_of(side.run))}  # fmt: skip


def _facts(d: Difference) -> dict[str, Any]:
    facts = asdict(d) | {"significant": d.significant}
    endless = [name for name, value in facts.items() if isinstance(value, float) and math.isinf(value)]
    return facts | {name: None for name in endless} | ({"endless": endless} if endless else {})


def _head(it: Comparison) -> list[str]:
    return [
        *(f"{letter}: {side.folder}, run {side.run.id} of {moment(side.run.started_at)}, on "
          f"{client_of(side.run).with_cores}"
          for letter, side in (("A", it.a), ("B", it.b))),
        *(f"unlike: {line}" for line in it.unlike),
        *it.notes,
    ]  # fmt: skip


def _foot(it: Comparison) -> list[str]:
    units = sorted({d.detail["drawn"] for d in it.differences if "drawn" in d.detail})
    ways = f", of whole {units[0]}" if units == ["blocks"] else f", of {listing(units)}" if units else ""
    return [
        "latency counts failures as endless; p is adjusted for all targets and scenarios (Holm); a change is worse "
        "when it is beyond its limit and p is below 0.05",
        f"intervals: percentile bootstrap, {count(it.limits.replicates)} draws, seed {it.limits.seed}{ways}",
        f"cost: dollars a month by list price at {count(it.limits.requests_per_month)} requests a month; by price: A's "
        "work at B's prices less A's bill, by speed: the rest",
    ]


def _row(d: Difference) -> tuple[str, ...]:
    head = (d.target, d.scenario or "", d.figure)
    if d.reason:
        return (*head, "", "", "", "", "", "", "worse" if d.worse else "n/a", d.reason)
    return (
        *head, _value(d, d.a), _value(d, d.b), _change(d, d.change),
        "" if d.low is None else f"{_change(d, d.low)} to {_change(d, d.high)}",
        "" if d.p_holm is None else _p(d.p_holm), _limit(d), _judgement(d), _detail(d),
    )  # fmt: skip


def _judgement(d: Difference) -> str:
    if d.worse:
        return "worse"
    if d.significant and d.loss < 0:
        return "better"
    if d.limit is None:
        return ""
    return "no worse"


def _value(d: Difference, value: float | None) -> str:
    if value is None or math.isinf(value):
        return "endless"
    return percent(value) if d.figure in SHARES else UNITS.get(d.figure, ms)(value)


def _change(d: Difference, change: float | None) -> str:
    if change is None or math.isinf(change):
        return "endless"
    return f"{change * 100:+.2f} pp" if d.figure in SHARES else f"{change:+.1%}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _limit(d: Difference) -> str:
    if d.limit is None:
        return ""
    bad = -d.limit if d.figure == "accuracy" else d.limit
    return f"{bad * 100:+g} pp" if d.figure in SHARES else f"{bad * 100:+g}%"


def _detail(d: Difference) -> str:
    """What the figure stands on."""
    if d.figure == "accuracy":
        only = f"only A right {count(d.detail['only_a_right'])}, only B {count(d.detail['only_b_right'])}"
        return f"{only}, of {count(d.n_a)} images"
    if d.figure == "failed":
        return f"{count(d.detail['failed_a'])} of {count(d.n_a)}, {count(d.detail['failed_b'])} of {count(d.n_b)}"
    if d.figure == "cost":
        net = f"after free allowances {usd(d.detail['net_a'])}, {usd(d.detail['net_b'])}"
        return f"by price {_signed(d.detail['by_price'])}, by speed {_signed(d.detail['by_speed'])}; {net}"
    if d.figure == "max_rate":
        return "in the search for the highest rate"
    return (
        f"n {count(d.n_a)} and {count(d.n_b)} in {count(d.detail['blocks_a'])} and {count(d.detail['blocks_b'])} blocks"
    )


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{usd(abs(value))}"


def _told(d: Difference) -> str:
    where = f"{d.target}'s {d.figure}{f' ({d.scenario})' if d.scenario else ''}"
    if d.reason:
        return f"{d.target} was {d.reason}"
    return f"{where} {_value(d, d.a)} to {_value(d, d.b)}, {_change(d, d.change)} (limit {_limit(d)})"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
