"""Where a session keeps its configuration, data and logs, and how Prometheus gets at a token.

Nothing of it outlives the session. A killed one cannot clear up: the next session deletes its folder. A token is in no
folder at all where the system has files without a name (Linux).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "watch-"
LOCK = "lock"  # held while its session lives, however that ends


@contextlib.contextmanager
def session_folder() -> Iterator[Path]:
    """A folder that this user alone can read."""
    delete_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name, (Path(name) / LOCK).open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def delete_abandoned(parent: Path) -> None:
    """Delete this user's folders whose sessions are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another one's, younger than its lock, or of a session that lives
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            with (folder / LOCK).open(encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for path in folder.iterdir():
                    if path.name != LOCK:  # the last, so that what a program still writes to is tried again
                        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                (folder / LOCK).unlink()
                folder.rmdir()


@contextlib.contextmanager
def token_file(folder: Path, name: str, secret: str) -> Iterator[Path]:
    """A path at which this user's programs read a token, for as long as the context lasts.

    On Linux it leads to memory of this process, so that nothing is left even by a SIGKILL.
    """
    if not hasattr(os, "memfd_create"):
        file = folder / f"{name}.token"
        file.touch(mode=0o600)
        file.write_text(secret, encoding="utf-8")
        yield file
        return
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, secret.encode())
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
