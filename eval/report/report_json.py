"""report.json: what the analysis found, with a message for each code, and the answer that it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from eval.analysis.summary import RunAnalysis, analyse_run
from eval.codes import Statement
from eval.cost.price_list import PriceList
from eval.dataset.golden import is_golden
from eval.report.answer import Tile, answer, condition, remarks, tiles
from eval.report.wording import in_words_of, message
from eval.samples.model import Run, Sample


def build_report(run: Run, samples: Iterable[Sample], prices: PriceList) -> dict[str, Any]:
    """Everything that report.json holds."""
    return with_words(run, analyse_run(run, samples, prices))


def with_words(run: Run, analysis: RunAnalysis) -> dict[str, Any]:
    """What the analysis found, as report.json has it."""
    facts, findings = analysis.facts, analysis.report.run.findings
    verdict = replace(
        analysis.report.verdict,
        answer=answer(facts),
        condition=condition(facts),
        tiles=tiles(facts, findings, golden=is_golden(run.images_source)),
        remarks=remarks(facts, findings),
    )
    return to_jsonable(replace(analysis.report, verdict=verdict), partial(in_words_of, run.input_kind))


def to_jsonable(value: Any, reword: Callable[[str], str] = str) -> Any:
    """A record as JSON has it: its fields by name; a finding, a reason or an assumption with its message.

    reword: what is done to our own texts.
    """
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item, reword) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item, reword) for item in value]
    if not is_dataclass(value):
        return value
    if isinstance(value, Tile):
        value = Tile(*(reword(text) if isinstance(text, str) else text for text in vars(value).values()))
    record = {field.name: to_jsonable(getattr(value, field.name), reword) for field in fields(value)}
    return record | {"message": reword(message(value))} if isinstance(value, Statement) else record
