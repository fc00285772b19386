"""Reads adapters from YAML: the ready ones, and those of `--adapter`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eval.adapters.adapter import BASE64, DATA_URI, PIXELS, PLACEHOLDERS, RequestForm
from eval.adapters.answers import AnswerForm, check_expression
from eval.errors import EndpointError, InvalidInput
from eval.targets.access import check_header_name, filled_from_env
from eval.targets.tokens import Token
from eval.validation import read_file, validate

READY_FILE = Path(__file__).with_name("ready.yaml")
MAX_FILE_BYTES = 64 * 1024
PARTS = {"request": RequestForm, "answer": AnswerForm}


@dataclass(frozen=True)
class AdapterOption:
    """One `--adapter NAME=FILE` or `--adapter NAME=READY`."""

    target: str
    request: RequestForm
    answer: AnswerForm | None  # None: to be recognised
    secrets: tuple[Token, ...] = field(default=())  # what its headers and query hold of the environment


@functools.cache
def ready_forms() -> dict[str, RequestForm]:
    """The forms of requests that are tried, by name, in that order."""
    listed = yaml.safe_load(READY_FILE.read_text(encoding="utf-8"))
    return {name: validate(RequestForm, form) for name, form in listed.items()}


def parse_adapter(text: str, env: Mapping[str, str]) -> AdapterOption:
    """The option; a file's variables come from `env`. Raises EndpointError, which shows no variable's value."""
    target, separator, source = text.partition("=")
    if not (separator and target and source):
        raise EndpointError(f"--adapter {text}: expected NAME=FILE, such as mine=adapter.yaml, or NAME=READY")
    if source in ready_forms():
        return AdapterOption(target, ready_forms()[source], None)
    try:
        content = yaml.safe_load(read_file(Path(source), MAX_FILE_BYTES))
        parts = _known(content, PARTS, "an adapter")
        request = _read_part(parts.get("request") or {}, RequestForm)
        answer = _read_part(parts["answer"], AnswerForm) if parts.get("answer") else None
        _check(request, answer)
        secrets: list[Token] = []
        for name in request.headers:
            check_header_name(name)
        headers, query = (
            {key: filled_from_env(key, value, env, secrets) for key, value in values.items()}
            for values in (request.headers, request.query)
        )
        request = dataclasses.replace(request, headers=headers, query=query)
    except OSError as error:
        ready = ", ".join(ready_forms())
        raise EndpointError(f"--adapter {text}: {source}: {error.strerror}; the ready ones are {ready}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EndpointError(f"--adapter {text}: not YAML: {str(error).splitlines()[0]}") from None
    except InvalidInput as error:
        raise EndpointError(f"--adapter {text}: {error}") from None
    return AdapterOption(target, request, answer, tuple(secrets))


def _read_part(content: Any, kind: type) -> Any:
    fields = {f.name for f in dataclasses.fields(kind)}
    return validate(kind, _known(content, fields, f"the part of {', '.join(sorted(fields))}"))


def _known(content: Any, keys: Any, what: str) -> dict[str, Any]:
    """The mapping, if it has no other keys. Raises InvalidInput."""
    if not isinstance(content, dict):
        raise InvalidInput(f"{what} is a mapping, and not {content!r:.60}")
    if unknown := [key for key in content if key not in keys]:
        raise InvalidInput(f"{unknown[0]!r} is not known: there are {', '.join(sorted(keys))}")
    return content


def _check(request: RequestForm, answer: AnswerForm | None) -> None:
    """Raises InvalidInput for a form that can't work."""
    if request.body == "json" and not any(placeholder in _texts(request.json) for placeholder in PLACEHOLDERS):
        raise InvalidInput(f"request.json has no place for the image: write {BASE64}, {DATA_URI} or {PIXELS} there")
    if answer is None:
        return
    if not (answer.label or answer.scores):
        raise InvalidInput("answer has neither label nor scores")
    if answer.probability and not answer.label:
        raise InvalidInput("answer.probability is that of a label, and there is no answer.label; use answer.scores")
    for expression in filter(None, (answer.label, answer.scores, answer.probability)):
        check_expression(expression)


def _texts(value: Any) -> list[str]:
    """Every text in a document."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [text for each in inner for text in _texts(each)]
