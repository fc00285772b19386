"""A first response that no waiting cures: the address or the token is wrong. Says which option helps. Pure."""

from __future__ import annotations

from http import HTTPStatus

from eval.load.client import ACCESS_REFUSED
from eval.load.responses import HTML_PAGE
from eval.samples.model import Sample
from eval.targets.endpoints import Endpoint
from service.schema import PREDICT

WRONG_ADDRESS = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
OTHER_FORM = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)


def is_refusal(sample: Sample) -> bool:
    """Whether every further request would fail alike: a redirect, a page for people, no access, no such path."""
    status = sample.status or 0
    return 300 <= status < 400 or status in (*ACCESS_REFUSED, *WRONG_ADDRESS) or _is_page(sample)


def is_other_format(sample: Sample) -> bool:
    """Whether something answers at the path of predictions, which takes another form, or answers in another one."""
    return sample.status in OTHER_FORM or (sample.status == HTTPStatus.OK and not _is_page(sample))


def refusal_text(sample: Sample, endpoint: Endpoint) -> str:
    """What was responded, and what to change."""
    return f"{sample.detail}; {_advice(sample, endpoint)}"


def _advice(sample: Sample, endpoint: Endpoint) -> str:
    name, url, status = endpoint.name, endpoint.url, sample.status or 0
    if endpoint.signer:
        return "another profile (AWS_PROFILE), region or name of the endpoint is needed"
    token_option = f"--token-env {name}=VARIABLE"
    if status in ACCESS_REFUSED:
        return (
            f"another token is needed, with {token_option}" if endpoint.token else f"give a token with {token_option}"
        )
    if status in WRONG_ADDRESS:
        return (
            f"images are posted to {url.rstrip('/')}{PREDICT}: give the address in front of {PREDICT}, or the whole "
            f"address of a service with another path, with --target {name}=URL"
        )
    login = "" if endpoint.token else f", or a token with {token_option} if that is a login page"
    return f"give the address of the service itself with --target {name}=URL{login}"


def _is_page(sample: Sample) -> bool:
    return sample.status == HTTPStatus.OK and (sample.detail or "").startswith(HTML_PAGE)
