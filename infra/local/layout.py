"""What is shipped, laid out in a folder as every cloud has it: service/, models/ and a few files at the root."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.bundle import FOLDERS, LIFTED, REPOSITORY


def lay_out(root: Path) -> Path:
    """Make `root` such a folder. Folders are links; lifted files are copies, for they find the rest by their path."""
    root.mkdir(parents=True)
    for name in FOLDERS:
        (root / name).symlink_to(REPOSITORY / name, target_is_directory=True)
    for name in LIFTED:
        shutil.copyfile(REPOSITORY / "service" / name, root / name)
    return root
