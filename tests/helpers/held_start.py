"""A process that is held at a moment of its start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.health import free_ports
from tests.helpers.running_service import ROOT

REACHED = "reached"
STAND_IN = f"import time\nprint({REACHED!r}, flush=True)\nwhile True:\n    time.sleep(60)"


@contextmanager
def held_at_import(folder: Path, library: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """The command's process once it imports this library, which never ends."""
    (folder / f"{library}.py").write_text(STAND_IN)
    (port,) = free_ports(1)
    env = os.environ | {"PYTHONPATH": str(folder), "ENGINE": "onnx", "PORT": str(port), "HOST": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        next(line for line in iter(process.stdout.readline, "") if REACHED in line)
        yield process
    finally:
        process.kill()
        process.wait()
