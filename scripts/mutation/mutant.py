"""The record of a mutant."""

from __future__ import annotations

from dataclasses import dataclass


class OutOfDate(ValueError):
    """A mutant that no longer fits its file."""


@dataclass(frozen=True)
class Mutant:
    """A plausible mistake, as the replacement of one piece of text."""

    target: str  # the program it changes; "vm_files" and "shared" for parts of one, and of all
    name: str  # the mistake
    file: str  # from the repository's root
    old: str  # occurs in the file exactly once
    new: str

    def apply(self, text: str) -> str:
        """The file's text with the mistake. Raises OutOfDate unless the old text occurs once."""
        if (count := text.count(self.old)) != 1:
            raise OutOfDate(
                f"{self.target}, {self.name!r}: {self.file} has to contain the text once, and has it {count} times: "
                f"{self.old!r}"
            )
        return text.replace(self.old, self.new)
