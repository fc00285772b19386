"""A processor in words, and whether two are alike, from whatever a run recorded of them."""

from __future__ import annotations

import pytest

from eval.samples.processors import parse_processor, processors_differ
from service.system import processor

ZEN_3 = {"cpu_model": "AMD EPYC", "cpu_generation": "Zen 3", "instruction_sets": ["AVX2"], "instruction_limits": {}}
ZEN_4 = ZEN_3 | {"cpu_generation": "Zen 4", "instruction_sets": ["AVX2", "AVX-512 BF16"]}
OLD = {"cpu_model": "AMD EPYC"}
FORM = "bfloat16, channels_last, fused by oneDNN"


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (ZEN_3 | {"cores": 2}, "2 cores of AMD EPYC (Zen 3; AVX2)"),
        (ZEN_4 | {"cpus": 1}, "1 core of AMD EPYC (Zen 4; AVX2, AVX-512 BF16)"),
        (ZEN_4 | {"instruction_limits": {"ONEDNN_MAX_CPU_ISA": "AVX2"}},
         "AMD EPYC (Zen 4; AVX2, AVX-512 BF16; kept to ONEDNN_MAX_CPU_ISA=AVX2)"),
        (ZEN_3 | {"instruction_sets": []}, "AMD EPYC (Zen 3; no AVX2 or later)"),
        (ZEN_3 | {"cpu_generation": None, "instruction_sets": None}, "AMD EPYC (instruction sets not known)"),
        (OLD | {"cores": 4}, "4 cores of AMD EPYC (instruction sets not recorded)"),
        ({}, "a processor that was not recorded"),
    ],
    ids=["zen 3", "zen 4", "limited", "none", "not known", "old", "nothing"],
)  # fmt: skip
def test_a_processor_in_words(facts, text):
    assert parse_processor(facts).with_cores == text


def test_engines_bfloat16_fills_in_what_was_not_recorded():
    assert str(parse_processor(OLD, FORM)) == "AMD EPYC (bfloat16 in hardware, other instruction sets not recorded)"
    assert str(parse_processor(ZEN_3, FORM)) == "AMD EPYC (Zen 3; AVX2)"  # recorded, so nothing is concluded


@pytest.mark.parametrize(
    ("a", "b", "unlike"),
    [
        (parse_processor(ZEN_3), parse_processor(ZEN_3), False),
        (parse_processor(ZEN_3 | {"cores": 2}), parse_processor(ZEN_3 | {"cores": 4}), False),
        (parse_processor(ZEN_3), parse_processor(ZEN_4), True),
        (parse_processor(ZEN_3), parse_processor(ZEN_3 | {"cpu_generation": "Zen 2"}), True),
        (
            parse_processor(ZEN_4),
            parse_processor(ZEN_4 | {"instruction_limits": {"ATEN_CPU_CAPABILITY": "avx2"}}),
            True,
        ),
        (parse_processor(OLD), parse_processor(ZEN_3), None),
        (parse_processor(OLD), parse_processor(OLD), None),
        (parse_processor(OLD), parse_processor({"cpu_model": "Xeon"}), True),
        (parse_processor(OLD, FORM), parse_processor(ZEN_3), True),
        (parse_processor(OLD, FORM), parse_processor(ZEN_4), None),
        (parse_processor({}), parse_processor(ZEN_3), None),
    ],
)
def test_processors_differ_where_any_common_record_differs(a, b, unlike):
    assert processors_differ(a, b) is unlike


def test_what_the_service_says_of_this_processor_is_understood():
    here = parse_processor(processor())
    assert here.cpu_model and (
        here.instruction_sets is None or here.instruction_sets == processor()["instruction_sets"]
    )
    assert processors_differ(here, here) is not True
