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

from eval.cost.price_list import PRICE_LIST_PATH, SUPERSEDED_DIR, Price, PriceList, format_amount, parse_price_list
from eval.cost.price_sources import SOURCES, Quote, Source, SourceQuotes
from eval.errors import PriceError, SourceError
from eval.formatting import join_words
from eval.samples.store import os_errors_as_eval_error

LARGE_CHANGE = 0.5  # a change by more than this share is not believed without --accept-large-changes
READ_TIMEOUT_S = 60.0  # without a byte
MAX_SOURCE_BYTES, MAX_LINE_BYTES = 4 * 2**30, 2**20  # of a source; the largest has some hundred MB
TABLE_COLUMNS = ("id", "listed", "found", "change", "source")

ENTRY_LINE = re.compile(r"\s*- id:\s*(\S+)")
FIELD_LINE = re.compile(r"(\s+)(amount|source|date|confirmed|note):")
LIST_DATE_LINE = re.compile(r"^date:\s*\S+", re.MULTILINE)


@dataclass(frozen=True)
class PriceChange:
    """An entry of the list beside what a source says of it."""

    price: Price  # as it is listed
    quote: Quote
    rejected: bool  # too large a change to be believed

    @property
    def unchanged(self) -> bool:
        return math.isclose(self.price.amount, self.quote.amount, rel_tol=1e-9)

    @property
    def relative_change(self) -> float:
        """By which the price has grown."""
        return self.quote.amount / self.price.amount - 1 if self.price.amount else math.inf


@dataclass(frozen=True)
class RefreshResult:
    """What came of it."""

    changes: tuple[PriceChange, ...]  # one for each entry that a source speaks of, in the list's order
    notes: tuple[str, ...]  # what was not read, not understood, or contradicts
    archived_path: Path | None  # where the list before it is now; None: nothing was written

    @property
    def rejected(self) -> tuple[PriceChange, ...]:
        return tuple(change for change in self.changes if change.rejected)


def refresh(
    path: Path = PRICE_LIST_PATH,
    sources: Sequence[Source] = SOURCES,
    *,
    write: bool = False,
    accept_large: bool = False,
    today: date | None = None,
    environment: Mapping[str, str] = os.environ,
    write_line: Callable[[str], None] = print,
) -> RefreshResult:
    """Read the sources, say the difference, and with `write` put a new list in the place of the old.

    The old list moves to the folder of superseded ones. Raises PriceError when no source could be read, or when the
    list cannot be read or written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PriceError(f"the price list cannot be read: {error}") from None
    prices, today = parse_price_list(data, path), today or datetime.now(UTC).date()
    quotes_by_source, notes = _read_sources(sources, prices, environment, write_line)
    if not quotes_by_source:
        raise PriceError("; ".join(["no source could be read", *notes]))
    quotes, contradictions = _preferred_quotes(quotes_by_source)
    changes = tuple(
        _price_change(price, quotes[price.id], accept_large) for price in prices.entries if price.id in quotes
    )
    unquoted_ids = [price.id for price in prices.entries if price.id not in quotes]
    notes += contradictions + (
        [f"no source speaks of {join_words(unquoted_ids)}; they stay as they are"] if unquoted_ids else []
    )
    write_line(format_changes(changes))
    for note in notes:
        write_line(note)
    archived_path = _write_price_list(path, data, prices, changes, today) if write else None
    write_line(_summary_line(changes, archived_path, write, path))
    return RefreshResult(changes, tuple(notes), archived_path)


def _read_sources(
    sources: Sequence[Source], prices: PriceList, environment: Mapping[str, str], write_line: Callable[[str], None]
) -> tuple[dict[str, SourceQuotes], list[str]]:
    """What each source says that could be read, and a line for each other."""
    quotes_by_source, notes = {}, []
    for source in sources:
        api_key = environment.get(source.api_key_variable) if source.api_key_variable else None
        if source.api_key_variable and not api_key:
            notes.append(f"{source.name}: not read, it wants a key: set {source.api_key_variable}")
            continue
        write_line(f"reading {source.name}: {source.url}")
        try:
            quotes_by_source[source.name] = source.parse(_fetch_lines(source.url, api_key), prices.entries)
        except (SourceError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
            notes.append(f"{source.name}: not understood: {_error_text(error)}")
        except (OSError, http.client.HTTPException) as error:
            notes.append(f"{source.name}: cannot be read: {_error_text(error)}")
    return quotes_by_source, notes + [
        f"{name}: {note}" for name, source_quotes in quotes_by_source.items() for note in source_quotes.notes
    ]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A price list that has moved is looked at by a person first; and a key goes to nobody else."""

    def redirect_request(self, req, fp, code, msg, headers, newurl) -> None:
        return None


def _fetch_lines(url: str, api_key: str | None) -> Iterator[str]:
    """The lines of what is at an address, as they come."""
    headers = {"User-Agent": "cloudtrial", **({"X-Goog-Api-Key": api_key} if api_key else {})}
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=READ_TIMEOUT_S) as response:
        bytes_read = 0
        while line := response.readline(MAX_LINE_BYTES):
            bytes_read += len(line)
            if len(line) == MAX_LINE_BYTES or bytes_read > MAX_SOURCE_BYTES:
                raise SourceError("it is longer than any price list")
            yield line.decode()
        if response.length:
            raise SourceError(f"it ended {response.length} bytes early")


