"""Numbers become the text that a reader takes them for."""

from __future__ import annotations

import pytest

from eval import formatting


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (formatting.ms, 0, "0 ms"),
        (formatting.ms, 0.004, "< 0.01 ms"),
        (formatting.ms, 0.2, "0.20 ms"),
        (formatting.ms, 9.999, "10.0 ms"),
        (formatting.ms, 12.345, "12.3 ms"),
        (formatting.ms, 1234.4, "1,234 ms"),
        (formatting.ms, 12345, "12.3 s"),
        (formatting.percent, 0.95, "95.00%"),
        (formatting.percent, 1, "100%"),
        (formatting.percent, 0, "0%"),
        (formatting.percent, 0.99999, "> 99.99%"),
        (formatting.percent, 0.00001, "< 0.01%"),
        (formatting.usd, 0, "$0"),
        (formatting.usd, 0.00304, "$0.0030"),
        (formatting.usd, 7, "$7.00"),
        (formatting.usd, 1252.4, "$1,252"),
        (formatting.short_count, 10_000, "10k"),
        (formatting.short_count, 4_540_000, "4.54M"),
        (formatting.short_count, 1e9, "1B"),
        (formatting.short_count, 12, "12"),
        (formatting.short_count, 999.7, "1k"),
        (formatting.short_count, 999_600, "1M"),
        (formatting.short_count, 1e12, "1,000B"),
        (formatting.short, 8.0, "8"),
        (formatting.short, 24 / 7, "3.43"),
        (formatting.short, 1234, "1,230"),
        (formatting.short, 2_345_678, "2,350,000"),
        (formatting.per_second, 0.3802, "0.38/s"),
        (formatting.per_second, 81.23, "81.2/s"),
        (formatting.mib, 341.4, "341 MiB"),
        (formatting.mib, 2048, "2 GiB"),
        (formatting.mib, 1500, "1,500 MiB"),
        (formatting.score, 0.95344, "0.9534"),
        (formatting.unit_price, 0.0000025, "$0.0000025"),
        (formatting.unit_price, 25, "$25"),
        (formatting.count, 10_000, "10,000"),
    ],
)
def test_units(unit, value, text):
    assert unit(value) == text


def test_an_estimate_shows_its_interval_with_the_unit_once():
    estimate = {"value": 12.3, "low": 12.0, "high": 12.9, "n": 400}
    assert formatting.interval_of(estimate, formatting.ms) == "12.0–12.9 ms"


def test_an_interval_that_ends_at_the_largest_sample_has_a_plus():
    estimate = {"value": 12.4, "low": 12.0, "high": 19.3, "high_is_max": True}
    assert formatting.interval_of(estimate, formatting.ms) == "12.0–19.3+ ms"


def test_an_interval_of_money_keeps_its_signs():
    assert formatting.interval_of({"value": 7, "low": 6, "high": 8}, formatting.usd) == "$6.00–$8.00"


def test_an_interval_across_units_names_both():
    assert formatting.interval_of({"value": 1, "low": 900, "high": 12_000}, formatting.ms) == "900 ms–12.0 s"


def test_a_missing_number_shows_its_reason():
    estimate = {"value": None, "reason": {"message": "needs n >= 368, have 200"}}
    assert formatting.reason_of(estimate) == "needs n >= 368, have 200"


@pytest.mark.parametrize("estimate", [None, {"value": None}], ids=["none", "no reason"])
def test_a_missing_number_without_a_reason_was_not_measured(estimate):
    assert formatting.reason_of(estimate) == "not measured"


@pytest.mark.parametrize("estimate", [0, {"value": 0}], ids=["plain", "estimate"])
def test_zero_is_a_number(estimate):
    assert formatting.reason_of(estimate) == ""
    assert formatting.value_of(estimate) == 0


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"peak_mib": 341.0, "limit_mib": 512, "fits": True}, "fits 512 MiB: yes, 341 MiB"),
        ({"peak_mib": 700.0, "limit_mib": 512, "fits": False}, "fits 512 MiB: no, 700 MiB"),
        ({"peak_mib": 341.0, "limit_mib": None, "fits": None}, "341 MiB"),
        (
            {"peak_mib": {"value": None, "reason": {"message": "no twin"}}, "limit_mib": 512, "fits": None},
            "n/a: no twin",
        ),
        (None, "n/a: not measured"),
    ],
    ids=["fits", "too large", "no limit", "not known", "nothing"],
)
def test_memory_says_whether_it_fits(facts, text):
    assert formatting.memory_text(facts) == text


@pytest.mark.parametrize(
    ("name", "value", "words", "text"),
    [
        ("service_ms", 12.3, "service", "12.3 ms"),
        ("throughput_rps", 81.0, "throughput", "81.0/s"),
        ("answer_bytes", 412, "answer", "412 bytes"),
        ("boot_s", 2.61, "boot", "2.61 s"),
        ("memory_mib", 7900, "memory", "7,900 MiB"),
        ("cpu_model", "Xeon", "cpu model", "Xeon"),
        ("cpu_generation", None, "cpu generation", "not known"),
        ("instruction_sets", ["AVX2", "AVX-512"], "instruction sets", "AVX2, AVX-512"),
        ("instruction_limits", {}, "instruction limits", "none"),
        ("instruction_limits", {"ATEN_CPU_CAPABILITY": "avx2"}, "instruction limits", "ATEN_CPU_CAPABILITY=avx2"),
        ("cores", 2, "cores", "2"),
        ("share", 0.5, "share", "0.500"),
    ],
)
def test_the_name_of_a_figure_says_its_unit(name, value, words, text):
    assert (formatting.figure_label(name), formatting.format_figure(name, value)) == (words, text)


def test_listing_reads_as_a_sentence():
    written = [formatting.join_words(list(letters)) for letters in ("", "a", "ab", "abc")]
    assert written == ["", "a", "a and b", "a, b and c"]


def test_sentence_adds_what_is_missing():
    assert formatting.as_sentence("interrupted from the keyboard") == "Interrupted from the keyboard."
    assert formatting.as_sentence("Done.") == "Done."


def test_moment_and_short_hash_of_nothing():
    assert formatting.timestamp("2026-11-21T12:00:09+00:00") == "2026-11-21 12:00 UTC"
    assert (formatting.timestamp(None), formatting.short_hash(None)) == ("n/a", "n/a")
