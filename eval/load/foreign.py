"""Finds the form in which an endpoint with a wire format of its own takes images, by trying the ready ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.adapters.adapter import Adapter, AnswerForm, RequestForm, parse_answer
from eval.adapters.loading import AdapterOption
from eval.adapters.recognition import recognise
from eval.dataset.images import EncodedImage
from eval.errors import EndpointError, InvalidResponse
from eval.load.client import ACCESS_REFUSED, Client, Exchange
from eval.load.responses import classify_status, to_short_line
from eval.targets.endpoints import TargetSet
from eval.targets.tokens import check_route

SHOWN_ATTEMPTS = 4


@dataclass(frozen=True)
class Attempt:
    """A form that was sent, and what came."""

    form: RequestForm
    outcome: str


def check_adapters(targets: TargetSet, options: Sequence[AdapterOption], *, allow_http: bool) -> None:
    """Raises EndpointError for an adapter of no address, for a second one, and for secrets that would go in clear."""
    urls, seen = {endpoint.name: endpoint.url for endpoint in targets.endpoints}, set[str]()
    for option in options:
        if option.target not in urls:
            listed = ", ".join(urls) or "none"
            raise EndpointError(f"--adapter {option.target}=...: the run has no such address, only {listed}")
        if option.target in seen:
            raise EndpointError(f"--adapter {option.target}=...: {option.target} has two; give it one")
        seen.add(option.target)
        if option.secrets and not allow_http:
            check_route(option.target, urls[option.target])


async def find_adapter(
    client: Client, image: EncodedImage, forms: Sequence[RequestForm], answer: AnswerForm | None = None
) -> Adapter:
    """The first of the forms that is answered by a class or scores; how those are read, where `answer` does not say.

    Raises EndpointError, which tells what was sent, what came and what was expected.
    """
    attempts: list[Attempt] = []
    for form in forms:
        exchange = await client.post(form, image)
        found, outcome = _understand(exchange, client.classes, answer)
        if found:
            return Adapter(form, found)
        attempts.append(Attempt(form, outcome))
        if exchange.status is None or exchange.status in ACCESS_REFUSED or 300 <= exchange.status < 400:
            break  # no form would change that
    raise EndpointError(_not_understood(client, attempts))


def _understand(exchange: Exchange, classes: Sequence[str], answer: AnswerForm | None) -> tuple[AnswerForm | None, str]:
    """How the answer is read, or what came in its place."""
    if exchange.status is None:
        return None, ": ".join(exchange.failure or ("", "no response"))
    if failure := classify_status(exchange.status, exchange.headers, exchange.body):
        return None, failure[1]
    if exchange.failure:
        return None, exchange.failure[1]
    try:
        if answer:
            answer.read(exchange.body, classes)
            return answer, ""
        payload = parse_answer(exchange.body)
    except InvalidResponse as error:
        return None, str(error)
    shown = to_short_line(bytes(exchange.body[:200]).decode(errors="replace"))
    return recognise(payload, classes), f"200, with no class and no scores of the {len(classes)} classes: {shown}"


def _not_understood(client: Client, attempts: Sequence[Attempt]) -> str:
    by_outcome: dict[str, list[str]] = {}
    for attempt in attempts:
        by_outcome.setdefault(attempt.outcome, []).append(attempt.form.text())
    told = _told(by_outcome)
    if attempts[-1].outcome.startswith(("401", "403")):
        return f"{client.url}: {told}; give a token with --token-env {client.name}=VARIABLE"
    return f"{client.url} was not understood: {told}; say how it is asked with --adapter {client.name}=FILE"


def _told(by_outcome: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for outcome, forms in list(by_outcome.items())[:SHOWN_ATTEMPTS]:
        others = f" (and {len(forms) - 1} other forms)" if len(forms) > 1 else ""
        lines.append(f"{forms[0]}{others} -> {outcome}")
    if len(by_outcome) > SHOWN_ATTEMPTS:
        lines.append(f"{len(by_outcome) - SHOWN_ATTEMPTS} other outcomes")
    return "; ".join(lines)
