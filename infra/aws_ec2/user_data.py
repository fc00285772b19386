"""The VM's user data: cloud-config.yaml with the files that it names, and the VM's settings. Pure; no Pulumi."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.errors import UserDataError

HERE = Path(__file__).resolve().parent
HEADER = "#cloud-config\n"
SETTINGS_FILE = "/etc/classifier.env"  # read by bash and systemd, whose quoting rules differ
PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")  # needs no quotes in either
MAX_BYTES = 16 * 1024  # EC2's limit of user data, before base64


def render(settings: Mapping[str, str], *, https: bool) -> str:
    """The whole user data. Raises UserDataError when a setting needs quotes, or the text is too long for EC2."""
    config = _read("cloud-config.yaml")
    extra = _read("cloud-config-https.yaml") if https else {}
    files = {entry["path"]: entry for part in (config, extra) for entry in part.get("write_files", [])}
    files[SETTINGS_FILE] = {"path": SETTINGS_FILE, "content": _env(settings)}
    config["packages"] += extra.get("packages", [])
    config["write_files"] = [_filled(entry) for entry in files.values()]
    text = HEADER + yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=200)
    if (size := len(text.encode())) > MAX_BYTES:
        raise UserDataError(f"the user data has {size} bytes, and EC2 takes {MAX_BYTES}: shorten what it names")
    return text


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((HERE / name).read_text())


def _env(settings: Mapping[str, str]) -> str:
    for name, value in settings.items():
        if not PLAIN.fullmatch(value):
            raise UserDataError(f"{name} is {value!r}: {SETTINGS_FILE} takes letters, digits and _./:@%+,=- only")
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _filled(entry: Mapping[str, str]) -> dict[str, str]:
    """The entry with the contents of the file that it names."""
    filled = dict(entry)
    if source := filled.pop("source", None):
        filled["content"] = (HERE / source).read_text()
    return filled


class _Dumper(yaml.SafeDumper):
    """Writes files as blocks of text, so that the user data reads as its sources do."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
