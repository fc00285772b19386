"""Hold the price list against its sources, show the difference, and write a new dated list where that is asked for.

An amount is taken from a source only when the source is of the shape it is known by and states one price for it. What
cannot be read, or is not understood, is said in one line, and its entries stay as they are.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import math
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import yaml

from eval.cost.price_list import PRICES, SUPERSEDED, Price, Prices, plain, read_prices
from eval.cost.price_sources import SOURCES, Quote, Reading, Source
from eval.errors import PriceError, SourceError
from eval.formatting import listing
from eval.samples.store import writing

LARGE = 0.5  # a change by more than this share is not believed without --accept-large-changes
TIMEOUT_S = 60.0  # without a byte
MOST_BYTES, LONGEST_LINE = 4 * 2**30, 2**20  # of a source; the largest has some hundred MB
COLUMNS = ("id", "listed", "found", "change", "source")

ENTRY = re.compile(r"\s*- id:\s*(\S+)")
KEY = re.compile(r"(\s+)(amount|source|date|confirmed|note):")
LIST_DATE = re.compile(r"^date:\s*\S+", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """An entry of the list beside what a source says of it."""

    price: Price  # as it is listed
    quote: Quote
    refused: bool  # too large a change to be believed

    @property
    def same(self) -> bool:
        return math.isclose(self.price.amount, self.quote.amount, rel_tol=1e-9)

    @property
    def share(self) -> float:
        """By which the price has grown."""
        return self.quote.amount / self.price.amount - 1 if self.price.amount else math.inf


@dataclass(frozen=True)
class Refreshed:
    """What came of it."""

    changes: tuple[Change, ...]  # one for each entry that a source speaks of, in the list's order
    notes: tuple[str, ...]  # what was not read, not understood, or contradicts
    written: Path | None  # where the list before it is now; None: nothing was written

    @property
    def refused(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.refused)


def refresh(
    path: Path = PRICES,
    sources: Sequence[Source] = SOURCES,
    *,
    write: bool = False,
    accept_large: bool = False,
    day: date | None = None,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], None] = print,
) -> Refreshed:
    """Read the sources, say the difference, and with `write` put a new list in the place of the old.

    The old list moves to the folder of superseded ones. Raises PriceError when no source could be read, or when the
    list cannot be read or written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PriceError(f"the price list cannot be read: {error}") from None
    prices, day = read_prices(data, path), day or datetime.now(UTC).date()
    readings, notes = _readings(sources, prices, environment, say)
    if not readings:
        raise PriceError("; ".join(["no source could be read", *notes]))
    quotes, contradictions = _first_quotes(readings)
    changes = tuple(_change(p, quotes[p.id], accept_large) for p in prices.entries if p.id in quotes)
    untold = [p.id for p in prices.entries if p.id not in quotes]
    notes += contradictions + ([f"no source speaks of {listing(untold)}; they stay as they are"] if untold else [])
    say(table(changes))
    for note in notes:
        say(note)
    kept = _write(path, data, prices, changes, day) if write else None
    say(_conclusion(changes, kept, write, path))
    return Refreshed(changes, tuple(notes), kept)


def _readings(
    sources: Sequence[Source], prices: Prices, environment: Mapping[str, str], say: Callable[[str], None]
) -> tuple[dict[str, Reading], list[str]]:
    """What each source says that could be read, and a line for each other."""
    readings, notes = {}, []
    for source in sources:
        key = environment.get(source.key) if source.key else None
        if source.key and not key:
            notes.append(f"{source.name}: not read, it wants a key: set {source.key}")
            continue
        say(f"reading {source.name}: {source.url}")
        try:
            readings[source.name] = source.read(_lines(source.url, key), prices.entries)
        except (SourceError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
            notes.append(f"{source.name}: not understood: {_one_line(error)}")
        except (OSError, http.client.HTTPException) as error:
            notes.append(f"{source.name}: cannot be read: {_one_line(error)}")
    return readings, notes + [f"{name}: {note}" for name, reading in readings.items() for note in reading.notes]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A price list that has moved is looked at by a person first; and a key goes to nobody else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl) -> None:
        return None


def _lines(url: str, key: str | None) -> Iterator[str]:
    """The lines of what is at an address, as they come."""
    headers = {"User-Agent": "cloudtrial", **({"X-Goog-Api-Key": key} if key else {})}
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as answer:
        taken = 0
        while line := answer.readline(LONGEST_LINE):
            taken += len(line)
            if len(line) == LONGEST_LINE or taken > MOST_BYTES:
                raise SourceError("it is longer than any price list")
            yield line.decode()
        if answer.length:
            raise SourceError(f"it ended {answer.length} bytes early")


