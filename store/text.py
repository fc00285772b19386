"""What ./cloudtrial store prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from service.store_layout import AliasRecord
from store.records import Version

MAX_CLASSES = 10  # that are named


def printable(text: str) -> str:
    """The text on one line, without what would steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def version_json(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "pushed_at": version.pushed_at.isoformat(),
        "size_bytes": version.size_bytes,
        "files": dict(version.files),
    }


def listing(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each version."""
    return _table(
        ("MODEL", "VERSION", "PUSHED (UTC)", "SIZE", "ALIASES"),
        [
            (
                row["name"],
                row["version"],
                _minute(row["pushed_at"]),
                _size(row["size_bytes"]),
                ", ".join(row["aliases"]),
            )
            for row in rows
        ],
    )


def history_table(records: Sequence[AliasRecord]) -> str:
    """A line for each move."""
    return _table(
        ("NUMBER", "VERSION", "WHEN (UTC)", "WHO", "REASON"),
        [(str(each.number), each.version, _minute(each.created_at), each.created_by, each.reason) for each in records],
    )


def record_line(record: AliasRecord) -> str:
    before = f", before it {record.previous}" if record.previous else ""
    return f"version {record.version} (record {record.number}{before})"


def manifest_text(version: Version, manifest: Mapping[str, Any], aliases: Mapping[str, AliasRecord]) -> str:
    """What a version is, from its model.json, which a push has checked."""
    rows = [
        ("version", str(version)),
        ("pushed", f"{_minute(version.pushed_at.isoformat())} UTC"),
        ("aliases", ", ".join(f"{name} since {_minute(each.created_at)}" for name, each in aliases.items()) or "none"),
        ("classes", _classes(manifest.get("classes", []))),
        ("input", _input(manifest.get("input", {}))),
        ("accuracy", _accuracy(manifest.get("metrics"))),
        *(
            (f"engine {name}", f"{each.get('precision')}, {each.get('file')}")
            for name, each in manifest.get("engines", {}).items()
        ),
        ("licence", str(manifest.get("licence", "not said"))),
        ("origin", str(manifest.get("origin", "not said"))),
        *((f"file {name}", _size(size_bytes)) for name, size_bytes in sorted(version.files.items())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{printable(name):<{width}}  {printable(text)}" for name, text in rows)


def _classes(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > MAX_CLASSES else ""
    return f"{len(names)}: {', '.join(names[:MAX_CLASSES])}{more}"


def _input(values: Mapping[str, Any]) -> str:
    if values.get("kind") == "tabular":
        return f"rows of {len(values.get('features', []))} numbers"
    return f"images, {values.get('size_px')} px"


def _accuracy(metrics: Any) -> str:
    """Nothing checks `metrics`: they are for people, and whoever wrote the bundle may have written anything there."""
    values = metrics.get("test") if isinstance(metrics, dict) else None
    if not isinstance(values, dict) or not isinstance(values.get("accuracy"), float | int):
        return "not said"
    low, high = values.get("low"), values.get("high")
    is_known = isinstance(low, float | int) and isinstance(high, float | int)
    interval = f" ({low:.1%} to {high:.1%})" if is_known else ""
    return f"{values['accuracy']:.1%}{interval} on {values.get('n', 'some')}: {values.get('data', 'not said of what')}"


def _minute(timestamp: str) -> str:
    return f"{datetime.fromisoformat(timestamp):%Y-%m-%d %H:%M}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
