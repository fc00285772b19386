"""Stages what is shipped in a folder, as every cloud has it: service/, models/, a few files beside."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.artifact import OWN_FILES, REPOSITORY, ROOT_FILES, deployment_files
from infra.models import DEFAULT_MODEL
from service.model import MODEL_JSON, Bundle

PACKAGES = ("service", "store")  # of which a deployment without a store ships the first alone


def stage(
    root: Path, engine: str | None = None, model: str | Bundle = DEFAULT_MODEL, *, target: str = "", store: bool = False
) -> Path:
    """Make `root` such a folder: folders are linked; root files are copied, for they find the rest by their path.

    target: whose own files are shipped, too. store: with the client of model stores, as on a VM that follows one.
    """
    root.mkdir(parents=True)
    for package in PACKAGES if store else PACKAGES[:1]:
        (root / package).symlink_to(REPOSITORY / package, target_is_directory=True)
    for name, path in deployment_files(engine=engine, target=target, model=model).items():
        if name in ROOT_FILES:
            shutil.copyfile(path, root / name)
    for name in OWN_FILES.get(target, ()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(REPOSITORY / name)
    stage_model(root, engine, model)
    return root


def stage_model(root: Path, engine: str | None, model: str | Bundle) -> None:
    """Link a model's files into models/, in place of another version's."""
    shutil.rmtree(root / "models", ignore_errors=True)
    for name, path in deployment_files(engine=engine, model=model).items():
        if name.startswith("models/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(path)


def stage_mounted(folder: Path, engine: str, bundle: Bundle) -> None:
    """Link a bundle's files into a folder that a platform mounts, in place of another version's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (MODEL_JSON, *bundle.files_for(engine)):
        (folder / name).symlink_to(bundle.folder / name)
