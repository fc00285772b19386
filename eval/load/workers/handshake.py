"""What a worker tells of itself before anything is sent, and what of that has to be as it is here."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from eval.load.nodes.code import code_sha256
from eval.load.workers.messages import Ready
from service.system import processor, usable_cpus

LIBRARIES = ("aiohttp", "multidict", "pydantic", "yarl")  # that take part in the sending of a request
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NOT_INSTALLED = "none"


def describe_worker(*, with_code: bool = True) -> Ready:
    """Of this process. with_code: its checksum takes a moment, and is known where the code is the run's own."""
    return Ready(code_sha256() if with_code else "", versions(), usable_cpus(), processor(), boot_id())


def incompatibility(sender: str, theirs: Ready, own: Ready) -> str | None:
    """Why requests of that sender would be other requests; None if they would not. It names both sides."""
    if theirs.code_sha256 != own.code_sha256:
        there, here = theirs.code_sha256[:12], own.code_sha256[:12]
        return (
            f"{sender} has other code than this machine (sha256 {there}, and {here}): "
            "remove ~/.cache/cloudtrial/senders on it"
        )
    for name in ("python", *LIBRARIES):
        there, here = (facts.versions.get(name, NOT_INSTALLED) for facts in (theirs, own))
        if _compared(name, there) != _compared(name, here):
            return f"{sender} has {name} {there}, this machine {here}: install the same on both"
    return None


def _compared(name: str, text: str) -> str:
    """Of Python 3.11.2 and 3.11.9 the speed and behaviour are the same."""
    return ".".join(text.split(".")[:2]) if name == "python" else text


def versions() -> dict[str, str]:
    """Of Python and the libraries that send."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def boot_id() -> str:
    """The same for all processes of a machine until it starts anew, and no other's."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
