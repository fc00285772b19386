"""Connections are open files: the limit is raised to what a run may need, or the run ends before it has begun."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import resource, sys
from eval.errors import EvalError
from eval.load.open_files import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 400))
try:
    allow_connections(int(sys.argv[1]), 2)
except EvalError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("connections", "printed"),
    [
        (10, "(120, 400)\n"),
        (128, "(356, 400)\n"),
        (256, "(400, 400)\n"),
        (2000, "this process may have 300 connections, and --in-flight is 2,000: give a lower one, or raise the limit"
         " of open files (ulimit -Hn 2100)\n(400, 400)\n"),
    ],
)  # fmt: skip
def test_the_soft_limit_grows_as_far_as_the_hard_one_allows(connections, printed):
    words = (sys.executable, "-c", SCRIPT, str(connections))
    assert subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout == printed
