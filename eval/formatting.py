"""Numbers to text, with their units. The one home of how a figure is written in a report or on a terminal.

An *estimate* is a plain number, or `{"value", "low", "high", "n"}`, or `{"value": None, "reason": {"message": ...}}`
where the samples could not support the number: as report.json has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Estimate = float | int | Mapping[str, Any] | None

NOT_AVAILABLE = "n/a"
MAX_WORDS = 8  # of a row in a sentence: the targets of a usual run
FIRST_WORDS = 3  # that are shown of a longer row


def value_of(estimate: Estimate) -> float | None:
    """The number itself, or None."""
    return estimate.get("value") if isinstance(estimate, Mapping) else estimate


def reason_of(estimate: Estimate) -> str:
    """Why there is no number, or the empty string when there is one."""
    if value_of(estimate) is not None:
        return ""
    reason = estimate.get("reason") if isinstance(estimate, Mapping) else None
    return reason["message"] if reason else "not measured"


def interval_of(estimate: Estimate, unit: Callable[[float], str]) -> str:
    """The interval alone, as "12.0–12.9 ms"; the empty string when the estimate has none.

    A plus after the upper end, as in "12.0–19.3+ ms", says that it is the largest sample, and the true value may lie
    above it.
    """
    if not isinstance(estimate, Mapping) or value_of(estimate) is None:
        return ""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return ""
    low_text, high_text = unit(low), unit(high)
    suffix = low_text.lstrip("+-$0123456789.,")
    if not (suffix and high_text.endswith(suffix)):
        suffix = ""
    plus = "+" if estimate.get("high_is_max") else ""
    separator = " to " if low < 0 else "–"
    return f"{low_text.removesuffix(suffix)}{separator}{high_text.removesuffix(suffix)}{plus}{suffix}"


def significant(value: float, digits: int = 3) -> str:
    """At least so many significant digits, thousands separated: 0.0123, 1.23, 12.3, 1,234."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # of the rounded value: 9.999 becomes 10.0
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def short(value: float, digits: int = 3) -> str:
    """At most so many significant digits, thousands separated: 0.0123, 8, 3.43, 1,230."""
    return f"{float(f'{value:.{digits}g}'):,.15g}"


def ms(value: float) -> str:
    """A duration: "0.84 ms", "12.3 ms", "1,234 ms", "12.3 s"; hundredths of a millisecond are the finest."""
    if value >= 9999.5:
        return f"{significant(value / 1000)} s"
    if value < 1:
        return "0 ms" if value == 0 else "< 0.01 ms" if value < 0.01 else f"{value:.2f} ms"
    return f"{significant(value)} ms"


def percent(value: float, digits: int = 2) -> str:
    """A share as percent; never "100%" for what is not the whole, nor "0%" for what is not nothing."""
    text = f"{value * 100:.{digits}f}"
    if float(text) == 100 and value < 1:
        return f"> {100 - 10**-digits:.{digits}f}%"
    if float(text) == 0 and value > 0:
        return f"< {10**-digits:.{digits}f}%"
    return f"{float(text):g}%" if value in (0, 1) else f"{text}%"


def percentage_points(value: float) -> str:
    """A difference of shares in percentage points, with its sign: "-0.25 points"."""
    if value and abs(value) < 0.00005:
        return "< 0.01 points" if value > 0 else "> -0.01 points"
    return f"{value * 100:+.2f} points" if value else "0 points"


def ratio(value: float) -> str:
    """How many times as much: "1.32x"."""
    return f"{significant(value)}x"


def score(value: float) -> str:
    """A score between 0 and 1: "0.9534"."""
    return f"{value:.4f}"


def probability_difference(value: float) -> str:
    """A difference of probabilities: "0", "2.0e-06"; they have six digits, so 0 means less than half of the last."""
    return "0" if value == 0 else f"{value:.1e}"


