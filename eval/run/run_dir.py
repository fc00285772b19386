"""The folder of a run: made, written into, found again as `latest`."""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from eval.errors import EvalError
from eval.samples.model import RUN_JSON, SAMPLES, SAMPLES_GZ
from eval.samples.store import writing

LATEST = "latest"
PROBE = ".writable"


def claim_folder(folder: Path) -> None:
    """Make the run's folder. Raises EvalError when it cannot be, or holds a run already."""
    taken = [name for name in (RUN_JSON, SAMPLES, SAMPLES_GZ) if (folder / name).exists()]
    if taken:
        raise EvalError(f"{folder} holds a run already ({taken[0]}): name another folder with --out, or remove it")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROBE).touch()
        (folder / PROBE).unlink()


def new_run_id() -> str:
    """Date, time and a few random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def point_latest(folder: Path) -> None:
    """Let `latest` beside the run's folder name it; a real folder of that name is left alone."""
    link, part = folder.parent / LATEST, folder.parent / f".latest-{folder.name}"
    if link.exists() and not link.is_symlink():
        return
    with contextlib.suppress(OSError):  # a file system without links
        part.symlink_to(folder.name)
        os.replace(part, link)
