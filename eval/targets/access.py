"""How an endpoint is reached: headers, query, basic auth, certificates and proxy, as the options of a command say it.

A value $NAME is read from the environment, and is a secret: it is masked in all text and written nowhere.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from eval.errors import EndpointError, InvalidInput
from eval.targets.tokens import MIN_MASKED_CHARACTERS, Token, is_loopback

VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
SECRET_NAME = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature|session|^code$|^sig$", re.IGNORECASE)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OF_THE_CONNECTION = ("content-length", "transfer-encoding", "connection")  # headers that are not for users to set
KEEPALIVE_S = 55.0  # below the 60 s after which nginx and many load balancers close an idle connection
PUT_INTO_VARIABLE = "put it into a variable, and write $VARIABLE"
HEADER, QUERY, BASIC, CA, CERTIFICATE, KEY, PROXY = ACCESS_FLAGS = (
    "--header", "--query", "--basic-env", "--ca", "--client-cert", "--client-key", "--proxy",
)  # fmt: skip


@dataclass(frozen=True)
class Access:
    """What one endpoint needs beside its address and its token."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None  # certificates that are trusted beside the system's
    certificate_file: str | None = None  # the client's own
    key_file: str | None = None  # None: in the file of the certificate
    proxy: str | None = field(default=None, repr=False)  # None: that of the environment
    secrets: tuple[Token, ...] = ()

    def ssl_context(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The context with these certificates. Raises OSError, of which ssl.SSLError is one."""
        if self.ca_file:
            context.load_verify_locations(self.ca_file)
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)
        return context


def read_access(options: Mapping[str, Sequence[str]], env: Mapping[str, str]) -> dict[str, Access]:
    """Flag -> its values, each NAME=VALUE, as the access of each endpoint. Raises EndpointError; it shows no secret."""
    access: dict[str, Access] = {}
    for flag, texts in options.items():
        for text in texts:
            name, separator, value = text.partition("=")
            if not (separator and name and value):
                raise EndpointError(f"{flag} {name}: expected NAME=..., with the name of an endpoint of the run")
            try:
                access[name] = READERS[flag](access.get(name, Access()), value, env)
            except InvalidInput as error:
                raise EndpointError(f"{flag} for {name}: {error}") from None
    for name, each in access.items():
        _check_certificates(name, each)
    return access


def filled_from_env(key: str, value: str, env: Mapping[str, str], secrets: list[Token]) -> str:
    """A value with each $NAME replaced by that variable, which is added to the secrets. Raises InvalidInput."""

    def read(match: re.Match[str]) -> str:
        secret = env.get(match[1], "")
        if len(secret) < MIN_MASKED_CHARACTERS or not (secret.isascii() and secret.isprintable()):
            raise InvalidInput(
                f"{key} is {value}, and that variable is not set, or not {MIN_MASKED_CHARACTERS} printable ASCII "
                "characters at least"
            )
        secrets.append(Token(secret))
        return secret

    if not VARIABLE.search(value) and SECRET_NAME.search(key):
        raise InvalidInput(f"the value of {key} may be a secret, and what is written here is kept; {PUT_INTO_VARIABLE}")
    filled = VARIABLE.sub(read, value)
    if not filled.isprintable():
        raise InvalidInput(f"the value of {key} has characters that cannot be sent")
    return filled


def check_header_name(name: str) -> None:
    """Raises InvalidInput for what no header is called, or what the client sets itself."""
    if not HEADER_NAME.fullmatch(name) or name.lower() in OF_THE_CONNECTION:
        raise InvalidInput(f"{name!r} is not the name of a header that can be set")


def proxy_of(url: str) -> str | None:
    """The HTTP proxy that the environment names for an address (https_proxy, no_proxy ...); none for this machine."""
    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def environment_secrets() -> list[Token]:
    """The passwords of the environment's proxies, as far as they can be masked."""
    passwords = (urlsplit(url).password or "" for url in getproxies().values() if "@" in url)
    return [Token(password) for password in passwords if len(password) >= MIN_MASKED_CHARACTERS]


def _with_header(access: Access, text: str, env: Mapping[str, str]) -> Access:
    name, separator, value = text.partition(":")
    if not separator:
        raise InvalidInput("expected HEADER:VALUE, such as 'X-Api-Key: $KEY'")
    check_header_name(name.strip())
    secrets: list[Token] = []
    filled = filled_from_env(name.strip(), value.strip(), env, secrets)
    return replace(
        access, headers={**access.headers, name.strip(): filled}, secrets=(*access.secrets, *secrets)
    )  # fmt: skip


def _with_query(access: Access, text: str, env: Mapping[str, str]) -> Access:
    key, separator, value = text.partition("=")
    if not (separator and key):
        raise InvalidInput("expected KEY=VALUE, such as 'version=2'")
    secrets: list[Token] = []
    filled = filled_from_env(key, value, env, secrets)
    return replace(access, query={**access.query, key: filled}, secrets=(*access.secrets, *secrets))


def _with_basic(access: Access, variable: str, env: Mapping[str, str]) -> Access:
    value = env.get(variable, "")
    user, separator, password = value.partition(":")
    if not (user and separator and len(password) >= MIN_MASKED_CHARACTERS and value.isascii() and value.isprintable()):
        raise InvalidInput(
            f"the variable {variable} is to hold USER:PASSWORD in printable ASCII, the password with "
            f"{MIN_MASKED_CHARACTERS} characters at least"
        )
    header = f"Basic {base64.b64encode(value.encode()).decode()}"
    return replace(
        access,
        headers={**access.headers, "Authorization": header},
        secrets=(*access.secrets, Token(password), Token(value)),
    )


def _with_file(field_name: str, access: Access, path: str) -> Access:
    if not Path(path).is_file():
        raise InvalidInput(f"there is no file {path}")
    return replace(access, **{field_name: path})


def _with_proxy(access: Access, text: str, env: Mapping[str, str]) -> Access:
    secrets: list[Token] = []
    if "@" in text and not VARIABLE.search(text):
        raise InvalidInput(f"its address has a user: {PUT_INTO_VARIABLE}, as in http://user:$PASSWORD@HOST:PORT")
    url = filled_from_env("the proxy", text, env, secrets)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("expected http://HOST:PORT")
    return replace(access, proxy=url, secrets=(*access.secrets, *secrets))


def _check_certificates(name: str, access: Access) -> None:
    """Raises EndpointError for files that no TLS connection could use."""
    if access.key_file and not access.certificate_file:
        raise EndpointError(f"{KEY} for {name}: {CERTIFICATE} is missing")
    files = " and ".join(filter(None, (access.ca_file, access.certificate_file, access.key_file)))
    try:
        access.ssl_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise EndpointError(
            f"the certificates of {name}, {files}, cannot be used ({reason}): they are PEM files, the key that of the "
            "certificate and without a password"
        ) from None


def _no_password() -> str:
    """OpenSSL would ask the terminal for one."""
    raise ValueError("the key has a password")


READERS = {
    HEADER: _with_header,
    QUERY: _with_query,
    BASIC: _with_basic,
    CA: lambda access, path, _: _with_file("ca_file", access, path),
    CERTIFICATE: lambda access, path, _: _with_file("certificate_file", access, path),
    KEY: lambda access, path, _: _with_file("key_file", access, path),
    PROXY: _with_proxy,
}
