"""What the VM is given: its user data, and the files that its bundle has beside the service. Pure; no Pulumi.

The user data is cloud-config.yaml with the files that it names, and the VM's settings. All other files come with the
bundle, for EC2 takes 16 KiB of user data; the bundle's sha256 is among the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from infra.errors import UserDataError

HERE = Path(__file__).resolve().parent
HEADER = "#cloud-config\n"
SETTINGS_FILE = "/etc/classifier.env"  # read by bash and systemd, whose quoting rules differ
HOST_FILE = "/etc/nginx/snippets/classifier-host.conf"  # the one name that nginx answers to
PLAIN = re.compile(r"[]A-Za-z0-9_./:@%+,=*[-]*")  # needs no quotes in either
VM_FOLDER = "vm"  # in the bundle; what is in its folder etc is copied to /etc
VM_FILES = {
    "etc/systemd/system/classifier.service": "classifier.service",
    "etc/nginx/sites-available/classifier.conf": "nginx.conf",
    "etc/nginx/snippets/classifier-http.conf": "nginx-proxy.conf",
}
# What there is where there is a domain. Of two files with one path, this one counts.
HTTPS_FILES = {
    "etc/systemd/system/classifier-certificate.service": "classifier-certificate.service",
    "etc/systemd/system/classifier-certificate.timer": "classifier-certificate.timer",
    "etc/nginx/sites-available/classifier-https.conf": "nginx-https.conf",
    "etc/nginx/snippets/classifier-http.conf": "nginx-redirect.conf",
    "etc/nginx/snippets/classifier-https.conf": "nginx-proxy.conf",
    "certificate": "certificate",
}
# What there is where the VM follows a model store
STORE_FILES = {
    "etc/systemd/system/classifier-model.service": "classifier-model.service",
    "etc/systemd/system/classifier-model.timer": "classifier-model.timer",
}
MODELS_FOLDER = "/var/lib/classifier/models"  # that it brings up to date with the store, as the unit's StateDirectory
HTTPS_PACKAGES = ("certbot", "openssl")
HOST = re.compile(r"[a-z0-9.-]+")  # a domain, or an address of IPv4
MAX_BYTES = 16 * 1024  # EC2's limit of user data, before base64


def vm_files(*, https: bool, follows_store: bool = False) -> dict[str, Path]:
    """The VM's own files, by their names in the bundle."""
    files = VM_FILES | (HTTPS_FILES if https else {}) | (STORE_FILES if follows_store else {})
    return {f"{VM_FOLDER}/{path}": HERE / source for path, source in files.items()}


def render(settings: Mapping[str, str], *, host: str, https: bool) -> str:
    """The whole user data, for a VM that answers to `host` alone.

    Raises UserDataError when a setting needs quotes, or the text is too long for EC2.
    """
    if not HOST.fullmatch(host):
        raise UserDataError(f"the host is {host!r}; nginx takes a domain in small letters, or an address of IPv4")
    config = yaml.safe_load((HERE / "cloud-config.yaml").read_text(encoding="utf-8"))
    config["packages"] += HTTPS_PACKAGES if https else ()
    config["write_files"] = [
        *map(_filled, config["write_files"]),
        {"path": SETTINGS_FILE, "content": _env(settings)},
        {"path": HOST_FILE, "content": f"server_name {host};\n"},
    ]
    text = HEADER + yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=200)
    if (size := len(text.encode())) > MAX_BYTES:
        raise UserDataError(f"the user data has {size} bytes, and EC2 takes {MAX_BYTES}: shorten what it names")
    return text


def _env(settings: Mapping[str, str]) -> str:
    for name, value in settings.items():
        if not PLAIN.fullmatch(value):
            raise UserDataError(f"{name} is {value!r}: {SETTINGS_FILE} takes letters, digits and _./:@%+,=*[]- only")
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _filled(entry: Mapping[str, str]) -> dict[str, str]:
    """The entry with the contents of the file that it names."""
    filled = dict(entry)
    if source := filled.pop("source", None):
        filled["content"] = (HERE / source).read_text(encoding="utf-8")
    return filled


class _Dumper(yaml.SafeDumper):
    """Writes files as blocks of text, so that the user data reads as its sources do."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
