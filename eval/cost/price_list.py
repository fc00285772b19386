"""The dated price list, eval/cost/prices.yaml: read, checked, looked up, printed.

A list that was superseded stays in eval/cost/prices/, so that the report of an older run is priced as the run was.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from eval.errors import PriceError

PRICES = Path(__file__).with_name("prices.yaml")
SUPERSEDED = "prices"  # folder beside the list, of the lists before it
STALE_DAYS = 180  # from then on a price is taken with a warning
CURRENCY = "USD"
KINDS = {"id": str, "amount": (int, float), "unit": str, "region": str, "source": str, "date": date, "confirmed": bool,
         "note": str}  # fmt: skip
COLUMNS = ("id", "amount", "unit", "region", "date", "confirmed", "source")


@dataclass(frozen=True)
class Price:
    """One price, or one free allowance."""

    id: str
    amount: float  # dollars per unit; of an allowance, units per month
    unit: str
    currency: str | None  # None: an allowance
    region: str
    source: str  # address, or the document in words
    date: date  # when the source stated it, or else when it was read
    confirmed: bool  # False: from memory or inferred
    note: str

    def age_days(self, day: date) -> int:
        return (day - self.date).days


@dataclass(frozen=True)
class Prices:
    """The whole list."""

    date: date  # when it was put together
    sha256: str  # of the file
    entries: tuple[Price, ...]  # in the file's order

    def get(self, price_id: str, region: str) -> Price:
        """The entry with that id. Raises PriceError when there is none for the region."""
        found = next((price for price in self.entries if price.id == price_id), None)
        if found is None:
            raise PriceError(f"there is no price {price_id!r}; add it to {PRICES.name} with its source and date")
        if found.region != region:
            raise PriceError(
                f"price {price_id!r} is for {found.region}, not {region}; add that region to {PRICES.name}"
            )
        return found


def load_prices(path: Path = PRICES, sha256: str | None = None) -> Prices:
    """Read and check the list. Raises PriceError that says which entry is wrong and how.

    With `sha256`, the one of that checksum: this list or one that it superseded. Where there is none such, the list
    itself; its own checksum then tells.
    """
    try:
        data = path.read_bytes()
        if sha256 is not None:
            path, data = _of_checksum(path, data, sha256)
    except OSError as error:
        raise PriceError(f"the price list cannot be read: {error}") from None
    return read_prices(data, path)


def _of_checksum(path: Path, data: bytes, sha256: str) -> tuple[Path, bytes]:
    for other in [path, *sorted(path.with_name(SUPERSEDED).glob("*.yaml"))]:
        found = data if other == path else other.read_bytes()
        if hashlib.sha256(found).hexdigest() == sha256:
            return other, found
    return path, data


def read_prices(data: bytes, path: Path) -> Prices:
    """The list that these bytes are. `path` is named in errors. Raises PriceError."""
    try:
        facts = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError) as error:
        raise PriceError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(facts, dict) or set(facts) != {"date", "prices", "allowances"}:
        raise PriceError(f"{path} must have the keys date, prices and allowances, and no other")
    if not _is(facts["date"], date):
        raise PriceError(f"{path}: date is {facts['date']!r}; write it as 2026-11-20")
    entries = [_entry(path, "prices", n, entry) for n, entry in _numbered(path, facts, "prices")]
    entries += [_entry(path, "allowances", n, entry) for n, entry in _numbered(path, facts, "allowances")]
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise PriceError(f"{path}: the id {entry.id!r} is there twice; keep one")
        seen.add(entry.id)
    return Prices(facts["date"], hashlib.sha256(data).hexdigest(), tuple(entries))


def stale(prices: Iterable[Price], day: date) -> list[Price]:
    """Those that are too old on that day, the oldest first."""
    return sorted((p for p in prices if p.age_days(day) > STALE_DAYS), key=lambda price: (price.date, price.id))


def unconfirmed(prices: Iterable[Price]) -> list[Price]:
    """Those that no source has confirmed, by id: from memory or inferred, and so is every figure made of them."""
    return sorted((p for p in prices if not p.confirmed), key=lambda price: price.id)


def table(prices: Prices) -> str:
    """The list as text, one entry a line, with what holds for all below."""
    rows = [COLUMNS, *(_row(price) for price in prices.entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    unsure = len(unconfirmed(prices.entries))
    last = f"{len(prices.entries)} entries, {unsure} not confirmed; put together {prices.date}"
    return "\n".join([*lines, "", last, f"sha256 {prices.sha256}"])


def _row(price: Price) -> tuple[str, ...]:
    return (
        price.id,
        f"${plain(price.amount)}" if price.currency else f"{plain(price.amount)} free",
        price.unit,
        price.region,
        price.date.isoformat(),
        "yes" if price.confirmed else "no",
        price.source,
    )


def plain(amount: float) -> str:
    """All its digits, and none besides: "0.0000025", "7"."""
    return f"{amount:.12f}".rstrip("0").rstrip(".")


def _numbered(path: Path, facts: Mapping[str, Any], section: str) -> Iterable[tuple[int, Any]]:
    if not isinstance(facts[section], list):
        raise PriceError(f"{path}: {section} must be a list")
    return enumerate(facts[section], 1)


def _entry(path: Path, section: str, number: int, facts: Any) -> Price:
    """One checked entry. Raises PriceError naming it, the key, and what would be right."""
    kinds = KINDS | ({"currency": str} if section == "prices" else {})
    name = facts.get("id", f"number {number}") if isinstance(facts, dict) else f"number {number}"
    where = f"{path}: {section}, {name}"
    if not isinstance(facts, dict):
        raise PriceError(f"{where}: {facts!r} is not a set of keys; write {', '.join(kinds)}")
    if missing := [key for key in kinds if key not in facts]:
        raise PriceError(f"{where}: {', '.join(missing)} is missing")
    if unknown := [str(key) for key in facts if key not in kinds]:
        raise PriceError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(kinds)}")
    for key, kind in kinds.items():
        if not _is(facts[key], kind):
            raise PriceError(f"{where}: {key} is {facts[key]!r}; write {_in_words(kind)}")
    if not (math.isfinite(facts["amount"]) and facts["amount"] >= 0):
        raise PriceError(f"{where}: amount is {facts['amount']}; write a number that is not negative")
    if facts.get("currency", CURRENCY) != CURRENCY:
        raise PriceError(f"{where}: currency is {facts['currency']!r}; prices are in {CURRENCY}")
    if not facts["source"].strip():
        raise PriceError(f"{where}: source is empty; every price says where it is from")
    return Price(**{"currency": None, **facts, "amount": float(facts["amount"])})


def _is(value: Any, kind: Any) -> bool:
    """Of that type exactly: True is no number, and a time is no date."""
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))


def _in_words(kind: Any) -> str:
    return {str: "text", bool: "true or false", date: "a date, as 2026-11-20"}.get(kind, "a number, as 0.0208")
