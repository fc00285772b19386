"""Compare the price list with its sources and print what differs, with the YAML of each changed entry to paste.

Nothing is written: a person looks at each change first. An amount is taken from a source only when the source has the
expected format and states one price for it; what cannot be read or parsed is reported in one line.
"""

from __future__ import annotations

import csv
import http.client
import math
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import yaml

from eval.cost.price_list import (
    ARCHIVE_DIR,
    PRICE_LIST_PATH,
    STALE_AFTER_DAYS,
    Price,
    PriceList,
    format_amount,
    load_price_list,
    table_lines,
)
from eval.cost.price_sources import SOURCE_REGIONS, SOURCES, Quote, Source, SourceQuotes
from eval.errors import PriceError, SourceError
from eval.formatting import join_words

READ_TIMEOUT_S = 60.0  # without a byte
MAX_SOURCE_BYTES, MAX_LINE_BYTES = 4 * 2**30, 2**20  # the largest source has some hundred MB
TABLE_COLUMNS = ("id", "listed", "found", "change", "source")


@dataclass(frozen=True)
class PriceCheck:
    """An entry of the list beside the price that a source states."""

    price: Price  # as it is listed
    quote: Quote
    checked_on: date

    @property
    def unchanged(self) -> bool:
        return math.isclose(self.price.amount, self.quote.amount, rel_tol=1e-9)

    @property
    def needs_update(self) -> bool:
        """Whether the amount differs, or the entry is unconfirmed or stale, which this quote mends."""
        stale = self.price.age_days(self.checked_on) > STALE_AFTER_DAYS
        return not self.unchanged or not self.price.confirmed or stale

    @property
    def updated_price(self) -> Price:
        """The entry as the source states it. Its note keeps the amount of any other source before it."""
        price, note = self.price, self.price.note
        if price.source.split(", published")[0] != self.quote.source.split(", published")[0]:
            before = f"before: {format_amount(price.amount)}, {price.source}, {price.date}"
            note = f"{before}; {note}" if note else before
        return replace(
            price, amount=self.quote.amount, source=self.quote.source, date=self.checked_on, confirmed=True, note=note
        )


@dataclass(frozen=True)
class RefreshResult:
    """All that the sources state of the list's entries."""

    checks: tuple[PriceCheck, ...]  # one for each entry that a source has, in the list's order
    notes: tuple[str, ...]  # what was not read, not parsed, or contradicts

    @property
    def updates(self) -> tuple[PriceCheck, ...]:
        return tuple(check for check in self.checks if check.needs_update)


def refresh(
    path: Path = PRICE_LIST_PATH,
    sources: Sequence[Source] = SOURCES,
    *,
    today: date | None = None,
    environment: Mapping[str, str] = os.environ,
    write_line: Callable[[str], None] = print,
) -> RefreshResult:
    """Read the sources and print the difference. Raises PriceError if the list or every source cannot be read."""
    prices, today = load_price_list(path), today or datetime.now(UTC).date()
    entries = [price for price in prices.entries if price.region in SOURCE_REGIONS]
    quotes_by_source, notes = _read_sources(sources, entries, environment, write_line)
    if not quotes_by_source:
        raise PriceError("; ".join(["no source could be read", *notes]))
    quotes, contradictions = _preferred_quotes(quotes_by_source)
    checks = tuple(PriceCheck(price, quotes[price.id], today) for price in entries if price.id in quotes)
    if unquoted_ids := [price.id for price in prices.entries if price not in entries or price.id not in quotes]:
        contradictions.append(f"no source has {join_words(unquoted_ids, all_words=True)}")
    result = RefreshResult(checks, (*notes, *contradictions))
    for line in (format_table(checks), *result.notes, *_update_lines(result, prices, path)):
        write_line(line)
    return result


