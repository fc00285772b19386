"""The dated price list, eval/cost/prices.yaml: read, checked, looked up, printed.

Keep each earlier list in eval/cost/prices/: the report of an older run is then priced as the run was.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from eval.errors import PriceError

PRICE_LIST_PATH = Path(__file__).with_name("prices.yaml")
ARCHIVE_DIR = "prices"  # folder of the earlier lists, beside the list
STALE_AFTER_DAYS = 180  # a run warns of prices that are older
CURRENCY = "USD"
FIELD_TYPES = {
    "id": str,
    "amount": (int, float),
    "unit": str,
    "region": str,
    "source": str,
    "date": date,
    "confirmed": bool,
    "note": str,
}
TABLE_COLUMNS = ("id", "amount", "unit", "region", "date", "confirmed", "source")


@dataclass(frozen=True)
class Price:
    """One price, or one free allowance."""

    id: str
    amount: float  # dollars per unit; of an allowance, units per month
    unit: str
    currency: str | None  # None: an allowance
    region: str
    source: str  # URL, or the name of the document
    date: date  # when the source stated it, or else when it was read
    confirmed: bool  # False: from memory or inferred
    note: str

    @property
    def key(self) -> tuple[str, str]:
        """What a list has once: a price has an entry for each region."""
        return self.id, self.region

    def age_days(self, on_date: date) -> int:
        return (on_date - self.date).days


@dataclass(frozen=True)
class PriceList:
    """The whole list."""

    date: date  # when it was put together
    sha256: str  # of the file
    entries: tuple[Price, ...]  # in the file's order

    def get(self, price_id: str, region: str) -> Price:
        """The entry with that id and region. Raises PriceError if there is none."""
        by_region = {price.region: price for price in self.entries if price.id == price_id}
        if region in by_region:
            return by_region[region]
        what = f"there is no price {price_id!r}"
        if by_region:
            what = f"price {price_id!r} is for {', '.join(by_region)}, not {region}"
        raise PriceError(f"{what}; add an entry with that id and region {region} to {PRICE_LIST_PATH.name}")


def load_price_list(path: Path = PRICE_LIST_PATH, sha256: str | None = None) -> PriceList:
    """Read and check the list. Raises PriceError that says which entry is invalid and why.

    With `sha256`, the list with that checksum: this one, or an earlier one with the entries of this one that it lacks.
    If there is none, this list; its own checksum then shows the difference.
    """
    try:
        prices = parse_price_list(path.read_bytes(), path)
        earlier = None if sha256 in (None, prices.sha256) else _earlier_list(path, sha256)
    except OSError as error:
        raise PriceError(f"the price list cannot be read: {error}") from None
    if earlier is None:
        return prices
    known = {price.key for price in earlier.entries}
    return replace(earlier, entries=(*earlier.entries, *(p for p in prices.entries if p.key not in known)))


def _earlier_list(path: Path, sha256: str | None) -> PriceList | None:
    for candidate in sorted(path.with_name(ARCHIVE_DIR).glob("*.yaml")):
        data = candidate.read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            return parse_price_list(data, candidate)
    return None


def parse_price_list(data: bytes, path: Path) -> PriceList:
    """Parse the list. Raises PriceError, which names `path`."""
    import yaml  # here, as every command's help needs a constant of this package and no price

    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError) as error:
        raise PriceError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or set(document) != {"date", "prices", "allowances"}:
        raise PriceError(f"{path} must have the keys date, prices and allowances, and no other")
    if not _has_exact_type(document["date"], date):
        raise PriceError(f"{path}: date is {document['date']!r}; write it as 2026-11-20")
    entries = [
        _parse_entry(path, "prices", number, entry) for number, entry in _numbered_entries(path, document, "prices")
    ]
    entries += [
        _parse_entry(path, "allowances", number, entry)
        for number, entry in _numbered_entries(path, document, "allowances")
    ]
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        if entry.key in seen:
            raise PriceError(f"{path}: the id {entry.id!r} is there twice for {entry.region}; keep one")
        seen.add(entry.key)
    return PriceList(document["date"], hashlib.sha256(data).hexdigest(), tuple(entries))


def stale_prices(prices: Iterable[Price], on_date: date) -> list[Price]:
    """The prices that are stale on that day, oldest first."""
    return sorted(
        (p for p in prices if p.age_days(on_date) > STALE_AFTER_DAYS), key=lambda price: (price.date, price.id)
    )


def unconfirmed_prices(prices: Iterable[Price]) -> list[Price]:
    """The prices that no source has confirmed, sorted by id. Every figure computed from them is unconfirmed too."""
    return sorted((p for p in prices if not p.confirmed), key=lambda price: price.id)


def format_table(prices: PriceList) -> str:
    """The list as text, one entry a line, with a summary at the end."""
    rows = [TABLE_COLUMNS, *(_table_row(price) for price in prices.entries)]
    unconfirmed_count = len(unconfirmed_prices(prices.entries))
    footer = f"{len(prices.entries)} entries, {unconfirmed_count} not confirmed; put together {prices.date}"
    return "\n".join([*table_lines(rows), "", footer, f"sha256 {prices.sha256}"])


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _table_row(price: Price) -> tuple[str, ...]:
    return (
        price.id,
        f"${format_amount(price.amount)}" if price.currency else f"{format_amount(price.amount)} free",
        price.unit,
        price.region,
        price.date.isoformat(),
        "yes" if price.confirmed else "no",
        price.source,
    )


def format_amount(amount: float) -> str:
    """All digits, without exponent or trailing zeros: "0.0000025", "7"."""
    return f"{amount:.12f}".rstrip("0").rstrip(".")


def _numbered_entries(path: Path, document: Mapping[str, Any], section: str) -> Iterable[tuple[int, Any]]:
    if not isinstance(document[section], list):
        raise PriceError(f"{path}: {section} must be a list")
    return enumerate(document[section], 1)


def _parse_entry(path: Path, section: str, number: int, fields: Any) -> Price:
    """One checked entry. Raises PriceError that names the entry, the key and what is expected."""
    field_types = FIELD_TYPES | ({"currency": str} if section == "prices" else {})
    name = fields.get("id", f"number {number}") if isinstance(fields, dict) else f"number {number}"
    location = f"{path}: {section}, {name}"
    if not isinstance(fields, dict):
        raise PriceError(f"{location}: {fields!r} is not a set of keys; write {', '.join(field_types)}")
    if missing := [key for key in field_types if key not in fields]:
        raise PriceError(f"{location}: {', '.join(missing)} is missing")
    if unknown := [str(key) for key in fields if key not in field_types]:
        raise PriceError(f"{location}: unknown key {', '.join(unknown)}; known are {', '.join(field_types)}")
    for key, expected_type in field_types.items():
        if not _has_exact_type(fields[key], expected_type):
            raise PriceError(f"{location}: {key} is {fields[key]!r}; write {_describe_type(expected_type)}")
    if not (math.isfinite(fields["amount"]) and fields["amount"] >= 0):
        raise PriceError(f"{location}: amount is {fields['amount']}; write a number that is not negative")
    if fields.get("currency", CURRENCY) != CURRENCY:
        raise PriceError(f"{location}: currency is {fields['currency']!r}; prices are in {CURRENCY}")
    if not fields["source"].strip():
        raise PriceError(f"{location}: source is empty; say where the price is from")
    return Price(**{"currency": None, **fields, "amount": float(fields["amount"])})


def _has_exact_type(value: Any, expected_type: Any) -> bool:
    """Exact types: bool does not count as a number, nor datetime as a date."""
    return type(value) in (expected_type if isinstance(expected_type, tuple) else (expected_type,))


def _describe_type(expected_type: Any) -> str:
    return {str: "text", bool: "true or false", date: "a date, as 2026-11-20"}.get(expected_type, "a number, as 0.0208")
