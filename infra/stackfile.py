"""Reads what a stack's own file, Pulumi.<stack>.yaml, sets in clear. For the commands that run without Pulumi."""

from __future__ import annotations

from pathlib import Path

import yaml

from infra.artifact import REPOSITORY
from infra.errors import StackFileError


def read_settings(stack: str, folder: Path = REPOSITORY) -> dict[str, str]:
    """Key -> value as text, such as {"aws:region": "us-east-1"}; without secrets. Empty where there is no file."""
    path = folder / f"Pulumi.{stack}.yaml"
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StackFileError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None
    settings = content.get("config") or {} if isinstance(content, dict) else None
    if not isinstance(settings, dict):
        raise StackFileError(f"{path.name} has to hold settings below `config:`")
    return {str(key): _text(value) for key, value in settings.items() if not isinstance(value, dict)}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
