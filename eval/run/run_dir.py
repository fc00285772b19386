"""Creates the folder of a run, keeps it to one process, and points the link `latest` to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from eval.errors import EvalError
from eval.samples.model import RUN_JSON, SAMPLES_FILE, SAMPLES_GZ_FILE
from eval.samples.store import os_errors_as_eval_error

LATEST_LINK = "latest"
LOG_DIR = "logs"
REPORTS = ("report.html", "report.md", "report.json")  # that the run ends with


def create_run_dir(run_dir: Path) -> None:
    """Create the folder of a run. Raises EvalError if that fails, or if it has a run or a report already."""
    existing_files = [name for name in (RUN_JSON, SAMPLES_FILE, SAMPLES_GZ_FILE) if os.path.lexists(run_dir / name)]
    if existing_files:
        raise EvalError(
            f"{run_dir} has a run already ({existing_files[0]}): select another folder with --out, or remove it"
        )
    if reports := [name for name in REPORTS if os.path.lexists(run_dir / name)]:
        raise EvalError(f"{run_dir} has {reports[0]} already, which the run's would replace: select another with --out")
    with os_errors_as_eval_error(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run_dir).close()  # whether it can be written to
    refuse_linked_logs(run_dir)


def refuse_linked_logs(run_dir: Path) -> None:
    """Raises EvalError if the logs would be written through a link to somewhere else."""
    if (run_dir / LOG_DIR).is_symlink():
        raise EvalError(f"{run_dir / LOG_DIR} is a link, through which logs would be written elsewhere: remove it")


@contextlib.contextmanager
def lock_run_dir(run_dir: Path) -> Iterator[None]:
    """Keep every other process from measuring into the folder meanwhile. Raises EvalError if one does already.

    The lock ends with this process, however that ends. Some network file systems have none.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # which is said where the run is read
            folder = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EvalError(f"{run_dir} is being measured by another process: wait until it ends") from None
            except OSError:
                pass
        yield


def new_run_id() -> str:
    """Date, time and random digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def update_latest(run_dir: Path) -> None:
    """Point the link `latest` beside the run's folder to it; a real folder of that name is kept."""
    link, temp_link = run_dir.parent / LATEST_LINK, run_dir.parent / f".latest-{run_dir.name}"
    if link.exists() and not link.is_symlink():
        return
    with contextlib.suppress(OSError):  # a file system without symbolic links
        temp_link.symlink_to(run_dir.name)
        os.replace(temp_link, link)