def _preferred_quotes(quotes_by_source: Mapping[str, SourceQuotes]) -> tuple[dict[str, Quote], list[str]]:
    """For each entry the quote of the first source that has one, and where a later one contradicts it."""
    quotes: dict[str, Quote] = {}
    notes = []
    for name, source_quotes in quotes_by_source.items():
        for quote in source_quotes.quotes:
            preferred = quotes.setdefault(quote.price_id, quote)
            if not math.isclose(preferred.amount, quote.amount, rel_tol=1e-9):
                notes.append(
                    f"{name}: {quote.price_id} is {format_amount(quote.amount)}, not "
                    f"{format_amount(preferred.amount)} as in {preferred.source}"
                )
    return quotes, notes


def _price_change(price: Price, quote: Quote, accept_large: bool) -> PriceChange:
    change = PriceChange(price, quote, rejected=False)
    return replace(change, rejected=abs(change.relative_change) > LARGE_CHANGE and not accept_large)


def format_changes(changes: Iterable[PriceChange]) -> str:
    """The difference as text, one entry a line."""
    rows = [TABLE_COLUMNS, *(_table_row(change) for change in changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _table_row(change: PriceChange) -> tuple[str, ...]:
    change_text = "" if math.isinf(change.relative_change) else f"{change.relative_change:+.1%}"
    status = "as listed" if change.unchanged else f"{change_text} refused".strip() if change.rejected else change_text
    listed_amount, quoted_amount = format_amount(change.price.amount), format_amount(change.quote.amount)
    return change.price.id, listed_amount, quoted_amount, status, change.quote.source


def _summary_line(changes: Sequence[PriceChange], archived_path: Path | None, write: bool, path: Path) -> str:
    changed = sum(not change.unchanged and not change.rejected for change in changes)
    unchanged = sum(change.unchanged for change in changes)
    rejected = sum(change.rejected for change in changes)
    line = f"{unchanged} as listed, {changed} changed"
    if rejected:
        line += (
            f", {rejected} refused as changes of more than {LARGE_CHANGE:.0%}: look at them, then "
            "--accept-large-changes"
        )
    if archived_path:
        return f"{line}; {path} is written, the list before it is {archived_path}"
    return f"{line}; nothing was written" + ("" if write else ": --write does")


def update_yaml(text: str, changes: Iterable[PriceChange], today: date) -> str:
    """The list with the changes in it, everything else, comments too, as it was."""
    fields_by_id = {change.price.id: _updated_fields(change, today) for change in changes if not change.rejected}
    lines, fields = [], {}
    for line in text.splitlines(keepends=True):
        if entry := ENTRY_LINE.match(line):
            fields = fields_by_id.get(entry[1], {})
        elif (key := FIELD_LINE.match(line)) and key[2] in fields:
            line = f"{key[1]}{key[2]}: {fields[key[2]]}\n"
        lines.append(line)
    return LIST_DATE_LINE.sub(f"date: {today}", "".join(lines), count=1)


def _updated_fields(change: PriceChange, today: date) -> dict[str, str]:
    """Key of an entry -> its new value as YAML. The note tells what stood there before a source took its place."""
    price = _updated_price(change, today)
    return {
        "amount": format_amount(price.amount),
        "source": _yaml_scalar(price.source),
        "date": str(today),
        "confirmed": "true",
        "note": _yaml_scalar(price.note),
    }


def _updated_price(change: PriceChange, today: date) -> Price:
    price, quote = change.price, change.quote
    note = price.note
    if price.source.split(", published")[0] != quote.source.split(", published")[0]:
        note = f"before: {format_amount(price.amount)}, {price.source}, {price.date}" + (f"; {note}" if note else "")
    return replace(price, amount=quote.amount, source=quote.source, date=today, confirmed=True, note=note)


def _yaml_scalar(text: str) -> str:
    return yaml.safe_dump([text], width=math.inf, allow_unicode=True)[2:].rstrip("\n")


def _write_price_list(
    path: Path, data: bytes, prices: PriceList, changes: Sequence[PriceChange], today: date
) -> Path | None:
    """Put the new list in the old one's place. Gives where the old one is kept, or None when nothing is new."""
    accepted = [change for change in changes if not change.rejected]
    if not accepted:
        return None
    new_data = update_yaml(data.decode(), accepted, today).encode()
    updates = {change.price.id: _updated_price(change, today) for change in accepted}
    expected = replace(prices, date=today, entries=tuple(updates.get(price.id, price) for price in prices.entries))
    if replace(parse_price_list(new_data, path), sha256="") != replace(expected, sha256=""):
        raise PriceError(f"{path} is not laid out one key a line, an entry's id first; nothing was written")
    if new_data == data:
        return None
    folder = path.with_name(SUPERSEDED_DIR)
    with os_errors_as_eval_error(folder):
        folder.mkdir(exist_ok=True)
        archived_path = folder / f"{prices.date}.yaml"
        if archived_path.exists() and archived_path.read_bytes() != data:
            archived_path = folder / f"{prices.date}-{hashlib.sha256(data).hexdigest()[:8]}.yaml"
        _write_atomically(archived_path, data)
        _write_atomically(path, new_data)
    return archived_path


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _error_text(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return " ".join(str(error.reason).split())
    if isinstance(error, LookupError):
        return f"it has no {error}"
    return " ".join(str(error).split()) or type(error).__name__
