"""How gcloud wants a condition on its command line."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote

SEPARATORS = (",", ";", "~", "|#|")  # gcloud's own, and others for a condition that contains it


def condition_flag(condition: Mapping[str, str] | None) -> str:
    """--condition for a grant's condition, quoted for a shell. gcloud takes one that is the same in all three parts."""
    keys = ("expression", "title", "description")
    parts = [f"{key}={value}" for key in keys if (value := (condition or {}).get(key))]
    if not parts:
        return "--condition=None"
    mark = next(mark for mark in SEPARATORS if not any(mark in part for part in parts))
    return f"--condition={quote(mark.join(parts) if mark == ',' else f'^{mark}^{mark.join(parts)}')}"
