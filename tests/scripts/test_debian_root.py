"""scripts/setup/debian_root: what it replaces. The trees themselves are made by the tests that boot them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration

DEBOOTSTRAP = """#!/bin/sh
for tree; do :; done
mkdir -p "$tree/etc/dpkg/dpkg.cfg.d" "$tree/var/cache/apt/archives"
touch "$tree/new"
"""


@pytest.fixture
def make_trees(tmp_path):
    """Runs the script with programs that make next to nothing."""
    for name, text in (("debootstrap", DEBOOTSTRAP), ("systemd-nspawn", "#!/bin/sh\n")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        script = ROOT / "scripts" / "setup" / "debian_root"
        return subprocess.run([script, folder, "nginx"], env=environment, capture_output=True, text=True)

    return run


def test_a_folder_of_something_else_is_kept(make_trees, tmp_path):
    mine = tmp_path / "work" / "vm" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = make_trees(tmp_path / "work")
    assert done.returncode == 2 and "work holds something else" in done.stderr
    assert mine.read_text() == "mine"


def test_trees_are_made_and_replaced(make_trees, tmp_path):
    for _ in range(2):
        done = make_trees(tmp_path / "trees")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "trees" / "vm" / "new").exists() and not (tmp_path / "trees" / "vm" / "old").exists()
        (tmp_path / "trees" / "vm" / "old").touch()