def _first_quotes(readings: Mapping[str, Reading]) -> tuple[dict[str, Quote], list[str]]:
    """For each entry the quote of the first source that has one, and where a later one contradicts it."""
    quotes: dict[str, Quote] = {}
    notes = []
    for name, reading in readings.items():
        for quote in reading.quotes:
            first = quotes.setdefault(quote.price_id, quote)
            if not math.isclose(first.amount, quote.amount, rel_tol=1e-9):
                notes.append(
                    f"{name}: {quote.price_id} is {plain(quote.amount)}, not {plain(first.amount)} as in {first.source}"
                )
    return quotes, notes


def _change(price: Price, quote: Quote, accept_large: bool) -> Change:
    change = Change(price, quote, refused=False)
    return replace(change, refused=abs(change.share) > LARGE and not accept_large)


def table(changes: Iterable[Change]) -> str:
    """The difference as text, one entry a line."""
    rows = [COLUMNS, *(_row(change) for change in changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(change: Change) -> tuple[str, ...]:
    grown = "" if math.isinf(change.share) else f"{change.share:+.1%}"
    word = "as listed" if change.same else f"{grown} refused".strip() if change.refused else grown
    listed, found = plain(change.price.amount), plain(change.quote.amount)
    return change.price.id, listed, found, word, change.quote.source


def _conclusion(changes: Sequence[Change], kept: Path | None, write: bool, path: Path) -> str:
    changed = sum(not c.same and not c.refused for c in changes)
    same = sum(c.same for c in changes)
    refused = sum(c.refused for c in changes)
    line = f"{same} as listed, {changed} changed"
    if refused:
        line += f", {refused} refused as changes of more than {LARGE:.0%}: look at them, then --accept-large-changes"
    if kept:
        return f"{line}; {path} is written, the list before it is {kept}"
    return f"{line}; nothing was written" + ("" if write else ": --write does")


def rewritten(text: str, changes: Iterable[Change], day: date) -> str:
    """The list with the changes in it, everything else, comments too, as it was."""
    by_id = {change.price.id: _facts(change, day) for change in changes if not change.refused}
    lines, facts = [], {}
    for line in text.splitlines(keepends=True):
        if entry := ENTRY.match(line):
            facts = by_id.get(entry[1], {})
        elif (key := KEY.match(line)) and key[2] in facts:
            line = f"{key[1]}{key[2]}: {facts[key[2]]}\n"
        lines.append(line)
    return LIST_DATE.sub(f"date: {day}", "".join(lines), count=1)


def _facts(change: Change, day: date) -> dict[str, str]:
    """Key of an entry -> its new value as YAML. The note tells what stood there before a source took its place."""
    updated = _updated(change, day)
    return {
        "amount": plain(updated.amount),
        "source": _scalar(updated.source),
        "date": str(day),
        "confirmed": "true",
        "note": _scalar(updated.note),
    }


def _updated(change: Change, day: date) -> Price:
    price, quote = change.price, change.quote
    note = price.note
    if price.source.split(", published")[0] != quote.source.split(", published")[0]:
        note = f"before: {plain(price.amount)}, {price.source}, {price.date}" + (f"; {note}" if note else "")
    return replace(price, amount=quote.amount, source=quote.source, date=day, confirmed=True, note=note)


def _scalar(text: str) -> str:
    return yaml.safe_dump([text], width=math.inf, allow_unicode=True)[2:].rstrip("\n")


def _write(path: Path, data: bytes, prices: Prices, changes: Sequence[Change], day: date) -> Path | None:
    """Put the new list in the old one's place. Gives where the old one is kept, or None when nothing is new."""
    taken = [change for change in changes if not change.refused]
    if not taken:
        return None
    new = rewritten(data.decode(), taken, day).encode()
    updates = {change.price.id: _updated(change, day) for change in taken}
    expected = replace(prices, date=day, entries=tuple(updates.get(p.id, p) for p in prices.entries))
    if replace(read_prices(new, path), sha256="") != replace(expected, sha256=""):
        raise PriceError(f"{path} is not laid out one key a line, an entry's id first; nothing was written")
    if new == data:
        return None
    folder = path.with_name(SUPERSEDED)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        kept = folder / f"{prices.date}.yaml"
        if kept.exists() and kept.read_bytes() != data:
            kept = folder / f"{prices.date}-{hashlib.sha256(data).hexdigest()[:8]}.yaml"
        _put(kept, data)
        _put(path, new)
    return kept


def _put(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _one_line(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return " ".join(str(error.reason).split())
    if isinstance(error, LookupError):
        return f"it has no {error}"
    return " ".join(str(error).split()) or type(error).__name__
