"""Whether the pulumi program knows where its state is, and can read the secrets there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

WEB = ("https://", "http://")  # Pulumi's own service, or one like it; all else is a folder or a bucket
PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")


def missing_login(stack: str, folder: Path, env: Mapping[str, str], *, interactive: bool) -> Iterator[str]:
    """A line where pulumi would not find its state, or its passphrase and no terminal to ask for it."""
    project, home = _read(folder / "Pulumi.yaml"), Path(env.get("PULUMI_HOME") or Path.home() / ".pulumi")
    logged_in = _read(Path(env.get("PULUMI_CREDENTIALS_PATH") or home) / "credentials.json")
    backend = project.get("backend")
    url = env.get("PULUMI_BACKEND_URL") or (backend.get("url") if isinstance(backend, dict) else None)
    url = str(url or logged_in.get("current") or "")
    if not url and env.get("PULUMI_ACCESS_TOKEN"):
        return
    tokens = logged_in.get("accessTokens")
    token = (isinstance(tokens, dict) and tokens.get(url)) or env.get("PULUMI_ACCESS_TOKEN")
    if not url or (url.startswith(WEB) and not token):
        yield "pulumi is not logged in: `pulumi login --local` (state in ~/.pulumi), or another `pulumi login`"
        return
    passphrase_asked = not url.startswith(WEB) and not _has_other_key(_read(folder / f"Pulumi.{stack}.yaml"))
    # An empty passphrase is one, too; on a terminal pulumi asks for it.
    if passphrase_asked and not interactive and not any(name in env for name in PASSPHRASE):
        yield f"no PULUMI_CONFIG_PASSPHRASE for the secrets of the state in {url}: export one, and keep it"


def _has_other_key(stack_file: Mapping[str, object]) -> bool:
    """Whether a cloud's key encrypts the stack's secrets."""
    return str(stack_file.get("secretsprovider") or "passphrase") != "passphrase"


def _read(path: Path) -> dict[str, object]:
    """A file of JSON or YAML; empty where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
