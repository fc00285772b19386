"""Stages what is shipped in a folder, as every cloud has it: service/, models/, a few files beside."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.artifact import REPOSITORY, ROOT_FILES, deployment_files
from infra.models import DEFAULT_MODEL


def stage(root: Path, engine: str | None = None, model: str = DEFAULT_MODEL) -> Path:
    """Make `root` such a folder: folders are linked; root files are copied, for they find the rest by their path."""
    root.mkdir(parents=True)
    (root / "service").symlink_to(REPOSITORY / "service", target_is_directory=True)
    for name, path in deployment_files(engine=engine, model=model).items():
        if name in ROOT_FILES:
            shutil.copyfile(path, root / name)
        elif name.startswith("models/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(path)
    return root