def _read_sources(
    sources: Sequence[Source],
    entries: Sequence[Price],
    environment: Mapping[str, str],
    write_line: Callable[[str], None],
) -> tuple[dict[str, SourceQuotes], list[str]]:
    """The quotes of each source that could be read, and a note for each other."""
    quotes_by_source, notes = {}, []
    for source in sources:
        api_key = environment.get(source.api_key_variable) if source.api_key_variable else None
        if source.api_key_variable and not api_key:
            notes.append(f"{source.name}: not read, it needs a key: set {source.api_key_variable}")
            continue
        write_line(f"reading {source.name}: {source.url}")
        try:
            quotes_by_source[source.name] = source.parse(_fetch_lines(source.url, api_key), entries)
        except (SourceError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
            notes.append(f"{source.name}: cannot be parsed: {_error_text(error)}")
        except (OSError, http.client.HTTPException) as error:
            notes.append(f"{source.name}: cannot be read: {_error_text(error)}")
    return quotes_by_source, notes + [
        f"{name}: {note}" for name, source_quotes in quotes_by_source.items() for note in source_quotes.notes
    ]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A person checks a price list that has moved first, and an API key is sent to no other host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl) -> None:
        return None


def _fetch_lines(url: str, api_key: str | None) -> Iterator[str]:
    """Yield the lines of a URL as they arrive."""
    headers = {"User-Agent": "cloudtrial", **({"X-Goog-Api-Key": api_key} if api_key else {})}
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=READ_TIMEOUT_S) as response:
        bytes_read = 0
        while line := response.readline(MAX_LINE_BYTES):
            bytes_read += len(line)
            if len(line) == MAX_LINE_BYTES or bytes_read > MAX_SOURCE_BYTES:
                raise SourceError("it is too large for a price list")
            yield line.decode()
        if response.length:
            raise SourceError(f"it ended {response.length} bytes early")


def _preferred_quotes(quotes_by_source: Mapping[str, SourceQuotes]) -> tuple[dict[str, Quote], list[str]]:
    """For each entry the quote of the first source that has one, and a note for each later one that contradicts it."""
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


def format_table(checks: Iterable[PriceCheck]) -> str:
    """The difference as text, one entry a line."""
    return "\n".join(table_lines([TABLE_COLUMNS, *(_table_row(check) for check in checks)]))


def _table_row(check: PriceCheck) -> tuple[str, ...]:
    listed, found = check.price.amount, check.quote.amount
    change = "as listed" if check.unchanged else f"{found / listed - 1:+.1%}" if listed else "was free"
    return check.price.id, format_amount(listed), format_amount(found), change, check.quote.source


def _update_lines(result: RefreshResult, prices: PriceList, path: Path) -> Iterator[str]:
    """What to change in the list by hand, and a summary."""
    changed_count = sum(not check.unchanged for check in result.checks)
    summary = f"{len(result.checks) - changed_count} as listed, {changed_count} changed"
    if not result.updates:
        yield f"{summary}; no entry to update"
        return
    yield f"\nentries to update in {path}:\n"
    for check in result.updates:
        yield yaml_entry(check.updated_price)
    archive_path = path.with_name(ARCHIVE_DIR) / f"{prices.date}-{prices.sha256[:8]}.yaml"  # of one day may be several
    yield (
        f"\n{summary}; nothing was written. Check each entry, copy {path.name} to {archive_path}, which prices the "
        f"reports of older runs, then paste the entries and set the list's date to {result.updates[0].checked_on}"
    )


def yaml_entry(price: Price) -> str:
    """The entry as it stands in the list."""
    fields = {name: _yaml_scalar(value) for name, value in vars(price).items() if value is not None}
    fields["amount"] = format_amount(price.amount)
    return "  - " + "\n    ".join(f"{name}: {text}" for name, text in fields.items())


def _yaml_scalar(value: object) -> str:
    return yaml.safe_dump([value], width=math.inf, allow_unicode=True)[2:].rstrip("\n")


def _error_text(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return " ".join(str(error.reason).split())
    if isinstance(error, LookupError):
        return f"it has no {error}"
    return " ".join(str(error).split()) or type(error).__name__
