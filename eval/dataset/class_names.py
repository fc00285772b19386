"""The classes of a service in its own order, from a file with one on each line (`--classes`)."""

from __future__ import annotations

from pathlib import Path

from eval.errors import EvalError, ImagesError
from eval.samples.model import MAX_CLASSES
from eval.validation import MAX_NAME_CHARS, read_file

MAX_BYTES = 4 * 1024 * 1024


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names, of which a class's number is the place. Raises ImagesError."""
    if path.is_dir():
        raise ImagesError(
            f"--classes {path} is a folder: give a file with a class on each line, or leave it out, as the folders of "
            "--images are the classes then"
        )
    try:
        names = tuple(line.strip() for line in read_file(path, MAX_BYTES).decode("utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise ImagesError(f"--classes {path}: not text in UTF-8") from None
    except (OSError, EvalError) as error:
        raise ImagesError(f"--classes {path}: {getattr(error, 'strerror', None) or error}") from None
    for line, name in enumerate(names, 1):
        if not name or not name.isprintable() or len(name) > MAX_NAME_CHARS:
            raise ImagesError(
                f"--classes {path}: line {line} is empty, too long or not printable; give one class a line"
            )
        if names.index(name) != line - 1:
            raise ImagesError(f"--classes {path}: line {line} has {name!r} again")
    if not 1 < len(names) <= MAX_CLASSES:
        raise ImagesError(f"--classes {path}: {len(names):,} classes; expected 2 to {MAX_CLASSES:,}")
    return names
