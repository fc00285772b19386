"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass


class OutOfDate(ValueError):
    """A mutant that no longer fits its file."""


@dataclass(frozen=True)
class Mutant:
    """One mistake that someone could make, as the replacement of one piece of text."""

    target: str  # whose program it harms; "vm_files" and "shared" for parts of one, and of all
    name: str  # what is wrong then
    file: str  # from the repository's root
    old: str  # stands in the file exactly once
    new: str

    def apply(self, text: str) -> str:
        """The file's text with the mistake in it. Raises OutOfDate when there is not exactly one place for it."""
        if (count := text.count(self.old)) != 1:
            raise OutOfDate(
                f"{self.target}, {self.name!r}: {self.file} has {count} places for it, not one; "
                f"it has to stand there once: {self.old!r}"
            )
        return text.replace(self.old, self.new)