def usd(value: float) -> str:
    """Money: cents up to 100 dollars, whole dollars above 1,000, two significant digits below a cent."""
    if value == 0:
        return "$0"
    if abs(value) < 0.01:
        return f"${significant(value, 2)}"
    return f"${value:,.0f}" if abs(value) >= 1000 else f"${value:,.2f}"


def unit_price(value: float) -> str:
    """A price with all its digits: "$0.000024", "$0.0208"."""
    return "$" + f"{value:.9f}".rstrip("0").rstrip(".")


def count(value: float) -> str:
    """A whole number with its thousands separated."""
    return f"{value:,.0f}"


def short_count(value: float) -> str:
    """A large number in few characters: "10k", "1M", "4.54M"."""
    for divisor, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if float(f"{value:.3g}") >= divisor:
            return f"{short(value / divisor)}{suffix}"
    return short(value)


def per_second(value: float) -> str:
    """A rate: "0.38/s", "12.3/s"."""
    return f"{significant(value, 3 if value >= 1 else 2)}/s"


def mib(value: float) -> str:
    """Memory: "341 MiB", and whole gibibytes as such: "2 GiB"."""
    return f"{value / 1024:.0f} GiB" if value >= 1024 and value % 1024 == 0 else f"{value:,.0f} MiB"


def megabytes(value: float) -> str:
    """A size in bytes as decimal megabytes: "11.3 MB", "754 MB"."""
    return f"{significant(value / 1e6)} MB"


def timestamp(iso: str | None) -> str:
    """An ISO 8601 time to the minute: "2026-11-21 02:40 UTC"."""
    return f"{iso[:10]} {iso[11:16]} UTC" if iso and len(iso) >= 16 else iso or NOT_AVAILABLE


def short_hash(digest: str | None) -> str:
    """The first twelve digits of a checksum."""
    return digest[:12] if digest else NOT_AVAILABLE


def plural(number: int, noun: str, plural_noun: str | None = None) -> str:
    """A number of things: "1 target", "4 targets"."""
    return f"{count(number)} {noun if number == 1 else plural_noun or noun + 's'}"


def join_words(words: Sequence[str], *, most: int = MAX_WORDS, all_words: bool = False) -> str:
    """Words in a row: "a", "a and b", "a, b and c"; of more than `most` the first ones: "a, b, c and 197 more"."""
    if len(words) > most and not all_words:
        shown = min(FIRST_WORDS, most - 1)
        words = [*words[:shown], f"{len(words) - shown:,} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


UNIT_FORMATTERS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("_ms", ms), ("_rps", per_second), ("_per_second", per_second), ("_mib", mib), ("_usd", usd),
    ("_s", lambda value: f"{significant(value)} s"), ("_bytes", lambda value: f"{count(value)} bytes"),
)  # fmt: skip


def figure_label(name: str) -> str:
    """The name of a figure without its unit: "service_ms" is "service"."""
    return next((name.removesuffix(suffix) for suffix, _ in UNIT_FORMATTERS if name.endswith(suffix)), name).replace(
        "_", " "
    )


def format_figure(name: str, value: object) -> str:
    """A figure in the unit that its name says."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "not known" if value is None else str(value)
    default_unit = count if isinstance(value, int) else significant
    return next((unit for suffix, unit in UNIT_FORMATTERS if name.endswith(suffix)), default_unit)(value)


def memory_text(memory_report: Mapping[str, Any] | None) -> str:
    """The peak against the limit, as "fits 512 MiB: yes, 341 MiB"; or why it is not known."""
    peak_estimate = (memory_report or {}).get("peak_mib")
    peak_mib = value_of(peak_estimate)
    if memory_report is None or peak_mib is None:
        return f"{NOT_AVAILABLE}: {reason_of(peak_estimate)}"
    if memory_report.get("fits") is None:
        return mib(peak_mib)
    return f"fits {mib(memory_report['limit_mib'])}: {'yes' if memory_report['fits'] else 'no'}, {mib(peak_mib)}"


def as_sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def disagreement_text(disagreements: int, n: int) -> str:
    """ "2 of 400 images"."""
    return f"{count(disagreements)} of {plural(n, 'image')}"
