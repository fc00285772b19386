"""Tables without the columns in which no row has a figure; the reasons stand below. None where no column is left.

On the text of a whole page, so that it holds for every table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

HTML_TABLE = re.compile(r'(?:<div class="scroll"[^>]*>)?<table\b[^>]*>.*?</table>(?:</div>)?', re.DOTALL)
HTML_ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
HTML_CELL = re.compile(r"<t[hd]\b[^>]*>.*?</t[hd]>", re.DOTALL)
HTML_REASON = re.compile(r'<small class="why">(.*?)</small>', re.DOTALL)
HTML_TAG = re.compile(r"<[^>]*>")
FIXED = re.compile(r'<table class="[^"]*(?:answer-table|heat)|colspan=')  # its columns are not these alone
MARKDOWN_TABLE = re.compile(r"^\|.*\n\|[-:|]*\|\n(?:\|.*\n)*", re.MULTILINE)
MARKDOWN_BAR = re.compile(r"(?<!\\)\|")
EMPTY = ("", "–")
MAX_REASONS = 2  # of one column

Row = Sequence[str]  # its cells


def html_without_empty_columns(page: str) -> str:
    return HTML_TABLE.sub(lambda found: _shorter_html(found[0]), page)


def markdown_without_empty_columns(page: str) -> str:
    return MARKDOWN_TABLE.sub(lambda found: _shorter_markdown(found[0]), page)


def _shorter_html(table: str) -> str:
    if FIXED.search(table):
        return table
    head, *body = [HTML_CELL.findall(row) for row in HTML_ROW.findall(table)]
    empty = _empty_columns(head, body, _is_empty_html)
    note = _note(empty, head, body, lambda cell: " ".join(HTML_TAG.sub(" ", cell).split()), _html_reason)
    note = f'\n<p class="small">{note}</p>' if note else ""
    if not body or len(empty) == len(head) - 1:
        return note.strip()

    def shorter(row: re.Match[str]) -> str:
        cells = iter(range(len(head)))
        return HTML_CELL.sub(lambda cell: "" if next(cells) in empty else cell[0], row[0])

    return (HTML_ROW.sub(shorter, table) if empty else table) + note


def _shorter_markdown(table: str) -> str:
    lines = [MARKDOWN_BAR.split(line)[1:-1] for line in table.splitlines()]
    head, _, *body = lines
    empty = _empty_columns(head, body, lambda cell: cell.strip() in EMPTY or cell.strip().startswith("n/a"))
    note = _note(empty, head, body, str.strip, lambda cell: cell.partition("n/a: ")[2].strip())
    kept = [column for column in range(len(head)) if column not in empty]
    text = "".join(f"|{'|'.join(line[column] for column in kept)}|\n" for line in lines)
    return (text if body and len(kept) > 1 else "") + (f"\n{note}\n" if note else "")


def _empty_columns(head: Row, body: Sequence[Row], is_empty: Callable[[str], bool]) -> set[int]:
    """Not the first column, which names the rows."""
    if any(len(row) != len(head) for row in body):
        return set()
    return {column for column in range(1, len(head)) if body and all(is_empty(row[column]) for row in body)}


def _is_empty_html(cell: str) -> bool:
    inner = re.sub(r"</?(?:t[hd]|div)\b[^>]*>", "", cell).strip()
    return inner in EMPTY or inner.startswith('<span class="na">')


def _html_reason(cell: str) -> str:
    found = HTML_REASON.search(cell)
    return found[1] if found else ""


def _note(
    empty: set[int], head: Row, body: Sequence[Row], title: Callable[[str], str], reason: Callable[[str], str]
) -> str:
    """What is left out, and why. A dash has no reason: it says nothing."""
    titles_by_reason: dict[str, list[str]] = {}
    for column in sorted(empty):
        reasons = list(dict.fromkeys(filter(None, (reason(row[column]) for row in body))))
        titles_by_reason.setdefault("; ".join(reasons[:MAX_REASONS]), []).append(title(head[column]))
    texts = [f"{', '.join(titles)} ({text})" for text, titles in titles_by_reason.items() if text]
    return f"Not available: {'; '.join(texts)}." if texts else ""
