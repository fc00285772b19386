"""Reads what a stack's own file, Pulumi.<stack>.yaml, sets. For the commands that run without Pulumi."""

from __future__ import annotations

from pathlib import Path

import yaml

from infra.artifact import REPOSITORY
from infra.errors import StackFileError


def read_settings(stack: str, folder: Path = REPOSITORY) -> dict[str, str]:
    """Key -> value as text, such as {"aws:region": "us-east-1"}; without secrets. Empty where there is no file."""
    return {key: _text(value) for key, value in _read_config(stack, folder).items() if not isinstance(value, dict)}


def read_secret_keys(stack: str, folder: Path = REPOSITORY) -> set[str]:
    """The keys whose values the file holds encrypted."""
    return {key for key, value in _read_config(stack, folder).items() if isinstance(value, dict)}


def _read_config(stack: str, folder: Path) -> dict[str, object]:
    path = folder / f"Pulumi.{stack}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StackFileError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None
    config = content.get("config") or {} if isinstance(content, dict) else None
    if not isinstance(config, dict):
        raise StackFileError(f"{path.name} has to hold settings below `config:`")
    return {str(key): value for key, value in config.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
