"""The commit that a deployment is of: what every program sets as GIT_SHA, and the service reports in /version."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.artifact import REPOSITORY, digest

HASH_DIGITS = 12
WHOLE_FOLDERS = ("service", "store", "training")


def deployed_git_sha(files: Mapping[str, Path], repository: Path = REPOSITORY) -> str:
    """The last commit that changed one of the files that are shipped: any other commit changes no deployment.

    With "-dirty-" and a hash of their contents where a file differs from it, and "unversioned-" with that hash outside
    git: two different deployments never have one name. A shallow clone knows too few commits to find the last one.

    files: name in the archive -> path, as deployment_files returns them.
    """
    paths = sorted(map(str, {*files.values(), *_whole_folders(files, repository)}))
    commit = _git(repository, "log", "-1", "--format=%H", "--", *paths)
    changed = _git(repository, "status", "--porcelain", "--untracked-files=all", "--", *paths)
    if commit and changed == "":
        return commit
    return f"{f'{commit}-dirty' if commit else 'unversioned'}-{digest(files)[:HASH_DIGITS]}"


def _whole_folders(files: Mapping[str, Path], repository: Path) -> set[Path]:
    """The folders that are shipped whole: of these, a file that was deleted is a change too."""
    folders = [repository / name for name in WHOLE_FOLDERS]
    return {folder for folder in folders for path in files.values() if path.is_relative_to(folder)}


def _git(repository: Path, *arguments: str) -> str | None:
    """What git prints; None where there is no git, or no repository."""
    try:
        result = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, encoding="utf-8", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
