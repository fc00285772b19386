"""Finds the form in which an endpoint with a wire format of its own takes images, by trying the ready ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import urlsplit

from eval.adapters.adapter import Adapter, RequestForm
from eval.adapters.answers import AnswerForm, Json, listed, parse_answer
from eval.adapters.loading import AdapterOption
from eval.adapters.recognition import recognise
from eval.dataset.image_set import EncodedImage
from eval.dataset.rows import JSON_TYPE
from eval.errors import EndpointError, InvalidResponse
from eval.load.client import ACCESS_REFUSED, Client, Exchange
from eval.load.refusals import WRONG_ADDRESS
from eval.load.responses import check_encoding, to_short_line
from eval.targets.endpoints import TargetSet
from eval.targets.tokens import check_route
from service.schema import PREDICT

SHOWN_ATTEMPTS = 4
FIRST_IMAGES = 4  # of different classes, whose answers say how all are read


@dataclass(frozen=True)
class Attempt:
    """A form that was sent, and what came."""

    form: RequestForm
    outcome: str
    status: int | None
    is_page: bool = False  # for people
    no_class: bool = False  # an answer in which nothing is one of the classes


def check_adapters(targets: TargetSet, options: Sequence[AdapterOption], *, allow_http: bool) -> None:
    """Raises EndpointError for an adapter of no address, for a second one, and for secrets that would go in clear."""
    urls, seen = {endpoint.name: endpoint.url for endpoint in targets.endpoints}, set[str]()
    of_sagemaker = {endpoint.name for endpoint in targets.endpoints if endpoint.sagemaker}
    for option in options:
        if option.target not in urls:
            listed = ", ".join(urls) or "none"
            raise EndpointError(f"--adapter {option.target}=...: the run has no such address, only {listed}")
        if option.target in seen:
            raise EndpointError(f"--adapter {option.target}=...: {option.target} has two; give it one")
        seen.add(option.target)
        if option.target in of_sagemaker and (option.request.path or option.request.query):
            raise EndpointError(f"--adapter {option.target}=...: SageMaker lets neither a path nor a query through")
        if option.secrets and not allow_http:
            check_route(option.target, urls[option.target])


def first_images(images: Sequence[EncodedImage]) -> list[EncodedImage]:
    """The first of each class, of at most so many as are sent before a run."""
    by_class = {image.entry.label: image for image in reversed(images)}
    return [by_class[label] for label in dict.fromkeys(image.entry.label for image in images)][:FIRST_IMAGES]


def forms_at(url: str, forms: Iterable[RequestForm]) -> list[RequestForm]:
    """The forms as they are sent to an address: one without a path means /predict."""
    return list(forms) if urlsplit(url).path else [replace(form, path=form.path or PREDICT) for form in forms]


async def find_adapter(
    client: Client, images: Sequence[EncodedImage], forms: Sequence[RequestForm], answer: AnswerForm | None = None
) -> Adapter:
    """The first of the forms that is answered by a class or scores; how those are read, where `answer` does not say.

    images: the first is sent in each form, the others in the one that was understood. Raises EndpointError, which tells
    what was sent, what came and what was expected.
    """
    attempts: list[Attempt] = []
    if images[0].media_type == JSON_TYPE:
        forms = [form for form in forms if not form.needs_pixels()]
        if not forms:
            raise EndpointError(f"{client.url}: its adapter asks for pixels, and rows have none; body: raw sends a row")
    for form in forms:
        exchange = await client.post(form, images[0])
        payload, attempt = _payload_of(client, form, exchange, answer)
        if attempt is None:
            return Adapter(form, answer or await _read_alike(client, form, images[1:], payload))
        attempts.append(attempt)
        if exchange.status is None or exchange.status in ACCESS_REFUSED or 300 <= exchange.status < 400:
            break  # no form would change that
    raise EndpointError(_not_understood(client, attempts))


async def _read_alike(client: Client, form: RequestForm, images: Sequence[EncodedImage], first: Json) -> AnswerForm:
    """How the first answer and those to these images are read, all in one way. Raises EndpointError."""
    payloads = [first]
    for image in images:
        payload, attempt = _payload_of(client, form, await client.post(form, image), None)
        if attempt:
            attempt = replace(attempt, outcome=f"{image.entry.name}: {attempt.outcome}")
            raise EndpointError(_not_understood(client, [attempt]))
        payloads.append(payload)
    found = recognise(payloads, client.classes)
    if found is None:
        shown = " and ".join(dict.fromkeys(to_short_line(json.dumps(payload)) for payload in payloads))
        outcome = f"no class and no scores at one place in the first {len(payloads)} answers: {shown}"
        raise EndpointError(_not_understood(client, [Attempt(form, outcome, HTTPStatus.OK, no_class=True)]))
    return found


def _payload_of(
    client: Client, form: RequestForm, exchange: Exchange, answer: AnswerForm | None
) -> tuple[Json, Attempt | None]:
    """The answer, and None if it is understood by itself; else what came in its place."""
    classes, status, is_page = client.classes, exchange.status, exchange.body.lstrip().startswith(b"<")
    if status is None:
        return None, Attempt(form, ": ".join(exchange.failure or ("", "no response")), None)
    if failure := client.failure_of_status(exchange) or exchange.failure:
        return None, Attempt(form, failure[1], status)
    try:
        check_encoding(exchange.headers)
        payload = parse_answer(exchange.body)
        if answer:
            answer.read(exchange.body, classes)
            return payload, None
    except InvalidResponse as error:
        return None, Attempt(form, str(error), status, is_page)
    if recognise([payload], classes):
        return payload, None
    shown = to_short_line(bytes(exchange.body[:200]).decode(errors="replace"))
    outcome = f"200, with no class and no scores of the {len(classes)} classes: {shown}"
    return None, Attempt(form, outcome, status, is_page, no_class=True)


def _not_understood(client: Client, attempts: Sequence[Attempt]) -> str:
    by_outcome: dict[str, list[str]] = {}
    for attempt in attempts:
        by_outcome.setdefault(attempt.outcome, []).append(attempt.form.text())
    return f"{client.url}: {_told(by_outcome)}; {_advice(client, attempts)}"


def _advice(client: Client, attempts: Sequence[Attempt]) -> str:
    """The option that helps, by what came."""
    last, statuses = attempts[-1], {attempt.status for attempt in attempts}
    if statuses == {None} and not last.outcome.startswith("dropped"):
        if last.outcome.startswith("tls: the certificate"):
            return f"name the authority that has signed it with --ca {client.name}=FILE"
        return "start the service, or correct the address"
    if last.status in ACCESS_REFUSED:
        return f"give a token with --token-env {client.name}=VARIABLE"
    if last.status and 300 <= last.status < 400:
        return "give the address that this one leads to"
    if statuses <= set(WRONG_ADDRESS):
        return "no images are taken there: correct the path of the address"
    if any(attempt.is_page for attempt in attempts):
        return "that is a page for people: give the address of the service itself"
    how = f"how it is asked and answers with --adapter {client.name}=FILE"
    if any(attempt.no_class for attempt in attempts):
        return (
            f"expected one of the classes {listed(client.classes)}: name the folders of --images DIR as the service "
            f"names its classes, or list those in its own order with --classes FILE; or say {how}"
        )
    return f"say {how}"


def _told(by_outcome: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for outcome, forms in list(by_outcome.items())[:SHOWN_ATTEMPTS]:
        others = f" (and {len(forms) - 1} other forms)" if len(forms) > 1 else ""
        lines.append(f"{forms[0]}{others} -> {outcome}")
    if len(by_outcome) > SHOWN_ATTEMPTS:
        lines.append(f"{len(by_outcome) - SHOWN_ATTEMPTS} other outcomes")
    return "; ".join(lines)
