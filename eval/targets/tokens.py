"""Bearer tokens of endpoints: where they are read, where they may go, how they are kept out of all text."""

from __future__ import annotations

import base64
import html
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from eval.errors import EndpointError

MIN_MASKED_CHARACTERS = 8  # a shorter one would be found, and masked, in ordinary text
MASK = "***"
ESCAPE_MARKS = ("%", "\\", "&")  # one of them begins each escaped character
ALLOW_FLAG = "--allow-token-over-http"


@dataclass(frozen=True)
class Token:
    """A bearer token. Its text shows in no repr and no message."""

    secret: str = field(repr=False)

    def __repr__(self) -> str:
        return MASK

    def headers(self) -> dict[str, str]:
        """The header that carries it."""
        return {"Authorization": f"Bearer {self.secret}"}


class Scrubber:
    """Masks tokens in text, as they are and as an endpoint's response may hold them.

    That is in base64 (of the token, or of a text that holds it) and in hexadecimal, each with any of its characters
    escaped as in a URL, JSON or HTML.
    """

    def __init__(self, tokens: Iterable[Token] = ()):
        self._forms: list[str] = []
        self.add(tokens)

    def add(self, tokens: Iterable[Token]) -> None:
        """Mask these too, from now on."""
        forms = {form for token in tokens for form in _encoded_forms(token.secret)}
        self._forms = sorted({*self._forms, *forms}, key=len, reverse=True)
        # Backslashes are matched from the first of a row, or a long row would take the square of its length
        alternatives = "|".join("".join(map(_escaped_or_not, form)) for form in self._forms)
        self._escaped_forms = re.compile(rf"(?<!\\)(?:{alternatives})")

    def __bool__(self) -> bool:
        return bool(self._forms)

    def __call__(self, text: str) -> str:
        """The text without the tokens."""
        if self and any(mark in text for mark in ESCAPE_MARKS):
            return self._escaped_forms.sub(MASK, text)
        for form in self._forms:  # ten times as fast, and between two requests
            text = text.replace(form, MASK)
        return text


@dataclass(frozen=True)
class TokenOption:
    """One `--token-env [TARGET=]VARIABLE`."""

    text: str
    target: str | None  # name of an endpoint; None: the only one that can have a token
    token: Token


def read_token(text: str, env: Mapping[str, str]) -> TokenOption:
    """The option with its variable's value. Raises EndpointError, which does not show the value."""
    target, separator, variable = text.rpartition("=")
    value = env.get(variable, "")
    if not value:
        raise EndpointError(f"--token-env {text}: no such environment variable, or an empty one")
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise EndpointError(
            f"--token-env {text}: its value does not fit a header; a token has printable ASCII characters and no spaces"
        )
    if len(value) < MIN_MASKED_CHARACTERS:
        raise EndpointError(
            f"--token-env {text}: its value has {len(value)} characters; a token has at least {MIN_MASKED_CHARACTERS}"
        )
    return TokenOption(text, target if separator else None, Token(value))


def check_route(name: str, url: str) -> None:
    """Raises EndpointError if a token sent to this endpoint could be read on its way."""
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise EndpointError(
            f"the token of {name} would be sent to {url} in clear: use https, or allow it with {ALLOW_FLAG}"
        )


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _encoded_forms(secret: str) -> list[str]:
    """The token, and what every text that holds it has in common in base64 and in hexadecimal."""
    data = secret.encode()
    forms = [secret, data.hex()]
    for offset in range(3):  # of the token in the encoded text, modulo 3
        encoded = base64.b64encode(bytes(offset) + data).decode().rstrip("=")
        incomplete = (offset + len(data)) % 3 != 0  # the last character depends on what follows the token
        common = encoded[(0, 2, 3)[offset] : -1 if incomplete else None]
        forms += [common, common.replace("+", "-").replace("/", "_")]
    return forms


def _escaped_or_not(character: str) -> str:
    """A pattern of the character, as it is or as URLs, JSON and HTML escape it, also several times over."""
    code, name = ord(character), html.escape(character).removeprefix("&")
    plain = r"\\++" if character == "\\" else rf"\\*+(?:u{code:04x}|u{code:04X}|{re.escape(character)})"
    in_url = f"%(?:25){{0,3}}(?:{code:02x}|{code:02X})"
    in_html = f"&(?:amp;){{0,3}}(?:#{code};|#x{code:x};|#x{code:X};|{re.escape(name)})"
    return f"(?:{in_url}|{in_html}|{plain})"
