"""What a platform's own file says to run: the record that its readers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProcessSpec:
    """One process, as its platform would start it in the root of what is shipped."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  # on top of the bare environment
